"""The fluent API: jobs of several models in one batch.

They use the same pipeline, ledger and dataset as tables.
"""

from __future__ import annotations

import json
import shutil
import threading
from typing import TYPE_CHECKING, Any

import pyarrow.parquet as pq
import pytest
from pydantic import BaseModel, field_validator
from typer.testing import CliRunner

from batchata_tasks import Batch, BatchRun, BatchState, Job, JobResult, SpecError, StateManager
from batchata_tasks.cli.commands import app
from batchata_tasks.common.errors import (
    BatchataError,
    StorageError,
    TerminalError,
    WrongLedgerError,
)
from batchata_tasks.emulator import answer_text
from tests.support.jobs import CLAUDE, GPT, bodies, sent
from tests.support.waiting import PATIENCE

if TYPE_CHECKING:
    from pathlib import Path

    from batchata_tasks.emulator import Emulator


class Label(BaseModel):
    """A response model with a field that other tables use as their key."""

    id: str
    score: int


class Shout(BaseModel):
    """A response model with a validator of its own."""

    word: str

    @field_validator("word")
    @classmethod
    def _loud(cls, value: str) -> str:
        return value.upper()


@pytest.fixture
def batch(emulator: Emulator, tmp_path: Path) -> Batch:
    del emulator
    return Batch(tmp_path / "out").set_default_params(model=CLAUDE, max_tokens=100)


def test_models_of_both_providers_in_one_batch(
    batch: Batch, emulator: Emulator, tmp_path: Path
) -> None:
    """Each job gets the answer to its own request, under its own id, in its own response model."""
    for number in range(4):
        batch.add_job(prompt=f"text {number}", id=f"a{number}")
        batch.add_job(prompt=f"text {number}", id=f"b{number}", model=GPT, response_model=Label)
    run = batch.run()
    results = run.results()
    assert set(results) == {f"{kind}{number}" for kind in "ab" for number in range(4)}
    rows = {row["job_id"]: row for row in pq.read_table(tmp_path / "out/data").to_pylist()}
    requests = bodies(tmp_path / "out")
    assert list(run.to_pandas()["job_id"]) == list(results) == [job.id for job in batch.jobs]
    for name, result in results.items():
        provider, body = rows[name]["_provider"], requests[rows[name]["_custom_id"]]
        assert body["messages"] == [{"role": "user", "content": f"text {name[1]}"}]
        assert result.response == answer_text(provider, body)
        assert isinstance(result.parsed_response, Label) is (name[0] == "b")
        assert result.is_success()
        assert (result.outcome, result.batch_id) == ("succeeded", rows[name]["_batch_id"])
        assert result.cost_usd > 0
    assert run.receipt is not None
    assert run.receipt.provider == "anthropic, openai"
    assert float(run.receipt.cost_usd or 0) == pytest.approx(
        sum(result.cost_usd for result in results.values())
    )
    assert sent(emulator) == 8


def test_one_model_at_both_of_its_endpoints(
    batch: Batch, emulator: Emulator, tmp_path: Path
) -> None:
    """Jobs of two endpoints go in two batches, each with the requests of its endpoint.

    Parts of text become that endpoint's parts.
    """
    turns = [
        {
            "role": "user",
            "content": [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}],
        }
    ]
    batch.add_job(messages=turns, id="c", model=GPT).add_job(
        messages=turns, id="r", model=GPT, endpoint="responses", response_model=Label
    )
    run = batch.run()
    assert run.receipt is not None
    assert run.receipt.batches == 2
    rows = {row["job_id"]: row for row in pq.read_table(tmp_path / "out/data").to_pylist()}
    requests = {name: bodies(tmp_path / "out")[row["_custom_id"]] for name, row in rows.items()}
    assert requests["c"]["messages"] == turns
    assert [part["type"] for part in requests["r"]["input"][0]["content"]] == [
        "input_text",
        "input_text",
    ]
    assert {name: result.response for name, result in run.results().items()} == {
        name: answer_text("openai", body) for name, body in requests.items()
    }
    assert isinstance(run.results()["r"].parsed_response, Label)
    assert sent(emulator) == 2


def test_what_landed_is_not_sent_again(batch: Batch, emulator: Emulator, tmp_path: Path) -> None:
    """A second run of the same jobs sends nothing.

    A changed job and a new one are sent, and answered as they are now.
    """
    batch.add_job(prompt="one", id="1").add_job(prompt="two", id="2")
    batch.run()
    assert batch.run().results()["2"].response.endswith("two")
    assert sent(emulator) == 2
    other = Batch(tmp_path / "out").set_default_params(model=CLAUDE, max_tokens=100)
    other.add_job(prompt="one", id="1").add_job(prompt="too", id="2").add_job(
        prompt="three", id="3"
    )
    run = other.run()
    assert {name: result.response.split()[-1] for name, result in run.results().items()} == {
        "1": "one",
        "2": "too",
        "3": "three",
    }
    assert sent(emulator) == 4
    assert run.receipt is not None
    assert run.receipt.plan["reasons"] == {"input": 1, "new": 1}


def test_jobs_of_an_older_version_are_not_sent_again(
    batch: Batch, emulator: Emulator, tmp_path: Path
) -> None:
    """A file of jobs that an older version wrote gives the results of its jobs, as before."""
    for number in range(3):
        batch.add_job(prompt=f"text {number}", id=str(number), response_model=Label)
    before = batch.run().results()
    (file,) = (tmp_path / "out/_batchata/jobs").glob("*.parquet")
    pq.write_table(pq.read_table(file, columns=["job_id", "job"]), file)
    run = batch.run()
    assert run.results() == before
    assert run.receipt is not None
    assert run.receipt.plan["up_to_date"] == 3
    assert sent(emulator) == 3


def test_without_reuse_all_is_asked_again(batch: Batch, emulator: Emulator, tmp_path: Path) -> None:
    """`set_state(file, reuse_state=False)` sends jobs again that have landed."""
    batch.add_job(prompt="one", id="1")
    batch.run()
    batch.set_state(tmp_path / "state.json", reuse_state=False).run()
    assert sent(emulator) == 2


def test_jobs_that_are_alike_are_all_sent(batch: Batch, emulator: Emulator) -> None:
    """A job without an id is named by its content, the second of two equal ones by a number.

    Names are the same in each process.
    """
    for _ in range(3):
        batch.add_job(prompt="same")
    names = [job.id for job in batch.jobs]
    assert len(set(names)) == 3
    assert [name.removeprefix(names[0]) for name in names] == ["", "-2", "-3"]
    assert len(batch.run().results()) == sent(emulator) == 3


@pytest.mark.parametrize("model", [None, Shout])
def test_a_run_whose_rows_are_held_has_the_columns(
    batch: Batch, emulator: Emulator, monkeypatch: pytest.MonkeyPatch, model: type[Shout] | None
) -> None:
    """Without a row, the table has the columns of one with rows; the result is told as held."""
    monkeypatch.setenv("BATCHATA_PATIENCE", "0.02")
    emulator.control.faults(kind="http_error", route="results", status=403)
    batch.add_job(prompt="some text", id="one", response_model=model)
    run = batch.run()
    empty = run.to_arrow()
    status = run.status()
    assert (status["result"], status["exit_code"], status["held"]) == ("some rows are held", 3, 1)
    assert list(run.to_pandas()[["job_id", "_status", "_cost_usd"]]) == [
        *("job_id", "_status", "_cost_usd")
    ]
    emulator.control.clear_faults()
    run = batch.run()
    assert (empty.num_rows, empty.schema) == (0, run.to_arrow().schema)
    assert run.status()["result"] == "succeeded"


def test_one_response_model_for_all_makes_columns(batch: Batch, tmp_path: Path) -> None:
    """If all jobs have the same response model, its fields are columns.

    The class's own validators check the answers.
    """
    for number in range(3):
        batch.add_job(prompt=f"text {number}", id=str(number), response_model=Shout)
    run = batch.run()
    words = {row["job_id"]: row["word"] for row in run.to_arrow().to_pylist()}
    assert words == {
        name: result.parsed_response.word
        for name, result in run.results().items()
        if isinstance(result.parsed_response, Shout)
    }
    assert len(words) == 3
    assert all(word.isupper() for word in words.values())
    assert list(run.to_pandas()["job_id"]) == list(words)
    assert (tmp_path / "out/raw_files/responses/1_raw.json").exists()


def test_turns_and_parts_reach_the_model(batch: Batch, tmp_path: Path) -> None:
    """System, user and assistant turns, and parts of text, arrive as each provider takes them."""
    turns = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
        {"role": "assistant", "content": "c"},
        {"role": "user", "content": "d"},
    ]
    batch.add_job(messages=turns, id="1").add_job(messages=turns, id="2", model=GPT).run()
    anthropic, openai = sorted(
        bodies(tmp_path / "out").values(), key=lambda body: len(body["messages"])
    )
    assert (anthropic["system"], anthropic["messages"], openai["messages"]) == (
        "Be brief.",
        turns[1:],
        turns,
    )


WRONG: list[tuple[dict[str, Any], str]] = [
    ({}, "give exactly one of prompt and messages"),
    ({"prompt": "x", "messages": []}, "give exactly one of prompt and messages"),
    ({"prompt": " "}, "prompt: write a text that is not empty"),
    (
        {"prompt": "half \ud83d"},
        "prompt: write a text that is not empty, and has no halves of surrogate pairs",
    ),
    ({"id": "", "prompt": "x"}, "id: write a text of 1 to 500 characters"),
    ({"id": "half \ud83d", "prompt": "x"}, "id: write a text of 1 to 500 characters"),
    (
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "\udfff"}]}]},
        "messages.0: content.0 is no part of text",
    ),
    (
        {"prompt": "x", "response_model": {"type": "object", "maximum": float("nan")}},
        "response_model: nan is no JSON",
    ),
    ({"prompt": "x", "params": {"metadata": {"k": object()}}}, "params"),
    ({"prompt": "x", "params": {"metadata": {"k": "\ud83d"}}}, "params"),
    ({"prompt": "x", "params": {"metadata": {"k": float("nan")}}}, "params"),
    ({"messages": []}, "messages must end with a turn of role user"),
    (
        {"messages": [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}]},
        "messages must end with a turn of role user",
    ),
    (
        {"messages": [{"role": "user", "content": "x"}, {"role": "tool", "content": "y"}]},
        "messages.1: role 'tool' is none of",
    ),
    (
        {"messages": [{"role": "user", "content": ""}]},
        "messages.0: its content is invalid; write a text that is not empty",
    ),
    ({"messages": [{"role": "user"}]}, "messages.0: a turn is a mapping"),
    ({"messages": ["x"]}, "messages.0: a turn is a mapping"),
    (
        {"messages": [{"role": "user", "content": [{"type": "image", "source": {}}]}]},
        "messages.0: content.0 is no part of text",
    ),
    (
        {
            "messages": [
                {"role": "user", "content": "x"},
                {"role": "system", "content": "y"},
                {"role": "user", "content": "x"},
            ]
        },
        "messages.1: Anthropic",
    ),
    ({"prompt": "x", "max_tokens": 0}, "max_tokens: 0 is no number of tokens"),
    (
        {"prompt": "x", "temperature": 0.5},
        "params.temperature: Anthropic's API takes no sampling parameters",
    ),
    ({"prompt": "x", "temperature": 9}, "temperature: 9 is out of range"),
    ({"prompt": "x", "model": "llama-9"}, "model: 'llama-9' belongs to no provider"),
    ({"prompt": "x", "response_model": dict}, "response_model: dict is no Pydantic model"),
    ({"prompt": "x", "params": {"max_tokens": 3}}, "params.max_tokens: this is set by"),
    ({"prompt": "x", "endpoint": "responses"}, "endpoint: anthropic has no endpoint 'responses'"),
    (
        {"prompt": "x", "endpoint": "responses", "model": GPT, "max_tokens": 15},
        "max_tokens: 15 is less than /v1/responses takes",
    ),
    (
        {"prompt": "x", "endpoint": "responses", "model": GPT, "params": {"tools": []}},
        "params.tools: it changes what is billed",
    ),
    (
        {"prompt": "x", "model": "gpt-5-pro"},
        "model: gpt-5-pro is served by the endpoint /v1/responses alone",
    ),
    ({"prompt": "x", "id": "x" * 501}, "id: write a text of 1 to 500 characters"),
]


@pytest.mark.parametrize(("job", "sentence"), WRONG, ids=[sentence[:40] for _, sentence in WRONG])
def test_a_wrong_job_is_refused_as_it_is_added(
    batch: Batch, job: dict[str, Any], sentence: str
) -> None:
    """One sentence names the job, the field and the remedy; the batch stays as it was."""
    with pytest.raises(SpecError) as caught:
        batch.add_job(**job)
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)
    assert batch.jobs == []


@pytest.mark.filterwarnings("ignore:job 'a'. model. no batch price:UserWarning")
@pytest.mark.parametrize("limit_first", [True, False])
def test_a_model_without_a_price_is_refused_under_a_limit(
    batch: Batch, emulator: Emulator, limit_first: bool
) -> None:
    """It is refused as the job is added if the limit is known by then, else as the batch is run.

    Nothing is sent.
    """
    if limit_first:
        batch.add_cost_limit(1)
    with pytest.raises(
        SpecError,
        match=r"no batch price is known for 'claude-hiku-5-5'.*did you mean claude-haiku-5-5",
    ):
        batch.add_job(prompt="x", id="a", model="claude-hiku-5-5").add_cost_limit(1).run()
    assert sent(emulator) == 0
    assert len(batch.jobs) == (not limit_first)


def test_what_was_answered_before_is_told(batch: Batch, capsys: pytest.CaptureFixture[str]) -> None:
    """The status of a run with nothing to send says why."""
    batch.add_job(prompt="x").run()
    batch.run().status(print_status=True)
    assert "0 succeeded, 0 failed, 0 pending, 1 answered before" in capsys.readouterr().out


def test_wrong_values_of_a_batch_are_refused_at_once(batch: Batch, tmp_path: Path) -> None:
    """Limits, defaults and parameters are checked as soon as they are given."""
    for wrong, sentence in (
        (lambda: batch.add_cost_limit(-1), "cost_limit_usd: "),
        (lambda: batch.add_cost_limit(True), "cost_limit_usd: true is no number"),
        (lambda: Batch(tmp_path, items_per_batch=True), "items_per_batch: true is no number"),
        (batch.add_time_limit, "time_limit_seconds: "),
        (lambda: batch.set_default_params(modle="x"), "did you mean model"),
        (lambda: batch.set_verbosity("loud"), "verbosity_level: "),
        (lambda: Batch(tmp_path, items_per_bach=3), "did you mean items_per_batch"),
        (lambda: Batch(tmp_path).run(), "jobs: there are none"),
        (lambda: Batch(tmp_path).add_job(prompt="x"), "model: name one"),
    ):
        with pytest.raises(SpecError, match=sentence):
            wrong()
    batch.add_job(prompt="x", id="1")
    with pytest.raises(SpecError, match="there is a job of this id already"):
        batch.add_job(prompt="y", id="1")


def test_a_cost_limit_binds_all_models(batch: Batch, emulator: Emulator) -> None:
    """Under a limit for a part of the jobs, the run stops in time and says so for each job.

    The next run sends the rest.
    """
    batch.config.items_per_batch = 2
    for number in range(10):
        batch.add_job(prompt=f"text {number}", id=str(number), model=(CLAUDE, GPT)[number % 2])
    plan = batch.run(dry_run=True).plan
    assert plan is not None
    limit = plan.summary.least * 1.05 / 1e12  # for the dearest of the cheapest, and little more
    run = batch.add_cost_limit(limit).run()
    results = run.results()
    assert run.receipt is not None
    assert (run.receipt.result, run.receipt.exit_code) == ("cost_limit_reached", 4)
    unsent = [result for result in results.values() if not result.is_success()]
    assert {(result.outcome, result.batch_id) for result in unsent} == {(None, None)}
    assert 0 < len(unsent) < 10
    assert all(result.error == "not sent: cost limit reached" for result in unsent)
    assert float(run.receipt.cost_usd or 1) <= limit
    assert all(result.is_success() for result in batch.add_cost_limit(1).run().results().values())
    assert sent(emulator) == 10


def test_a_dry_run_sends_nothing(
    batch: Batch, emulator: Emulator, capsys: pytest.CaptureFixture[str]
) -> None:
    """A dry run reports how many requests there are and what they cost at most."""
    batch.add_job(prompt="x").add_job(prompt="y", model=GPT)
    run = batch.run(dry_run=True)
    told = capsys.readouterr().out
    assert "2 requests in 2 batches to anthropic, openai" in told
    assert run.plan is not None
    assert (run.plan.summary.bound or 0) > 0
    assert run.status()["state"] == "planned"
    assert sent(emulator) == 0


def test_a_run_that_is_not_waited_for(batch: Batch, emulator: Emulator) -> None:
    """`run(wait=False)` returns at once; status, results and wait follow its progress.

    Callbacks come until the end.
    """
    emulator.control.progress("reads", 10**6)
    told: list[tuple[dict[str, Any], float, dict[str, Any]]] = []
    ended = threading.Event()
    batch.add_job(prompt="x", id="1")
    run = batch.run(
        wait=False,
        on_progress=lambda *found: (told.append(found), found[0]["completed"] and ended.set()),
        progress_interval=0.05,
    )
    with pytest.raises(TimeoutError, match=r"has not ended after 0\.3 seconds"):
        run.wait(timeout=0.3)
    assert (run.status()["state"], run.results()) == ("running", {})
    emulator.control.progress("immediate")
    run.wait(timeout=PATIENCE)
    assert ended.is_set()
    assert run.results()["1"].is_success()
    assert run.status()["completed"] == 1
    stats, elapsed, batches = told[-1]
    assert (stats["total"], stats["completed"], stats["pending"], stats["batches"]) == (
        1,
        1,
        0,
        {"landed": 1},
    )
    assert elapsed > 0
    assert [(one["provider"], one["jobs"], one["state"]) for one in batches.values()] == [
        ("anthropic", 1, "landed")
    ]


@pytest.mark.parametrize("wait", [True, False])
def test_shutdown_leaves_nothing_behind(batch: Batch, emulator: Emulator, wait: bool) -> None:
    """Open batches are landed, or left to the next run.

    What was not sent is sent then, and nothing twice.
    """
    batch.config.items_per_batch, batch.config.max_parallel_batches = 1, 1
    emulator.control.progress("reads", 10**6)
    for number in range(3):
        batch.add_job(prompt=f"text {number}", id=str(number))
    run = batch.run(wait=False)
    while not run.status()["batches"].get("submitted"):
        assert not run.done
    if wait:
        threading.Timer(0.3, lambda: emulator.control.progress("immediate")).start()
    run.shutdown(wait_for_active=wait)
    emulator.control.progress("immediate")
    assert run.done
    assert len([result for result in run.results().values() if result.is_success()]) == int(wait)
    assert all(result.is_success() for result in batch.run().results().values())
    assert sent(emulator) == 3


def test_the_state_file_names_the_run(batch: Batch, emulator: Emulator, tmp_path: Path) -> None:
    """StateManager reads from the ledger the run that a file names.

    It is cleared only once nothing is open, and its jobs can be run again.
    """
    file = tmp_path / "state/run.json"
    emulator.control.progress("reads", 10**6)
    run = batch.add_job(prompt="x", id="1", response_model=Label).set_state(file).run(wait=False)
    while not run.status()["batches"].get("submitted"):
        assert not run.done
    manager = StateManager(file)
    state = manager.load()
    assert state is not None
    assert ([job.id for job in state.pending_jobs], state.completed_results) == (["1"], {})
    with pytest.raises(TerminalError, match="1 open batch, to be paid for"):
        manager.clear()
    run.shutdown(wait_for_active=False)
    emulator.control.progress("immediate")
    again = Batch(tmp_path / "out").set_state(file).run()  # the jobs are those that the file names
    assert sent(emulator) == 1
    assert again.results()["1"].is_success()
    state = manager.load()
    assert state is not None
    assert (state.pending_jobs, state.failed_jobs, list(state.completed_results)) == ([], {}, ["1"])
    assert state.total_cost_usd > 0
    assert state.batch_id.startswith("msgbatch_")
    assert (
        BatchState.from_dict(json.loads(json.dumps(state.to_dict()))).to_dict() == state.to_dict()
    )
    other = StateManager(tmp_path / "other.json")
    assert other.load() is None
    other.save(state)
    assert (other.load() or BatchState()).batch_id == state.batch_id
    manager.clear()
    assert manager.load() is None


@pytest.mark.parametrize(
    "text",
    [
        "a,b\n1,2\n",
        "{}",
        "[]",
        "null",
        '{"run_id": "1"}',
        '{"format": 2, "run_id": "1"}',
        "\x00\xff",
    ],
)
def test_a_file_of_another_kind_is_no_state_file(
    batch: Batch, emulator: Emulator, tmp_path: Path, text: str
) -> None:
    """Such a file is neither read nor written over nor deleted, and nothing is sent.

    An empty one is accepted.
    """
    file = tmp_path / "cities.csv"
    file.write_text(text)
    batch.add_job(prompt="x", id="1").set_state(file)
    manager = StateManager(file)
    for use in (
        batch.run,
        lambda: batch.run(wait=False),
        manager.load,
        manager.jobs,
        manager.clear,
        lambda: manager.save(BatchState()),
    ):
        with pytest.raises(StorageError, match="is something else than a state file"):
            use()
    assert (file.read_text(), sent(emulator)) == (text, 0)
    file.write_text("")
    assert batch.run().results()["1"].is_success()


def test_a_callback_can_shut_its_run_down(batch: Batch, emulator: Emulator) -> None:
    """It does not wait for the run that waits for it; a request to wait for it is refused."""
    emulator.control.progress("reads", 10**6)
    told = list[str]()

    def callback(stats: dict[str, Any], _elapsed: float, _batches: dict[str, Any]) -> None:
        if stats["batches"].get("submitted") and not told:
            with pytest.raises(
                SpecError, match="a progress callback cannot wait for its own run"
            ) as caught:
                run.wait()
            told.append(str(caught.value))
            run.shutdown(wait_for_active=False)

    run = batch.add_job(prompt="x", id="1").run(wait=False)
    run.shutdown(wait_for_active=False)
    run = BatchRun(batch.config, batch.jobs)
    run.set_on_progress(callback, interval=0.05)
    run.start()
    run._over.wait(PATIENCE)
    assert (run.done, len(told)) == (True, 1)


def test_jobs_and_results_travel_as_json() -> None:
    """`to_dict` and `from_dict` are a round trip; a response model travels as JSON Schema."""
    job = Job("1", CLAUDE, prompt="x", response_model=Label, params={"stop_sequences": ["."]})
    plain = json.loads(json.dumps(job.to_dict()))
    assert Job.from_dict(plain).to_dict() == plain
    assert Job.from_dict(plain).response_model == Label.model_json_schema()
    turns = Job("2", CLAUDE, messages=({"role": "user", "content": "x"},))
    assert Job.from_dict(json.loads(json.dumps(turns.to_dict()))) == turns
    result = JobResult("1", '{"id":"a","score":1}', Label(id="a", score=1), None, 3, 4, 0.1)
    assert (
        JobResult.from_dict(json.loads(json.dumps(result.to_dict()))).to_dict() == result.to_dict()
    )
    with pytest.raises(SpecError, match="no field 'modle'"):
        Job.from_dict({"modle": "x"})


def test_a_run_is_made_from_its_parts(emulator: Emulator, tmp_path: Path) -> None:
    """BatchRun takes a configuration and jobs as they are; it is started once."""
    config = Batch(tmp_path / "out").config
    run, told = BatchRun(config, [Job("1", GPT, prompt="x")]), list[dict[str, Any]]()
    run.set_on_progress(lambda stats, _elapsed, _batches: told.append(stats), interval=0.1)
    run.start()
    run.wait()
    assert run.results()["1"].is_success()
    with pytest.raises(SpecError, match="started already"):
        run.start()
    run.results()["1"].save_to_json(tmp_path / "deep/1.json")
    assert json.loads((tmp_path / "deep/1.json").read_text())["job_id"] == "1"
    assert told[-1]["completed"] == 1
    assert sent(emulator) == 1


def test_a_time_limit_cancels_and_lands(batch: Batch, emulator: Emulator) -> None:
    """A batch that does not end is cancelled once the time is over.

    Its jobs say that they never ran, and the next run sends them.
    """
    emulator.control.progress("reads", 10**6)
    run = batch.add_job(prompt="x", id="1").add_time_limit(seconds=2).run()
    assert run.receipt is not None
    assert run.receipt.result == "time_limit_reached"
    assert "never_ran" in (run.results()["1"].error or "")
    emulator.control.progress("immediate")
    batch.add_time_limit(hours=1)
    assert batch.run().results()["1"].is_success()


def test_verbosity_and_raw_files(
    batch: Batch, emulator: Emulator, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`debug` prints each step; without raw files there are none, and results are the same."""
    run = batch.set_verbosity("debug").raw_files(False).add_job(prompt="x", id="1").run()
    assert "batch 1 (1 row): landed" in capsys.readouterr().err
    assert not (tmp_path / "out/raw_files").exists()
    assert run.results()["1"].is_success()
    assert sent(emulator) == 1


def test_raw_files_lie_as_documented(batch: Batch, tmp_path: Path) -> None:
    """There is one file of requests and one of responses for each batch, and one for each job.

    A batch's are JSON for Anthropic and JSONL for OpenAI; a job's has a valid name for any id.
    """
    batch.add_job(prompt="x", id="../a b").add_job(prompt="y", id="2", model=GPT).run()
    files = sorted(
        str(path.relative_to(tmp_path / "out/raw_files"))
        for path in (tmp_path / "out/raw_files").rglob("*.json*")
    )
    rows = {
        row["job_id"]: row["_batch_id"] for row in pq.read_table(tmp_path / "out/data").to_pylist()
    }
    batches = [f"anthropic_batch_{rows['../a b']}.json", f"openai_batch_{rows['2']}.jsonl"]
    assert files == sorted(
        [f"{folder}/{name}" for folder in ("requests", "responses") for name in batches]
        + ["responses/..%2Fa b_raw.json", "responses/2_raw.json"]
    )
    lines = json.loads((tmp_path / "out/raw_files/responses" / batches[0]).read_text())
    assert [line["result"]["type"] for line in lines] == ["succeeded"]
    assert (
        json.loads((tmp_path / "out/raw_files/responses/2_raw.json").read_text())["response"][
            "status_code"
        ]
        == 200
    )


def test_old_jobs_are_not_kept_for_ever(batch: Batch, tmp_path: Path) -> None:
    """Of jobs that no run ever sent, only the newest are kept.

    Those of a run stay as long as the ledger has it.
    """
    folder = tmp_path / "out/_batchata/jobs"
    batch.add_job(prompt="first", id="first").run()
    (first,) = folder.iterdir()
    for number in range(12):
        batch.add_job(prompt=f"text {number}", id=str(number)).run(dry_run=True)
    assert len(list(folder.iterdir())) == 13
    batch.add_job(prompt="last", id="last").run()
    assert len(list(folder.iterdir())) == 11
    assert first.exists()


def test_what_stops_a_run_is_told(
    batch: Batch, emulator: Emulator, capsys: pytest.CaptureFixture[str]
) -> None:
    """An error is raised in the thread that waits; if none does, it is printed in one sentence."""
    emulator.control.faults(kind="http_error", route="create", status=401, probability=1)
    batch.add_job(prompt="x", id="1")
    with pytest.raises(BatchataError, match=r"(401|key)") as caught:
        batch.run()
    run = batch.run(wait=False)
    while not run.done:
        assert run.elapsed < 60
    assert capsys.readouterr().err == f"The batch stopped: {caught.value}\n"
    assert (run.status()["state"], run.status()["error"]) == ("failed", str(caught.value))
    assert run.results()["1"].error == f"not sent: the run stopped: {caught.value}"


def test_jobs_made_by_hand_are_checked(batch: Batch, emulator: Emulator) -> None:
    """Jobs that did not come through `add_job` are checked before anything is sent.

    So is a limit that was set later.
    """
    for jobs, sentence in (
        ([Job("1", CLAUDE, prompt="x"), Job("1", CLAUDE, prompt="y")], "two of this id"),
        ([Job("1", CLAUDE)], "exactly one of prompt"),
        ([Job("1", CLAUDE, prompt="x", temperature=1)], "no sampling parameters"),
    ):
        with pytest.raises(SpecError, match=sentence):
            BatchRun(batch.config, jobs).start()
    batch.add_job(prompt="x", model=GPT, params={"made_up": 1}).add_cost_limit(1)
    with pytest.raises(SpecError, match=r"params\.made_up"):
        batch.run()
    assert sent(emulator) == 0


def test_a_lost_ledger_is_rebuilt_from_the_folder_of_the_results(
    batch: Batch, emulator: Emulator, tmp_path: Path
) -> None:
    """The ledger is deleted while batches are open: a run says what to do, and then lands them.

    Nothing is sent twice.
    """
    for number in range(6):
        batch.add_job(prompt=f"text {number}", id=f"a{number}")
        batch.add_job(prompt=f"text {number}", id=f"b{number}", model=GPT, response_model=Label)
    batch.config.items_per_batch = 2
    batch.config.max_parallel_batches = 3
    # and not by reads: what is in doubt is looked for in lists, until it has ended
    emulator.control.progress("seconds", 1)
    calls = threading.Event()
    run = BatchRun(batch.config, batch.jobs).set_on_progress(
        lambda stats, _elapsed, _batches: calls.set() if stats["completed"] else None, 0.02
    )
    run.start()
    assert calls.wait(PATIENCE)
    run.shutdown(wait_for_active=False)
    assert sent(emulator) > 0
    for path in tmp_path.glob("ledger.db*"):
        path.unlink()
    with pytest.raises(
        WrongLedgerError,
        match=rf"run `batchata status {tmp_path / 'out'} --rebuild`",
    ):
        batch.run()
    told = CliRunner().invoke(app, ["status", str(tmp_path / "out"), "--rebuild"])
    assert told.exit_code == 0, told.output
    assert all(result.is_success() for result in batch.run().results().values())
    assert sent(emulator) == 12


def test_a_folder_that_came_back_outlives_its_ledger(
    batch: Batch, emulator: Emulator, tmp_path: Path
) -> None:
    """The results_dir is deleted and recovered, then the ledger is lost: it is rebuilt.

    Older jobs of the folder, whose file is gone, are in nobody's way. Nothing is sent twice.
    """
    batch.add_job(prompt="an older text", id="old").run()
    batch.add_job(prompt="text", id="a").add_job(prompt="text", id="b", model=GPT).run()
    shutil.rmtree(tmp_path / "out")
    batch.run()
    for path in tmp_path.glob("ledger.db*"):
        path.unlink()
    with pytest.raises(WrongLedgerError):
        batch.run()
    told = CliRunner().invoke(app, ["status", str(tmp_path / "out"), "--rebuild"])
    assert told.exit_code == 0, told.output
    assert all(result.is_success() for result in batch.run().results().values())
    assert sent(emulator) == 3


def test_only_a_datasets_folder_is_rebuilt_by_its_name(tmp_path: Path) -> None:
    """A folder in which nothing ran is not taken for one of a dataset."""
    told = CliRunner().invoke(app, ["status", str(tmp_path), "--rebuild"])
    assert told.exit_code == 2
    assert f"there is no dataset in {tmp_path}" in told.output


def test_the_rows_of_a_batch_are_shown_by_its_folder(tmp_path: Path, emulator: Emulator) -> None:
    """`show` takes a results_dir like a spec; one without a dataset is refused in a sentence."""
    batch = Batch(tmp_path / "out").set_default_params(model="claude-haiku-5-5", max_tokens=50)
    batch.add_job(prompt="text", id="a").add_job(prompt="other", id="b").run()
    shown = CliRunner().invoke(app, ["show", str(tmp_path / "out"), "--json"])
    rows = {row["job_id"]: row["_status"] for row in json.loads(shown.stdout)}
    assert rows == {"a": "succeeded", "b": "succeeded"}
    assert "read_parquet" in CliRunner().invoke(app, ["show", str(tmp_path / "out")]).stdout
    refused = CliRunner().invoke(app, ["show", str(tmp_path)])
    assert refused.exit_code == 2
    assert f"there is no dataset in {tmp_path}" in refused.output
