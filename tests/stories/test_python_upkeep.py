"""`forget` and `revalidate` for what no spec fills: a Batch, and frames."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import BaseModel, field_validator
from typer.testing import CliRunner

from batchata_tasks import Batch, SpecError, StateManager, enrich, forget, revalidate
from batchata_tasks.cli.commands import app
from batchata_tasks.common.errors import AlreadyRunningError, CredentialsError
from batchata_tasks.common.settings import Settings
from batchata_tasks.execution.held_dataset import hold_dataset
from batchata_tasks.operations import forget as operation
from tests.support.books import opened
from tests.support.jobs import CLAUDE, GPT, sent

if TYPE_CHECKING:
    from collections.abc import Iterator

    from batchata_tasks.emulator import Emulator

KEY, SECRET = "forget-me-7", "a secret of job seven"
IDS = ["a", "b", KEY, "c", "d", "e", "f", "g"]
OUT = Path("out")


@pytest.fixture(autouse=True)
def folder(emulator: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in a folder of the test's own, against the emulator."""
    del emulator
    monkeypatch.chdir(tmp_path)
    return tmp_path


def label(*refused: str) -> type[BaseModel]:
    """Return a response model that refuses some labels; its schema is the same for all of them."""

    class Label(BaseModel):
        label: Literal["x", "y", "z"]
        words: list[str]

        @field_validator("label")
        @classmethod
        def _checked(cls, value: str) -> str:
            if value in refused:
                message = "no such label"
                raise ValueError(message)
            return value

    return Label


class WithScore(BaseModel):
    """Another response model than that of `label`."""

    label: str
    words: list[str]
    score: int


class LabelAlone(BaseModel):
    """One that takes the answers of `label`."""

    label: str


def batch(ids: list[str] = IDS, **defaults: Any) -> Batch:
    """Return a Batch of jobs for both providers; that of KEY has a secret."""
    made = Batch(OUT).set_default_params(max_tokens=200, **defaults)
    for job_id in ids:
        text = SECRET if job_id == KEY else f"text of {job_id}"
        made.add_job(prompt=text, id=job_id, model=GPT if job_id in "gh" else CLAUDE)
    return made


def frame(ids: list[str] = IDS) -> pd.DataFrame:
    texts = [SECRET if name == KEY else f"text of {name}" for name in ids]
    return pd.DataFrame({"id": ids, "day": [5] * len(ids), "text": texts})


def ask(rows: pd.DataFrame, **changes: Any) -> Any:
    given = {
        "key": "id",
        "prompt": "Label {{ text }}",
        "response_model": label(),
        "model": CLAUDE,
        "output": OUT,
        "max_tokens": 200,
        "pilot": False,
        "max_attempts": 1,
    }
    return enrich(rows, **{**given, **changes})


def rows() -> list[dict[str, Any]]:
    """Return the rows of the dataset, by their keys."""
    found = pq.read_table(OUT / "data").to_pylist()
    return sorted(found, key=lambda row: str(row.get("job_id", row.get("id"))))


def files_with(text: str) -> Iterator[Path]:
    """Yield the files of the dataset in whose names or contents a text stands."""
    for path in OUT.rglob("*"):
        if path.is_file() and (text in path.name or text in _content(path)):
            yield path


def _content(path: Path) -> str:
    if path.suffix == ".parquet":
        return str(pq.ParquetFile(path).read().to_pylist())
    if path.suffix == ".arrow":
        with pa.OSFile(str(path)) as stream:
            return str(pa.ipc.open_file(stream).read_all().to_pylist())
    return path.read_text()


def settled() -> int:
    """Return what the budget of all time would count, in picodollars."""
    with opened() as ledger:
        return sum(spending.money.settled for spending in ledger.spending(0))


def test_a_job_of_a_batch_is_forgotten(emulator: Emulator) -> None:
    """No file of the results has its id, its prompt or its answer; all else stays as it was.

    Copies for people, too, and the file of the jobs, from which the state file goes on.
    """
    batch().set_state("state.json").run()
    others, spent = [row for row in rows() if row["job_id"] != KEY], settled()
    assert {path.parent.name for path in files_with(SECRET)} >= {"jobs", "requests"}
    told = forget(OUT, KEY)
    assert (told.key, told.rows) == (f"job_id={KEY!r}", 1)
    (words,) = [text for label, text in told.lines() if label == "Elsewhere"]
    assert words.endswith("the job is sent again if a program adds it again: leave it out there")
    assert not list(files_with(KEY))
    assert not list(files_with(SECRET))
    assert rows() == others
    assert settled() == spent
    copies = list((OUT / "raw_files").rglob("anthropic_batch_*.json"))
    assert {path.parent.name for path in copies} == {"requests", "responses"}
    for path in copies:
        value = json.loads(path.read_text())
        assert len(value["requests"] if isinstance(value, dict) else value) == 6
    state = StateManager("state.json").load()
    assert state is not None
    assert sorted(state.completed_results) == sorted(set(IDS) - {KEY})
    assert batch([name for name in IDS if name != KEY]).run().receipt is not None
    assert sent(emulator) == 8


def test_a_forgotten_row_does_not_come_back_with_lost_files(emulator: Emulator) -> None:
    """The ledger and the commits know that it was forgotten, though the provider has its answer."""
    batch().run()
    others = [row for row in rows() if row["job_id"] != KEY]
    forget(OUT, KEY)
    shutil.rmtree(OUT / "data")
    batch([name for name in IDS if name != KEY]).run()
    assert rows() == others
    assert not list(files_with(SECRET))
    assert sent(emulator) == 8


def test_a_job_that_was_never_sent_is_forgotten() -> None:
    """It is in no row, but in the file from which a run would have read it."""
    batch(IDS[:2]).run()
    batch(IDS[:3]).run(dry_run=True)
    assert [path.parent.name for path in files_with(SECRET)] == ["jobs"]
    assert (forget(OUT, KEY).rows, list(files_with(SECRET))) == (0, [])
    with pytest.raises(SpecError, match=rf"^key: the dataset has no row with job_id={KEY!r}; `"):
        forget(OUT, KEY)


def test_a_row_of_a_frame_is_forgotten(emulator: Emulator) -> None:
    """By `forget`, or by the command, which takes the folder where it takes a spec."""
    ask(frame())
    others = [row for row in rows() if row["id"] not in (KEY, "b")]
    assert list(files_with(SECRET))
    assert forget(OUT, KEY).rows == 1
    refused = CliRunner().invoke(app, ["forget", str(OUT), "--key", "nobody"])
    assert f"`batchata show {OUT.absolute()}` prints rows" in refused.output
    done = CliRunner().invoke(app, ["forget", str(OUT), "--key", "b", "--json"])
    assert (done.exit_code, json.loads(done.stdout)["rows"]) == (0, 1)
    assert not list(files_with(KEY))
    assert not list(files_with(SECRET))
    assert rows() == others
    kept = [name for name in IDS if name not in (KEY, "b")]
    assert ask(frame(kept))["_status"].eq("succeeded").all()
    assert sent(emulator) == 8
    ask(frame(IDS[1:2]))  # a row that is given again is a new one
    assert sent(emulator) == 9


def test_a_key_of_several_columns_is_a_dict() -> None:
    """Its values are Python's; what is no such key is told with the columns."""
    day = pd.Timestamp("2026-03-01T09:30:00Z")
    ask(frame().assign(day=day), key=["id", "day"])
    for wrong in (KEY, {"id": KEY}, {"id": KEY, "hour": 5}):
        with pytest.raises(SpecError, match=r"^key: it has the columns id, day; give a dict"):
            forget(OUT, wrong)
    assert forget(OUT, {"day": day.to_pydatetime(), "id": KEY}).rows == 1
    assert not list(files_with(KEY))


@pytest.mark.parametrize("step", ["take_out", "drop_jobs", "drop_texts"])
def test_a_forgetting_that_died_is_given_again(monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    """Wherever it stops, the second one takes the rest out."""
    batch().run()
    spent, real = settled(), getattr(operation, step)

    def dying(*args: object) -> object:
        real(*args)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(operation, step, dying)
        with pytest.raises(KeyboardInterrupt):
            forget(OUT, KEY)
    if step != "drop_texts":  # that was the end of it
        forget(OUT, KEY)
    assert not list(files_with(KEY))
    assert not list(files_with(SECRET))
    assert settled() == spent


def test_a_mended_model_keeps_the_answers_of_a_frame(emulator: Emulator) -> None:
    """Invalid rows that it takes become valid, typed columns and all; nothing is sent for them."""
    before = ask(frame(), response_model=label("x", "y"))
    invalid = int(before["_status"].eq("invalid").sum())
    assert 0 < invalid < 8
    assert ask(frame(), dry_run=True).valid_by_now == invalid
    assert revalidate(OUT, label(), dry_run=True).became_valid == invalid
    assert [row["_status"] for row in rows()].count("invalid") == invalid
    assert revalidate(OUT, label()).became_valid == invalid
    after = ask(frame())
    assert after["_status"].eq("succeeded").all()
    assert after["label"].isin(["x", "y", "z"]).all()
    assert sent(emulator) == 8


def test_answers_of_another_model_are_kept_for_a_frame(emulator: Emulator) -> None:
    """A field that left and came back has its values again; JSON Schema will do as well."""
    first = ask(frame())
    assert revalidate(OUT, LabelAlone.model_json_schema()).kept == 8
    assert "words" not in ask(frame(), response_model=LabelAlone)
    assert revalidate(OUT, label()).kept == 8
    pd.testing.assert_frame_equal(ask(frame()), first)
    assert revalidate(OUT, WithScore).no_longer_valid == 8
    assert sent(emulator) == 8


def test_a_mended_model_keeps_the_answers_of_a_batch(emulator: Emulator) -> None:
    """The results are as if the jobs had had it from the start, also after files are lost."""
    run = batch(response_model=label("x", "y")).run()
    invalid = [name for name, result in run.results().items() if result.outcome == "invalid"]
    assert invalid
    paid = sent(emulator)  # invalid answers were asked for again
    plan = batch(response_model=label()).run(dry_run=True).plan
    assert plan is not None
    assert plan.valid_by_now == len(invalid)
    assert revalidate(OUT, label()).became_valid == len(invalid)
    for lost in (None, OUT / "data", OUT):
        if lost is not None:
            shutil.rmtree(lost)
        results = batch(response_model=label()).run().results()
        assert all(result.is_success() for result in results.values())
        assert all(result.parsed_response is not None for result in results.values())
        assert sent(emulator) == paid


def test_answers_of_another_model_are_kept_for_a_batch(emulator: Emulator) -> None:
    """Also after the whole folder was lost: they are looked up, and read by today's model."""
    batch(response_model=label()).run()
    assert revalidate(OUT, LabelAlone).kept == 8
    for lost in (None, OUT / "data", OUT):
        if lost is not None:
            shutil.rmtree(lost)
        results = batch(response_model=LabelAlone).run().results()
        assert all(result.is_success() for result in results.values())
        assert sent(emulator) == 8


def test_what_cannot_be_read_anew_is_told() -> None:
    """One sentence names the argument and the reason, and nothing is made or changed."""
    for call in (lambda: revalidate("nowhere", WithScore), lambda: forget("nowhere", KEY)):
        with pytest.raises(SpecError, match=r"^output: there is no dataset in .*nowhere"):
            call()
    assert not Path("nowhere").exists()
    several = batch(IDS[:2]).add_job(prompt="x", id="x", response_model=WithScore, model=CLAUDE)
    several.run()
    for output, model, words in (
        (OUT, WithScore, r"^response_model: the jobs of this Batch have several"),
        (OUT, 5, r"^response_model: 5 is no Pydantic class"),
        (5, WithScore, r"^output: 5 is no path"),
    ):
        with pytest.raises(SpecError, match=words):
            revalidate(output, model)  # pyright: ignore[reportArgumentType]


def test_it_is_refused_beside_a_run_and_before_an_unfinished_one(emulator: Emulator) -> None:
    """Answers of an unfinished run are not read anew; the sentence says what to do first.

    A job that it planned and did not send can be forgotten; so can those of other runs.
    """
    batch(IDS[:2]).run()
    with (
        hold_dataset(str(OUT), Settings()),
        pytest.raises(AlreadyRunningError, match="another run holds this dataset"),
    ):
        forget(OUT, "a")
    emulator.control.faults(kind="http_error", status=401, route="create", nth=1)
    with pytest.raises(CredentialsError):
        batch(IDS[:4]).run()
    with pytest.raises(
        SpecError, match=r"an unfinished run .*; let another run of what fills .* finish it"
    ):
        revalidate(OUT, WithScore)
    assert (forget(OUT, "a").rows, forget(OUT, "c").rows) == (1, 0)
    before = sent(emulator)
    batch([IDS[1], IDS[3]]).run()
    assert sent(emulator) == before + 1
