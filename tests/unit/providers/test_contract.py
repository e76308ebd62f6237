"""The contract that every adapter keeps, tested over HTTP with the official SDKs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import orjson
import pytest

from batchata_tasks.common.errors import (
    CredentialsError,
    SpecError,
    TerminalError,
    TransientError,
    UnclearError,
)
from batchata_tasks.emulator import Emulator, answer_text
from batchata_tasks.providers import BatchLook, Provider, provider_type
from batchata_tasks.providers.request_file import write_request_file
from batchata_tasks.schema.response import ResponseSchema
from batchata_tasks.types.outcome import Outcome
from batchata_tasks.types.request import Message, Request

if TYPE_CHECKING:
    from pathlib import Path

MODELS = {"anthropic": "claude-haiku-5-5", "openai": "gpt-6-luna", "house": "house-luna"}
SIDE = {"anthropic": "anthropic", "openai": "openai", "house": "openai"}  # of the emulator
APIS = [("anthropic", "chat"), ("openai", "chat"), ("openai", "responses"), ("house", "chat")]
TOKEN = "t" * 20
SCHEMA = ResponseSchema.from_json_schema(
    {
        "type": "object",
        "properties": {"label": {"enum": ["a", "b"]}, "n": {"type": "integer"}},
        "required": ["label", "n"],
    },
    "x",
)


@pytest.fixture(params=APIS, ids="-".join)
def provider(request: pytest.FixtureRequest, emulator: Emulator, house: str) -> Provider:
    """Return each adapter in turn.

    To test a new one, add its names, a model and the server it calls.
    """
    return provider_type(*request.param)()


def job(provider: Provider, text: str, schema: ResponseSchema | None = None) -> Request:
    return Request(
        MODELS[provider.name],
        (Message("system", "Be brief."), Message("user", text)),
        200,
        {},
        schema,
    )


def bodies(
    provider: Provider, count: int, schema: ResponseSchema | None = None
) -> dict[str, bytes]:
    return {
        f"{i:024}": orjson.dumps(provider.body(job(provider, f"question {i}", schema)))
        for i in range(count)
    }


def create(
    provider: Provider, folder: Path, made: dict[str, bytes], token: str = TOKEN
) -> BatchLook:
    path = folder / "requests.jsonl"
    write_request_file(path, provider.framing, token, made.items())
    return provider.create(path, provider.upload(path), token, lambda: None)


def test_a_batch_travels_out_and_home(
    provider: Provider, emulator: Emulator, tmp_path: Path
) -> None:
    """Every request returns once, under its custom_id, with its own answer and usage."""
    requests = bodies(provider, 50, SCHEMA)
    look = create(provider, tmp_path, requests)
    assert not look.ended or look.requests == 50
    ended = provider.look(look.batch_id)
    assert ended.ended
    assert ended.requests == 50
    paths = provider.download(ended, tmp_path, "results")
    answers = {answer.custom_id: answer for path in paths for answer in provider.answers(path)}
    assert set(answers) == {f"{TOKEN}-{row}" for row in requests}
    for row, body in requests.items():
        answer = answers[f"{TOKEN}-{row}"]
        assert answer.outcome is Outcome.SUCCEEDED
        assert answer.text == answer_text(SIDE[provider.name], orjson.loads(body))
        assert answer.usage.input_tokens > 0
        assert answer.usage.output_tokens > 0
        assert SCHEMA.parse(answer.text or "")[0] is not None
    billed = emulator.control.ledger()[SIDE[provider.name]]
    assert billed["input_tokens_billed"] == sum(a.usage.input_tokens for a in answers.values())
    assert billed["output_tokens_billed"] == sum(a.usage.output_tokens for a in answers.values())


def test_results_do_not_come_in_order(provider: Provider, tmp_path: Path) -> None:
    """The emulator shuffles, so a join by position cannot pass these tests."""
    requests = bodies(provider, 50)
    look = provider.look(create(provider, tmp_path, requests).batch_id)
    ids = [
        answer.custom_id
        for path in provider.download(look, tmp_path, "r")
        for answer in provider.answers(path)
    ]
    assert sorted(ids) == [f"{TOKEN}-{row}" for row in requests]
    assert ids != sorted(ids)


@pytest.mark.parametrize(
    ("fault", "outcome"),
    [
        ("request_error", Outcome.ERRORED),
        ("request_invalid", Outcome.ERRORED),
        ("request_expired", Outcome.EXPIRED),
        ("request_refusal", Outcome.REFUSED),
        ("request_truncated", Outcome.TRUNCATED),
    ],
)
def test_every_line_has_one_outcome(
    provider: Provider, emulator: Emulator, tmp_path: Path, fault: str, outcome: Outcome
) -> None:
    """A provider's answer to a request is one outcome, which says if it may be sent again."""
    emulator.control.faults(kind=fault, contains="question 1")
    requests = bodies(provider, 3)
    look = provider.look(create(provider, tmp_path, requests).batch_id)
    answers = {
        a.custom_id: a
        for path in provider.download(look, tmp_path, "r")
        for a in provider.answers(path)
    }
    struck = answers.pop(f"{TOKEN}-{1:024}")
    assert struck.outcome is outcome
    assert struck.error
    assert struck.error.startswith("request:") is (fault == "request_invalid")
    assert all(answer.outcome is Outcome.SUCCEEDED for answer in answers.values())
    assert len(answers) == 2


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        ({"kind": "http_429", "route": "create"}, TransientError),
        ({"kind": "http_500_before"}, UnclearError),
        ({"kind": "http_500_after"}, UnclearError),
        ({"kind": "drop_before"}, UnclearError),
        ({"kind": "drop_after"}, UnclearError),
        ({"kind": "http_error", "route": "create", "status": 401}, CredentialsError),
        ({"kind": "http_error", "route": "create", "status": 400}, TerminalError),
        ({"kind": "http_error", "route": "create", "status": 413, "html": True}, UnclearError),
    ],
    ids=lambda value: (
        value["kind"] + str(value.get("status", "")) if isinstance(value, dict) else ""
    ),
)
def test_a_create_goes_out_once_and_its_errors_are_split(
    provider: Provider,
    emulator: Emulator,
    tmp_path: Path,
    fault: dict[str, object],
    error: type[Exception],
) -> None:
    """The SDK never repeats a create; refusal, doubt and "later" are different types."""
    emulator.control.faults(**fault)
    with pytest.raises(error):
        create(provider, tmp_path, bodies(provider, 2))
    assert emulator.control.list_faults()[0]["strikes"] == 1
    accepted = emulator.control.ledger()[SIDE[provider.name]]["batches_accepted"]
    assert accepted == (1 if fault["kind"] in ("http_500_after", "drop_after") else 0)


def test_an_unreachable_server_is_certain_to_have_accepted_nothing(
    provider: Provider, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a refused connection, the create may be sent again."""
    for name in ("ANTHROPIC_BASE_URL", "OPENAI_BASE_URL", "HOUSE_BASE_URL"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    lost = type(provider)()
    path = tmp_path / "requests.jsonl"
    write_request_file(path, lost.framing, TOKEN, bodies(lost, 1).items())
    with pytest.raises(TransientError, match="cannot reach"):
        lost.create(path, "file-1", TOKEN, lambda: None)


def test_reads_are_retried(provider: Provider, emulator: Emulator, tmp_path: Path) -> None:
    """A read is repeated after a passing 500; that costs nothing."""
    look = create(provider, tmp_path, bodies(provider, 2))
    emulator.control.faults(kind="http_error", route="get", status=500, count=1)
    assert provider.look(look.batch_id).ended


def test_a_cut_download_leaves_nothing_behind(
    provider: Provider, emulator: Emulator, tmp_path: Path
) -> None:
    """A stream that breaks raises and leaves no file; the next try is complete."""
    look = provider.look(create(provider, tmp_path, bodies(provider, 40)).batch_id)
    emulator.control.faults(kind="cut_download", after_bytes=900, count=1)
    folder = tmp_path / "down"
    folder.mkdir()
    with pytest.raises(TransientError):
        provider.download(look, folder, "r")
    assert list(folder.iterdir()) == []
    paths = provider.download(look, folder, "r")
    assert sum(1 for path in paths for _ in provider.answers(path)) == 40


def test_a_batch_is_found_again_and_known_as_ours(
    provider: Provider, emulator: Emulator, tmp_path: Path
) -> None:
    """The list since a moment has our batch among others; the token proves that it is ours."""
    since = emulator.control.now() - 60
    ours = create(provider, tmp_path, bodies(provider, 3))
    other = create(provider, tmp_path, bodies(provider, 3), "s" * 20)
    batches = {look.batch_id: look for look in provider.recent(since)}
    assert {ours.batch_id, other.batch_id} <= set(batches)
    assert provider.owns(provider.look(ours.batch_id), TOKEN) is True
    assert provider.owns(provider.look(other.batch_id), TOKEN) is False
    assert list(provider.recent(emulator.control.now() + 3600)) == []


def test_a_running_batch_can_be_cancelled(
    provider: Provider, emulator: Emulator, tmp_path: Path
) -> None:
    """Requests that had not run when a batch is cancelled end as cancelled, with the batch."""
    emulator.control.progress("seconds", 3600)
    look = create(provider, tmp_path, bodies(provider, 3))
    provider.cancel(look.batch_id)
    emulator.control.advance(7200)
    ended = provider.look(look.batch_id)
    assert ended.ended
    outcomes = {
        a.outcome
        for path in provider.download(ended, tmp_path, "r")
        for a in provider.answers(path)
    }
    assert outcomes <= {Outcome.CANCELED, Outcome.SUCCEEDED}


def test_a_missing_key_is_an_error_that_names_its_variable(
    provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a key nothing is guessed or sent."""
    variable = f"{provider.name.upper()}_API_KEY"
    monkeypatch.delenv(variable)
    with pytest.raises(CredentialsError, match=variable):
        type(provider)()


def test_parameters_cannot_override_what_the_guard_counts_on(provider: Provider) -> None:
    """The cap, the model and the prompt are the spec's.

    Under a limit only priced parameters pass.
    """
    with pytest.raises(SpecError, match=r"params\.max_tokens"):
        provider.check_params(MODELS[provider.name], {"max_tokens": 9}, limited=False)
    with pytest.raises(SpecError, match=r"params\.service_tier"):
        provider.check_params(MODELS[provider.name], {"service_tier": "x"}, limited=True)
    provider.check_params(MODELS[provider.name], {"metadata": {"user_id": "1"}}, limited=True)


def test_the_account_tells_keys_apart_and_gives_none_away(
    provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two keys are two accounts; an account's name has nothing of its key."""
    first = provider.account("ledger")
    monkeypatch.setenv(f"{provider.name.upper()}_API_KEY", "another-key")
    assert first != type(provider)().account("ledger")
    assert "key" not in first


@pytest.mark.parametrize("is_exact", [True, False])
def test_only_an_id_of_ours_tells_whose_results_are(provider: Provider, is_exact: bool) -> None:
    """Where a server may change custom_ids, one of a foreign form proves nothing either way."""
    provider.is_exact = is_exact
    token, row = "a" * 20, "b" * 24
    assert provider.names_chunk(None, token) is None
    assert provider.names_chunk(f"{token}-{row}", token) is True
    assert provider.names_chunk(f"req-{token}-{row}", token) is True
    assert provider.names_chunk(f"{'c' * 20}-{row}", token) is False
    assert provider.names_chunk("request-1", token) is (False if is_exact else None)
