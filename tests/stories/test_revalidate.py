"""A mended response model pays nothing for answers that it takes: they are read anew."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any

import pytest
from typer.testing import CliRunner

from batchata_tasks.cli.commands import app
from batchata_tasks.common.errors import AlreadyRunningError, SpecError
from batchata_tasks.common.settings import Settings
from batchata_tasks.dataset.parts import Dataset
from batchata_tasks.execution.held_dataset import hold_dataset
from batchata_tasks.operations.cancel import cancel
from batchata_tasks.operations.compact import compact
from batchata_tasks.operations.forget import forget
from batchata_tasks.operations.rebuild import rebuild
from batchata_tasks.operations.revalidate import revalidate
from batchata_tasks.pipeline.enrich import enrich
from batchata_tasks.pipeline.steps import Steps
from batchata_tasks.planning.prepare import prepare_run
from batchata_tasks.reports.plan import preview
from tests.support.books import check_money
from tests.support.table import SCHEMA, Table

if TYPE_CHECKING:
    from pathlib import Path

    from batchata_tasks.emulator import Emulator
    from batchata_tasks.pipeline.revalidation import Revalidated

LABEL_ALONE = {
    "type": "object",
    "properties": {"label": SCHEMA["properties"]["label"]},
    "required": ["label"],
}
WITH_SCORE = {
    "type": "object",
    "properties": {**SCHEMA["properties"], "score": {"type": "integer"}},
    "required": ["label", "words", "score"],
}
MODEL = """
from typing import Literal
from pydantic import BaseModel, field_validator

class Label(BaseModel):
    label: Literal["x", "y", "z"]
    words: list[str]

    @field_validator("label")
    @classmethod
    def _checked(cls, value: str) -> str:
        if value in {refused}:
            raise ValueError("no such label")
        return value
"""


TO_BE_SENT = "of another response model: unchanged, and sent again by the next run"
STAY = (
    "which landed under the same schema: they stay valid in the dataset, with their values, and no "
    "run sends them again, but one with `--refresh`, which sends all; `--mark-invalid` makes them "
    "invalid, so that they alone are sent again"
)


@pytest.fixture
def table(emulator: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Table:
    monkeypatch.setenv("BATCHATA_CODE_ROOTS", str(tmp_path))
    return Table(tmp_path, emulator, "anthropic", rows=12)


def model(table: Table, refused: tuple[str, ...]) -> dict[str, Any]:
    """Write a response model that refuses some labels; return the spec's keys of it."""
    name = f"refusing_{'_'.join(refused)}.py"
    (table.folder / name).write_text(MODEL.replace("{refused}", repr(refused)))
    path = str(table.folder / name)
    return {"response_schema": None, "response_model": f"{path}:Label", "max_attempts": 1}


def revalidated(table: Table, *, dry_run: bool = False, **changes: Any) -> Revalidated:
    return revalidate(table.spec(**changes), Settings(), dry_run=dry_run)


def sent(table: Table) -> int:
    return table.ledger()["requests_accepted"]


def test_a_mended_validator_keeps_what_was_paid_for(table: Table) -> None:
    """Invalid rows that it takes become valid, with their columns; nothing is sent for them."""
    strict, mended = model(table, ("x", "y")), model(table, ("",))
    table.run(**strict)
    invalid = [row["id"] for row in table.rows() if row["_status"] == "invalid"]
    assert 0 < len(invalid) < 12
    assert preview(table.spec(**mended), Settings()).valid_by_now == len(invalid)
    report = revalidated(table, **mended)
    assert report.became_valid == len(invalid)
    assert report.kept == report.no_longer_valid == report.still_invalid == 0
    for row in table.rows():
        assert row["_status"] == "succeeded"
        assert row["_error"] is None
        assert row["label"] in "xyz"
        assert row["words"] is not None
    assert preview(table.spec(**mended), Settings()).summary.requests == 0
    table.run(**mended)
    assert sent(table) == 12


def test_answers_of_another_model_are_kept(table: Table) -> None:
    """A field that left and came back has its values again, and no row was sent for it."""
    table.run()
    first = table.rows()
    assert preview(table.spec(response_schema=LABEL_ALONE), Settings()).summary.requests == 12
    assert revalidated(table, response_schema=LABEL_ALONE).kept == 12
    table.run(response_schema=LABEL_ALONE)
    assert all("words" not in row for row in table.rows())
    assert revalidated(table).kept == 12
    table.run()
    assert table.rows() == first
    assert sent(table) == 12


def test_values_that_a_model_between_lacked_are_filled(table: Table) -> None:
    """A run under another model empties columns, also of rows that it did not send."""
    table.run()
    first = table.rows()
    table.run(response_schema=LABEL_ALONE, limit=2)
    assert revalidated(table).filled == 10
    unsent = {row["id"] for row in table.rows() if row["_run_id"] == first[0]["_run_id"]}
    assert len(unsent) == 10
    assert [row for row in table.rows() if row["id"] in unsent] == [
        row for row in first if row["id"] in unsent
    ]


def test_what_a_model_does_not_take_stays_and_is_told(table: Table) -> None:
    """Nothing of such a row changes, and the next run sends it."""
    table.run()
    first = table.rows()
    report = revalidated(table, response_schema=WITH_SCORE)
    assert (report.no_longer_valid, report.no_longer_valid_to_send) == (12, 12)
    assert ("No longer valid", f"12 rows, {TO_BE_SENT}") in report.lines()
    assert report.example is not None
    assert "id='k" in report.example
    assert "score" in report.example
    kept = [{name: row[name] for name in first[0]} for row in table.rows()]
    assert kept == first
    assert preview(table.spec(response_schema=WITH_SCORE), Settings()).summary.requests == 12


def test_what_only_a_stricter_validator_refuses_stays_valid(table: Table) -> None:
    """Nothing of such a row changes, and no run sends it; the report says just that."""
    table.run(**model(table, ("",)))
    first = table.rows()
    strict = model(table, ("x", "y"))
    refused = sum(row["label"] in "xy" for row in first)
    report = revalidated(table, **strict)
    assert 0 < refused < 12
    assert (report.no_longer_valid, report.no_longer_valid_to_send) == (refused, 0)
    lines = dict(report.lines())
    assert lines["No longer valid"] == f"{refused} rows, {STAY}"
    assert "no such label" in lines["For example"]
    assert table.rows() == first
    assert table.run(**strict).plan["requests"] == 0
    assert table.rows() == first


def test_a_dry_run_writes_nothing(table: Table) -> None:
    """It tells the same, and no file of the dataset changes."""
    table.run()
    before = {path: path.read_bytes() for path in (table.output / "data").iterdir()}
    assert revalidated(table, dry_run=True, response_schema=LABEL_ALONE).kept == 12
    assert {path: path.read_bytes() for path in (table.output / "data").iterdir()} == before


def test_answers_without_a_model_are_texts(table: Table) -> None:
    """A spec that asks for text by now reads the raw answers as texts."""
    table.run()
    assert revalidated(table, response_schema=None).kept == 12
    assert all(row["response"] == row["_response"] for row in table.rows())
    table.run(response_schema=None)
    assert sent(table) == 12


def test_it_is_refused_beside_a_run_and_without_a_dataset(table: Table) -> None:
    """One sentence says what is in the way."""
    with pytest.raises(SpecError, match="there is no dataset in"):
        revalidated(table)
    assert not table.output.exists()
    table.run()
    with (
        hold_dataset(str(table.output), Settings()),
        pytest.raises(AlreadyRunningError, match="another run holds this dataset"),
    ):
        revalidated(table)


def test_the_command_tells_what_it_did(table: Table) -> None:
    """`batchata revalidate` prints counts for people, or one object of JSON."""
    table.run()
    spec = table.folder / "spec.json"
    spec.write_text(table.spec(response_schema=WITH_SCORE).model_dump_json(exclude_unset=True))
    done = CliRunner().invoke(app, ["revalidate", str(spec), "--dry-run"])
    assert done.exit_code == 0, done.output
    assert "No longer valid  12 rows" in done.output
    done = CliRunner().invoke(app, ["revalidate", str(spec), "--json"])
    assert '"no_longer_valid": 12' in done.output


def test_rows_that_an_unfinished_run_would_send_are_not_kept_before_it(table: Table) -> None:
    """It planned them, so they would be paid for all the same; the sentence says what to do."""

    def die(*_: object) -> dict[str, object]:
        message = "the process is lost"
        raise RuntimeError(message)

    table.run()
    with pytest.raises(RuntimeError, match="is lost"):
        enrich(table.spec(response_schema=LABEL_ALONE), steps=Steps(submit=die))
    with pytest.raises(
        SpecError, match=r"an unfinished run would still send.*batchata cancel SPEC"
    ):
        revalidated(table, response_schema=LABEL_ALONE)
    assert cancel(table.spec(response_schema=LABEL_ALONE), Settings()).exit_code == 0
    assert revalidated(table, response_schema=LABEL_ALONE).kept == 12
    table.run(response_schema=LABEL_ALONE)
    assert sent(table) == 12


def test_a_pilot_that_did_not_hold_holds_once_its_answers_are_valid(table: Table) -> None:
    """The next run plans anew, and sends the rows that were kept back."""
    spec = {**model(table, ("x", "y", "z")), "pilot": {"rows": 5, "max_invalid_share": 0.5}}
    assert table.run(**spec).result == "pilot_failed"
    file = table.folder / "refusing_x_y_z.py"
    file.write_text(MODEL.replace("{refused}", "()"))
    assert table.run(**spec).result == "pilot_failed"
    assert revalidated(table, **spec).became_valid == 5
    receipt = table.run(**spec)
    assert (receipt.result, receipt.outcomes) == ("succeeded", {"succeeded": 7})
    assert sent(table) == 12


def test_a_lost_part_is_read_by_the_class_again(table: Table) -> None:
    """What its validators refused is not valid because files of the dataset are gone."""
    strict = model(table, ("x", "y"))
    table.run(**strict)
    before = table.rows()
    assert {row["_status"] for row in before} == {"succeeded", "invalid"}
    for path in (table.output / "data").iterdir():
        path.unlink()
    table.run(**strict)
    assert table.rows() == before
    assert sent(table) == 12


def lose_parts(table: Table) -> None:
    for path in (table.output / "data").iterdir():
        path.unlink()


@pytest.mark.parametrize("keeps_commits", [True, False])
def test_a_lost_part_comes_back_as_it_was_read_last(table: Table, keeps_commits: bool) -> None:
    """What was read under another model is not sent again because files are gone, nor planned."""
    table.run()
    if not keeps_commits:  # the ledger knows enough to write them anew
        for path in (table.output / "_batchata/commits").iterdir():
            path.unlink()
    assert revalidated(table, response_schema=LABEL_ALONE).kept == 12
    before = [without_moment(row) for row in table.rows()]
    lose_parts(table)
    plan = preview(table.spec(response_schema=LABEL_ALONE), Settings()).summary
    assert (plan.requests, plan.recovered) == (0, 12)
    table.run(response_schema=LABEL_ALONE)
    assert [without_moment(row) for row in table.rows()] == before
    assert sent(table) == 12


def without_moment(row: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name != "_enriched_at"}


def test_each_row_of_a_lost_part_has_the_last_model_that_took_it(table: Table) -> None:
    """Also in a part that many were merged into, and after one model after the other."""
    strict = model(table, ("x", "y"))
    for rows in (3, 6, 12):
        table.run(limit=rows)
    assert revalidated(table, response_schema=None).kept == 12
    report = revalidated(table, **strict)
    assert report.kept
    assert report.no_longer_valid
    compact(table.spec(**strict), Settings())
    before = table.rows()
    assert len({row["_fingerprint"].rpartition(".")[2] for row in before}) == 2
    lose_parts(table)
    table.run(**strict, rerun_on=["new"])
    assert table.rows() == before
    assert sent(table) == 12
    check_money(table)


def test_a_rebuilt_ledger_knows_how_answers_were_read(table: Table, tmp_path: Path) -> None:
    """It stands in the dataset's folder: a part that is lost after that comes back the same."""
    table.run()
    revalidated(table, response_schema=LABEL_ALONE)
    before = table.rows()
    lose_parts(table)
    (tmp_path / "ledger.db").rename(tmp_path / "lost.db")
    spec = table.spec(response_schema=LABEL_ALONE)
    rebuild(prepare_run(spec, Settings()), Settings())
    table.run(response_schema=LABEL_ALONE)
    assert table.rows() == before
    assert sent(table) == 12


def test_one_that_died_half_way_is_given_again(
    table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is lost or paid for, wherever it stopped, and whatever files go then."""
    table.run()

    def dying(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Dataset, "change", dying)
        with pytest.raises(KeyboardInterrupt):
            revalidated(table, response_schema=LABEL_ALONE)
    lose_parts(table)
    table.run(response_schema=LABEL_ALONE)
    assert revalidated(table, response_schema=LABEL_ALONE).gained == 0
    assert sent(table) == 12


@pytest.mark.parametrize("lost", ["out", "out/data out/_batchata/intents", "rebuilt"])
def test_a_dataset_that_is_lost_comes_back_as_it_was_read_last(
    table: Table, tmp_path: Path, lost: str
) -> None:
    """The ledger, also one that was rebuilt, knows under which models its rows were asked for."""
    strict, other = model(table, ("x", "y")), {"response_schema": LABEL_ALONE}
    table.run(limit=5)
    table.run(**other, rerun_on=["new"])
    assert revalidated(table, response_schema=None).kept == 12
    assert revalidated(table, **strict).kept
    before = {row["id"]: row for row in table.rows() if row["_status"] == "succeeded"}
    taken = {key for key, row in before.items() if row["label"] is not None}
    assert 0 < len(taken) < 12
    if lost == "rebuilt":
        (tmp_path / "ledger.db").rename(tmp_path / "lost.db")
        rebuild(prepare_run(table.spec(**strict), Settings()), Settings())
    for name in lost.replace("rebuilt", "out").split():
        shutil.rmtree(tmp_path / name)
    table.run(**strict, rerun_on=["new"])
    rows = {row["id"]: row for row in table.rows()}
    # the commits tell of each model in between, too
    come_back = before.keys() if "intents" in lost else taken
    assert {key for key, row in rows.items() if row["_status"] == "succeeded"} == come_back
    for key in taken:
        for name in ("label", "words", "_fingerprint", "_response", "_cost_usd", "_attempts"):
            assert rows[key][name] == before[key][name]
    assert sent(table) == 12
    table.run(**strict)  # what this model does not take is sent, as it would have been
    assert sent(table) > 12
    table.run(**strict)


@pytest.mark.parametrize("loses", [False, True])
def test_an_older_copy_of_the_folder_is_read_again(table: Table, loses: bool) -> None:
    """The ledger knows what was read anew since: no row of it is paid for once more, nor planned.

    So it is if the copy lacks files.
    """
    table.run()
    copy = shutil.copytree(table.output, table.folder / "copy")
    assert revalidated(table, response_schema=LABEL_ALONE).kept == 12
    before = table.rows()
    shutil.rmtree(table.output)
    shutil.move(copy, table.output)
    if loses:
        lose_parts(table)
    files = {path: path.read_bytes() for path in table.output.rglob("*") if path.is_file()}
    plan = preview(table.spec(response_schema=LABEL_ALONE), Settings())
    assert (plan.summary.requests, plan.valid_by_now) == (0, 0)  # as the run
    assert {path: path.read_bytes() for path in files} == files
    receipt = table.run(response_schema=LABEL_ALONE)
    assert (receipt.plan["requests"], receipt.plan["up_to_date"]) == (0, 12)
    assert table.rows() == before
    assert sent(table) == 12
    lose_parts(table)
    table.run(response_schema=LABEL_ALONE)
    assert table.rows() == before
    check_money(table)


def test_an_older_copy_loses_the_forgotten_row_before_its_answers_are_read(table: Table) -> None:
    """The copy has a part of that row alone, which is in the dataset no more."""
    table.run(items_per_batch=1)
    copy = shutil.copytree(table.output, table.folder / "copy")
    forget(table.spec(), ["k0"], Settings())
    table.values = table.values[1:]
    table.write()
    shutil.rmtree(table.output)
    shutil.move(copy, table.output)
    assert revalidated(table, response_schema=LABEL_ALONE).kept == 11
    assert table.run(response_schema=LABEL_ALONE).plan["up_to_date"] == 11
    assert [row["id"] for row in table.rows()] == sorted(value["id"] for value in table.values)
    assert sent(table) == 12


def test_nothing_is_read_again_that_nobody_set_back(table: Table) -> None:
    """A class that takes more by now is for the next `revalidate`, however often runs come."""
    spec = model(table, ("x",))
    table.run(**spec)
    assert revalidated(table, **spec).still_invalid
    before = table.rows()
    (table.folder / "refusing_x.py").write_text(MODEL.replace("{refused}", "()"))
    table.run(**spec)
    assert table.rows() == before
    assert revalidated(table, **spec).became_valid


def test_an_older_ledger_learns_how_answers_were_read(table: Table, tmp_path: Path) -> None:
    """It stands in the folder, also for the day on which that is lost."""
    table.run()
    shutil.copy(tmp_path / "ledger.db", tmp_path / "copy.db")
    revalidated(table, response_schema=LABEL_ALONE)
    before = table.rows()
    (tmp_path / "copy.db").replace(tmp_path / "ledger.db")
    assert table.run(response_schema=LABEL_ALONE).plan["requests"] == 0
    shutil.rmtree(table.output)
    table.run(response_schema=LABEL_ALONE)
    after = table.rows()
    for row in (*before, *after):  # of these, the rows tell when they came
        del row["_enriched_at"], row["_run_id"]
    assert after == before
    assert sent(table) == 12


def test_rows_of_another_model_that_were_not_read_are_sent(table: Table) -> None:
    """A lost dataset does not read its answers by today's model unasked."""
    table.run()
    shutil.rmtree(table.output)
    table.run(response_schema=LABEL_ALONE)
    assert sent(table) == 24


@pytest.mark.parametrize("rows", [4, 12])
def test_a_lost_part_is_as_valid_as_it_was(table: Table, rows: int) -> None:
    """A class that has become stricter refuses nothing that landed, and pays for nothing again."""
    spec = {**model(table, ("x",)), "max_attempts": 1}
    table.run(**spec, items_per_batch=rows)
    before = table.rows()
    assert {row["_status"] for row in before} == {"succeeded", "invalid"}
    file = table.folder / "refusing_x.py"
    file.write_text(MODEL.replace("{refused}", "('x', 'y')"))
    lose_parts(table)
    table.run(**spec)
    assert table.rows() == before
    assert sent(table) == 12
