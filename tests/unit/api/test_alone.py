"""Providers used by themselves: single batches, sent, watched and fetched without a run."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any

import pytest
from pydantic import BaseModel

from batchata_tasks import AnthropicProvider, Batch, Job, OpenAIProvider, SpecError
from batchata_tasks.common.errors import (
    CredentialsError,
    TerminalError,
    TransientError,
    UnclearError,
)
from batchata_tasks.common.money import usd
from batchata_tasks.common.settings import Settings
from batchata_tasks.emulator import answer_text
from batchata_tasks.pricing.lookup import batch_rates, published_rates
from batchata_tasks.pricing.price_file import load_prices
from batchata_tasks.providers import Provider, provider_name, provider_type
from batchata_tasks.providers.base import Limits
from batchata_tasks.types.answer import Usage
from tests.support.paths import ROOT

if TYPE_CHECKING:
    from pathlib import Path

    from batchata_tasks.emulator import Emulator

MODELS = {"anthropic": "claude-haiku-5-5", "openai": "gpt-6-luna", "house": "house-luna"}
OTHER = {"anthropic": "claude-sonnet-5-5", "openai": "gpt-6-terra", "house": "house-terra"}
SIDE = {"anthropic": "anthropic", "openai": "openai", "house": "openai"}


class Label(BaseModel):
    """A response model."""

    label: str
    score: int


def client(name: str) -> Provider:
    """Return one provider that sends batches by itself."""
    kind: Any = {"anthropic": AnthropicProvider, "openai": OpenAIProvider}.get(
        name
    ) or provider_type(name)
    return kind()


@pytest.fixture(params=MODELS)
def provider(request: pytest.FixtureRequest, emulator: Emulator, house: str) -> Provider:
    return client(request.param)


def job(provider: Provider, name: str, **given: Any) -> Job:
    return Job(
        name, MODELS[provider.name], prompt=f"question {name}", **{"max_tokens": 100, **given}
    )


def jobs(provider: Provider, count: int, **given: Any) -> list[Job]:
    return [job(provider, f"Job_{number}-x", **given) for number in range(count)]


def accepted(emulator: Emulator, provider: Provider) -> int:
    return emulator.control.ledger()[SIDE[provider.name]]["batches_accepted"]


def files(emulator: Emulator) -> list[Any]:
    return emulator.control.ledger()["openai"]["files"]


def test_a_batch_by_itself(provider: Provider, emulator: Emulator) -> None:
    """Jobs are sent once, watched, and return their own answers.

    Each result has its response class and what was billed.
    """
    emulator.control.progress("reads", 3)
    sent = [
        *jobs(provider, 20),
        job(provider, "typed", response_model=Label),
        job(provider, "schema", response_model=Label.model_json_schema()),
    ]
    batch_id = provider.create_batch(iter(sent))
    with pytest.raises(TransientError, match=f"batch {batch_id} has not ended") as early:
        provider.get_batch_results(batch_id)
    assert early.value.retry_after == provider.get_polling_interval()
    seen = {provider.get_batch_status(batch_id) for _ in range(6)}
    assert seen & {"ended", "completed"}
    assert seen & {"in_progress", "validating", "finalizing"}
    found = provider.get_batch_results(batch_id)
    results = {result.job_id: result for result in found}
    assert set(results) == {one.id for one in sent}
    assert len(found) == len(sent)
    for one in sent[:20]:
        body = provider.body(one.request(None))
        assert results[one.id].response == answer_text(SIDE[provider.name], body)
        assert results[one.id].parsed_response is None
    assert isinstance(results["typed"].parsed_response, Label)
    assert isinstance(results["schema"].parsed_response, dict)
    assert all(result.is_success() for result in found)
    book = emulator.control.ledger()[SIDE[provider.name]]
    rates = batch_rates(provider.name, MODELS[provider.name], load_prices(Settings().prices))
    assert rates is not None
    bill = rates.cost(Usage(book["input_tokens_billed"], book["output_tokens_billed"]))
    assert math.fsum(result.cost_usd for result in found) == pytest.approx(
        float(usd(bill)), rel=1e-12
    )
    assert accepted(emulator, provider) == 1


def test_a_job_is_checked_before_it_is_sent(provider: Provider, emulator: Emulator) -> None:
    """`validate_job` accepts a valid job.

    Otherwise one sentence names the job, what is wrong with it and what to do.
    """
    provider.validate_job(job(provider, "fine", max_tokens=64))
    with pytest.raises(
        SpecError, match=r"^job 'capped': params.max_tokens: this is set by"
    ) as caught:
        provider.validate_job(job(provider, "capped", params={"max_tokens": 3}))
    assert "\n" not in str(caught.value)
    if provider.name != "openai":
        with pytest.raises(
            SpecError,
            match=(
                "^job 'elsewhere': endpoint: "
                f"{provider.name} has no endpoint 'responses'; remove it"
            ),
        ):
            provider.validate_job(job(provider, "elsewhere", endpoint="responses"))
    provider.validate_job(job(provider, "limited", params={"metadata": {"k": "v"}}), limited=True)
    with pytest.raises(
        SpecError, match=r"^job 'free': params.invented: its effect on the price has no bound"
    ):
        provider.validate_job(job(provider, "free", params={"invented": 1}), limited=True)
    assert accepted(emulator, provider) == 0


def test_openai_serves_both_of_its_endpoints(emulator: Emulator) -> None:
    """Jobs to /v1/responses follow that endpoint's rules.

    They are checked, estimated and sent there, and any object of the provider can read the answers.
    """
    provider = OpenAIProvider()
    jobs = [
        Job(
            str(number),
            "gpt-6-luna",
            prompt=f"q {number}",
            max_tokens=64,
            endpoint="responses",
            response_model=Label,
        )
        for number in range(3)
    ]
    with pytest.raises(
        SpecError, match=r"^job 'small': max_tokens: 9 is less than /v1/responses takes"
    ):
        provider.validate_job(
            Job("small", "gpt-6-luna", prompt="x", max_tokens=9, endpoint="responses")
        )
    assert provider.estimate_cost(jobs) > 0
    batch_id = provider.create_batch(jobs)
    results = {result.job_id: result for result in provider.get_batch_results(batch_id)}
    assert all(isinstance(results[one.id].parsed_response, Label) for one in jobs)
    other = {result.job_id: result for result in OpenAIProvider().get_batch_results(batch_id)}
    assert {name: (one.response, one.cost_usd) for name, one in other.items()} == {
        name: (one.response, one.cost_usd) for name, one in results.items()
    }
    book, rates = emulator.control.ledger()["openai"], published_rates("openai", "gpt-6-luna")
    assert rates is not None
    bill = rates.cost(Usage(book["input_tokens_billed"], book["output_tokens_billed"]))
    assert math.fsum(result.cost_usd for result in results.values()) == pytest.approx(
        float(usd(bill)), rel=1e-12
    )


def test_results_of_a_batch_that_another_object_created(provider: Provider) -> None:
    """Results of a batch that another object created have the raw text, parsed as nothing.

    The response models are not known there; the price is that of the model that answered.
    """
    batch_id = provider.create_batch([job(provider, "1", response_model=Label)])
    own, other = provider.get_batch_results(batch_id), type(provider)().get_batch_results(batch_id)
    assert Label.model_validate_json(other[0].response) == own[0].parsed_response
    assert (other[0].outcome, other[0].batch_id) == ("succeeded", batch_id)
    assert (other[0].parsed_response, other[0].error, other[0].cost_usd) == (
        None,
        None,
        own[0].cost_usd,
    )


@pytest.mark.parametrize(
    ("fault", "code"),
    [
        ("request_error", "provider:"),
        ("request_invalid", "request:"),
        ("request_refusal", "refused:"),
        ("request_truncated", "truncated:"),
        ("request_expired", "never_ran:"),
    ],
)
def test_failures_say_why(provider: Provider, emulator: Emulator, fault: str, code: str) -> None:
    """A job that failed has an error that begins with its kind; the others have their answers."""
    emulator.control.faults(kind=fault, contains="Job_1-x")
    results = {
        result.job_id: result
        for result in provider.get_batch_results(provider.create_batch(jobs(provider, 3)))
    }
    assert str(results["Job_1-x"].error).startswith(code)
    assert (results["Job_1-x"].cost_usd > 0) is (fault in ("request_refusal", "request_truncated"))
    assert results["Job_0-x"].is_success()
    assert results["Job_2-x"].is_success()


def test_an_answer_that_its_model_refuses(provider: Provider) -> None:
    """An answer that breaks its response model is no success; its text and its cost remain."""

    class Never(BaseModel):
        label: str

        def model_post_init(self, _context: object) -> None:
            raise ValueError("never")

    result = provider.get_batch_results(
        provider.create_batch([job(provider, "1", response_model=Never)])
    )[0]
    assert str(result.error).startswith("response:")
    assert result.parsed_response is None
    assert result.response
    assert result.cost_usd > 0


@pytest.mark.parametrize("kind", ["drop_after", "drop_before", "http_500_after"])
def test_a_lost_answer_is_unclear_and_nothing_is_sent_again(
    provider: Provider, emulator: Emulator, kind: str
) -> None:
    """Without a ledger, the caller learns that the batch may be running; it is not sent again."""
    emulator.control.faults(kind=kind, count=1)
    with pytest.raises(UnclearError):
        provider.create_batch(jobs(provider, 2))
    assert accepted(emulator, provider) == (kind != "drop_before")


@pytest.mark.parametrize(
    ("status", "error"), [(400, TerminalError), (429, TransientError), (401, CredentialsError)]
)
def test_a_refused_create_leaves_nothing_behind(
    provider: Provider, emulator: Emulator, status: int, error: type[Exception]
) -> None:
    """If a create was certainly refused, its request file is deleted at the provider."""
    emulator.control.faults(kind="http_error", route="create", status=status, count=1)
    with pytest.raises(error):
        provider.create_batch(jobs(provider, 2))
    assert accepted(emulator, provider) == 0
    assert files(emulator) == []


def test_nothing_is_sent_of_what_is_wrong(
    provider: Provider, emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All jobs are checked before anything is sent; one sentence names the job and the remedy."""
    name, good = provider.name, jobs(provider, 2)
    stranger = Job("s", next(model for other, model in MODELS.items() if other != name), prompt="x")
    wrong: list[tuple[list[Job], str]] = [
        ([], "jobs: there are none"),
        ([*good, good[0]], f"job '{good[0].id}': there are two jobs of this id"),
        ([*good, stranger], f"job 's': '{stranger.model}' is a model of"),
        ([*good, job(provider, "")], "job '': id: write a text"),
        ([*good, job(provider, "a b")], "job 'a b': its id names the request at the provider"),
        ([*good, job(provider, "ä")], "job 'ä': its id"),
        ([*good, job(provider, "a\n")], "job 'a\\n': its id"),
        ([*good, job(provider, "x" * 65)], "its id names the request"),
        (
            [*good, job(provider, "p", params={"max_tokens": 3})],
            "job 'p': params.max_tokens: this is set by",
        ),
        ([*good, job(provider, "m", max_tokens=0)], "job 'm': max_tokens: 0 is no number"),
        ([*good, job(provider, "r", response_model={"type": "string"})], "job 'r': response_model"),
    ]
    if not provider.mixes_models:
        wrong.append(
            (
                [*good, Job("o", OTHER[name], prompt="x")],
                f"job 'o': one batch of {name} cannot hold both {OTHER[name]} (chat) and",
            )
        )
    for given, sentence in wrong:
        with pytest.raises(SpecError) as caught:
            provider.create_batch(given)
        assert sentence in str(caught.value)
        assert "\n" not in str(caught.value)
    monkeypatch.setattr(type(provider), "limits", Limits(3, 1000))
    with pytest.raises(
        SpecError, match=f"one batch of {name} takes up to 3, and these are 4; create several"
    ):
        provider.create_batch(jobs(provider, 4))
    with pytest.raises(
        SpecError, match=f"one batch of {name} takes 1,000 bytes, and with job 'big' they have"
    ):
        provider.create_batch([job(provider, "big", params={"metadata": {"note": "x" * 1000}})])
    assert accepted(emulator, provider) == 0
    assert files(emulator) == []


def test_anthropic_takes_several_models_in_one_batch(emulator: Emulator) -> None:
    """Each request is answered and priced by its own model."""
    provider = AnthropicProvider()
    jobs = [
        Job("h", MODELS["anthropic"], prompt="same"),
        Job("s", OTHER["anthropic"], prompt="same"),
    ]
    haiku, sonnet = sorted(
        provider.get_batch_results(provider.create_batch(jobs)), key=lambda result: result.job_id
    )
    assert haiku.is_success()
    assert sonnet.cost_usd > haiku.cost_usd > 0


def test_cancelling(provider: Provider, emulator: Emulator) -> None:
    """A running batch is cancelled, and its jobs say so.

    One that has ended is not cancelled, and one that does not exist is an error.
    """
    emulator.control.progress("seconds", 3600)
    batch_id = provider.create_batch(jobs(provider, 3))
    assert provider.cancel_batch(batch_id) is True
    emulator.control.advance(7200)
    results = provider.get_batch_results(batch_id)
    assert sorted(result.job_id for result in results) == ["Job_0-x", "Job_1-x", "Job_2-x"]
    assert all(
        result.is_success() or str(result.error).startswith("never_ran:") for result in results
    )
    assert all(result.cost_usd == 0 for result in results if not result.is_success())
    assert provider.cancel_batch(batch_id) is False
    with pytest.raises(TransientError):
        provider.cancel_batch("msgbatch_000" if provider.name == "anthropic" else "batch_000")


def test_what_never_comes_home_is_told(provider: Provider, emulator: Emulator) -> None:
    """A missing line is a result of unknown cost; results that are gone are an error.

    The first holds for the object that created the batch.
    """
    emulator.control.faults(kind="request_missing", contains="Job_1-x")
    batch_id = provider.create_batch(jobs(provider, 3))
    results = {result.job_id: result for result in provider.get_batch_results(batch_id)}
    assert "returned no line for it" in str(results["Job_1-x"].error)
    assert math.isnan(results["Job_1-x"].cost_usd)
    assert len(type(provider)().get_batch_results(batch_id)) == 2


def test_lines_that_are_broken_or_late(provider: Provider, emulator: Emulator) -> None:
    """A broken line is an error of unknown cost.

    Results that have no file yet are "later", never an empty list.
    """
    emulator.control.faults(kind="request_broken_line", contains="Job_1-x")
    results = provider.get_batch_results(provider.create_batch(jobs(provider, 3)))
    broken = [result for result in results if not result.is_success()]
    assert {result.job_id for result in results} >= {"Job_0-x", "Job_1-x", "Job_2-x"}
    assert all(math.isnan(result.cost_usd) for result in broken)
    emulator.control.clear_faults()
    if provider.name != "anthropic":
        emulator.control.faults(kind="late_files", reads=2)
        batch_id = provider.create_batch(jobs(provider, 3))
        with pytest.raises(TransientError, match="its results are not there yet"):
            provider.get_batch_results(batch_id)
        for _ in range(4):
            provider.get_batch_status(batch_id)
        assert len(provider.get_batch_results(batch_id)) == 3


@pytest.mark.parametrize("name", ["openai", "house"])
def test_a_batch_that_was_refused_as_a_whole(name: str, emulator: Emulator, house: str) -> None:
    """A validation that failed is an error with the provider's reason, never an empty list."""
    provider = client(name)
    emulator.control.faults(kind="token_limit", count=1)
    batch_id = provider.create_batch(jobs(provider, 2))
    assert provider.get_batch_status(batch_id) == "failed"
    with pytest.raises(
        TerminalError, match=r"refused as a whole, so that nothing of it ran: .*limit"
    ):
        provider.get_batch_results(batch_id)


def test_archived_results_are_an_error(emulator: Emulator) -> None:
    """Results that Anthropic has archived are an error, not an empty list."""
    provider = AnthropicProvider()
    batch_id = provider.create_batch(jobs(provider, 1))
    provider.get_batch_status(batch_id)
    emulator.control.archive(batch_id)
    with pytest.raises(TerminalError, match="are not kept any more"):
        provider.get_batch_results(batch_id)


def test_the_estimate_is_that_of_a_plan(provider: Provider, tmp_path: Path) -> None:
    """`estimate_cost` says what the plan of a Batch of the same jobs expects, and sends nothing."""
    asked = jobs(provider, 30, response_model=Label) + [
        job(provider, f"long{number}", max_tokens=1000) for number in range(5)
    ]
    batch = Batch(tmp_path / "out")
    for one in asked:
        batch.add_job(
            id=one.id,
            prompt=one.prompt,
            model=one.model,
            max_tokens=one.max_tokens,
            response_model=one.response_model,
        )
    plan = batch.run(dry_run=True).plan
    assert plan is not None
    assert plan.summary.expected is not None
    assert provider.estimate_cost(asked) == pytest.approx(plan.summary.expected / 1e12, rel=1e-12)
    assert provider.estimate_cost(asked) > 0
    assert provider.estimate_cost([]) == 0


def test_unknown_prices_are_nan(emulator: Emulator, house: str) -> None:
    """Without a batch rate, neither an estimate nor a result costs 0."""
    provider = provider_type(provider_name("house-sol"))()
    jobs = [Job("1", "house-sol", prompt="x")]
    assert math.isnan(provider.estimate_cost([*jobs, Job("2", house, prompt="x")]))
    result = provider.get_batch_results(provider.create_batch(jobs))[0]
    assert result.is_success()
    assert math.isnan(result.cost_usd)


def test_the_first_wait(emulator: Emulator, house: str) -> None:
    """The interval is a second at Anthropic, five at OpenAI, else what the adapter says."""
    assert AnthropicProvider().get_polling_interval() == 1
    assert OpenAIProvider().get_polling_interval() == 5
    assert provider_type(provider_name(house))().get_polling_interval() == 2


def test_the_example_of_the_docs(emulator: Emulator, capsys: pytest.CaptureFixture[str]) -> None:
    """The code in docs/providers.md that sends a batch runs as printed.

    It prints each job with its answer and its cost.
    """
    text = (ROOT / "docs/providers.md").read_text(encoding="utf-8")
    code = next(
        code
        for code in re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
        if "create_batch(" in code
    )
    exec(compile(code, "docs/providers.md", "exec"), {})
    estimate, *lines = capsys.readouterr().out.splitlines()
    assert float(estimate) > 0
    assert sorted(line.split()[0] for line in lines) == sorted(f"q{n}" for n in range(20))
    assert all("Echo" in line and float(line.split()[-1]) > 0 for line in lines)
