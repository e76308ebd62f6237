"""Attacks on the Python API: each test is a way in which it once gave a wrong answer, or none."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

import pandas as pd
import pytest
from pydantic import BaseModel, field_validator

from batchata_tasks import Batch, BatchState, Job, RichBatchProgressDisplay, SpecError, StateManager
from batchata_tasks.common.errors import BatchataError, StorageError
from tests.support.jobs import CLAUDE, GPT, sent

if TYPE_CHECKING:
    from pathlib import Path

    from batchata_tasks.emulator import Emulator


@pytest.fixture
def batch(emulator: Emulator, tmp_path: Path) -> Batch:
    del emulator
    return Batch(tmp_path / "out").set_default_params(model=CLAUDE, max_tokens=100)


class Word(BaseModel):
    """A response model that does whatever it is told."""

    word: str

    @field_validator("word")
    @classmethod
    def _taken(cls, value: str) -> str:
        if Word.refusing:
            message = "not any more"
            raise ValueError(message)
        return value


Word.refusing = False  # pyright: ignore[reportAttributeAccessIssue]


def look_alike(number: int, *, accepts: bool) -> type[BaseModel]:
    """Return one of several classes with the same fields and the same name."""

    class Score(BaseModel):
        word: str

        @field_validator("word")
        @classmethod
        def _checked(cls, value: str) -> str:
            if not accepts:
                message = f"model {number} refuses"
                raise ValueError(message)
            return f"{number}:{value}"

    return Score


@pytest.mark.parametrize("order", [(1, 2, 3), (3, 1, 2)])
def test_classes_that_look_alike_keep_to_their_own_jobs(
    batch: Batch, emulator: Emulator, order: tuple[int, ...]
) -> None:
    """Each answer is checked by its own job's class, and is an object of that class.

    There may be any number of classes of one name.
    """
    kinds = {number: look_alike(number, accepts=number != 3) for number in order}
    for number, kind in kinds.items():
        batch.add_job(id=str(number), prompt=f"text {number}", response_model=kind)
    run = batch.run()
    results = run.results()
    attempts = dict(
        zip(*run.to_arrow().select(["job_id", "_attempts"]).to_pydict().values(), strict=True)
    )
    for number in (1, 2):
        assert attempts[str(number)] == 1
        answer = results[str(number)].parsed_response
        assert isinstance(answer, kinds[number])
        assert str(answer.model_dump()["word"]).startswith(f"{number}:")
    assert "model 3 refuses" in str(results["3"].error)
    assert sent(emulator) == 2 + attempts["3"]


def test_an_answer_that_its_class_refuses_by_now_is_one_failed_result(
    batch: Batch, emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other results are there.

    The answer's text is there, too, and is not asked for again.
    """
    batch.add_job(id="1", prompt="x", response_model=Word).add_job(id="2", prompt="y")
    assert all(result.is_success() for result in batch.run().results().values())
    monkeypatch.setattr(Word, "refusing", True)
    results = batch.run().results()
    assert results["2"].is_success()
    assert not results["1"].is_success()
    assert "not any more" in str(results["1"].error)
    assert json.loads(results["1"].response)["word"]
    assert sent(emulator) == 2


def test_jobs_are_copies(batch: Batch) -> None:
    """A caller may change turns, parameters or a schema for the next job."""
    turns, params = [{"role": "user", "content": ""}], {"metadata": {"user_id": ""}}
    schema = {
        "type": "object",
        "properties": {"word": {"type": "string"}},
        "required": ["word"],
        "additionalProperties": False,
    }
    for text in ("one", "two", "three"):
        turns[0]["content"] = params["metadata"]["user_id"] = text
        batch.add_job(messages=turns, params=params, response_model=schema)
    schema["properties"] = {}
    assert [job.messages[0]["content"] for job in batch.jobs if job.messages] == [
        "one",
        "two",
        "three",
    ]
    assert [job.params["metadata"]["user_id"] for job in batch.jobs] == ["one", "two", "three"]
    assert all(
        isinstance(job.response_model, dict) and job.response_model["properties"]
        for job in batch.jobs
    )
    assert len({job.id for job in batch.jobs}) == 3
    assert len({id(job.response_model) for job in batch.jobs}) == 1


def test_rows_keep_their_answers_under_the_columns_of_another_batch(
    batch: Batch, tmp_path: Path
) -> None:
    """If the last batch has no common model, `response` also has the older rows' answers."""
    batch.add_job(id="a", prompt="x", response_model=Word).run()
    batch.add_job(id="b", prompt="y").run()
    rows = pd.read_parquet(tmp_path / "out/data").set_index("job_id")
    assert json.loads(rows.loc["a", "response"])["word"]
    assert rows.loc["a", "response"] == rows.loc["a", "_response"]
    assert rows.loc["b", "response"]


@pytest.mark.parametrize("status", [400, 401, 403])
def test_a_providers_text_is_one_clean_line(
    batch: Batch, emulator: Emulator, capsys: pytest.CaptureFixture[str], status: int
) -> None:
    """Codes that move a terminal's cursor do not reach the exception, its causes or the screen."""
    emulator.control.faults(
        kind="http_error",
        route="create",
        status=status,
        message="\x1b]0;x\x07\x1b[2J\u2028 no\x00pe",
        probability=1,
    )
    run = batch.add_job(id="1", prompt="x").run(wait=False)
    with pytest.raises(BatchataError) as caught:
        run.wait()
    error: BaseException | None = caught.value
    while error is not None:
        assert str(error).isprintable()
        error = error.__cause__
    assert "\x1b" not in capsys.readouterr().err


def test_nobody_is_asked_where_standard_input_is_closed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A service with a closed standard input has no person to ask: what is open is cancelled."""
    display = RichBatchProgressDisplay()
    display.update_progress({}, 0.0, {"batch_1": {"state": "submitted"}})
    monkeypatch.setattr(sys, "stdin", None)
    assert display.handle_cancellation()
    assert "Cancelling 1 open batch" in capsys.readouterr().err


class Half(BaseModel):
    """A response model whose validator returns invalid text."""

    word: str

    @field_validator("word")
    @classmethod
    def _halved(cls, value: str) -> str:
        return f"{value}\ud83d"


def test_a_validator_that_returns_no_text_fails_its_own_job(batch: Batch) -> None:
    """Half of a surrogate pair is an invalid answer; the other rows land."""
    batch.add_job(id="half", prompt="x", response_model=Half).add_job(id="whole", prompt="y")
    results = batch.run().results()
    assert "half of a surrogate pair" in str(results["half"].error)
    assert results["whole"].is_success()


def test_what_a_limit_allows_at_responses(batch: Batch, emulator: Emulator) -> None:
    """A job is checked by the rules of its own endpoint when it is added, and when it runs."""
    batch.add_cost_limit(5).add_job(
        id="1", prompt="x", model=GPT, endpoint="responses", params={"reasoning": {"effort": "low"}}
    )
    assert batch.run().results()["1"].is_success()
    assert sent(emulator) == 1


@pytest.mark.parametrize(
    "state", [{}, None, [], {"batch_id": "", "created_at": "", "pending_jobs": 5}, {"batch_id": ""}]
)
def test_a_damaged_state_is_an_error_that_says_so(batch: Batch, tmp_path: Path, state: Any) -> None:
    """The error is one sentence, and nothing is written over."""
    file = tmp_path / "state.json"
    file.write_text(json.dumps({"format": 1, "state": state}))
    for use in (
        StateManager(file).load,
        StateManager(file).jobs,
        batch.set_state(file).add_job(id="1", prompt="x").run,
    ):
        with pytest.raises(StorageError, match="is damaged; restore it from a copy, or remove it"):
            use()
    assert json.loads(file.read_text())["state"] == state


def test_jobs_that_a_file_keeps_are_not_forgotten(
    batch: Batch, emulator: Emulator, tmp_path: Path
) -> None:
    """A batch of other jobs does not take the place of those that are still to be sent."""
    file = tmp_path / "state.json"
    StateManager(file).save(BatchState(pending_jobs=[Job("kept", CLAUDE, prompt="x")]))
    with pytest.raises(
        SpecError, match="keeps 1 other job to be sent; run a Batch without jobs on it first"
    ):
        batch.set_state(file).add_job(id="own", prompt="y").run()
    assert sent(emulator) == 0
    assert list(Batch(tmp_path / "out").set_state(file).run().results()) == ["kept"]
