"""Rows whose keys left the source: they are kept, marked or deleted, and never by accident."""

from __future__ import annotations

import json
import shutil
from functools import partial
from typing import TYPE_CHECKING, Any

import pandas as pd
import pytest
from typer.testing import CliRunner

from batchata_tasks import enrich as enrich_frame
from batchata_tasks.cli.commands import app
from batchata_tasks.common.errors import SourceError
from batchata_tasks.common.settings import Settings
from batchata_tasks.dataset.declared import DeclaredSchema
from batchata_tasks.dataset.folder import DatasetFolder
from batchata_tasks.execution import missing
from batchata_tasks.operations.compact import compact
from batchata_tasks.operations.forget import forget
from batchata_tasks.operations.rebuild import rebuild
from batchata_tasks.operations.revalidate import revalidate
from batchata_tasks.pipeline import steps
from batchata_tasks.planning.prepare import prepare_run
from batchata_tasks.reports.plan import preview
from tests.support.books import check_money, money
from tests.support.by_day import moments
from tests.support.dying import dying_before
from tests.support.stuck import limited, stick, told
from tests.support.table import SCHEMA, Table

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from batchata_tasks.emulator import Emulator

ROWS = 10
MARK: dict[str, Any] = {"on_missing": "mark"}
DELETE: dict[str, Any] = {"on_missing": "delete"}
LABEL_ALONE = {
    "type": "object",
    "properties": {"label": SCHEMA["properties"]["label"]},
    "required": ["label"],
}


@pytest.fixture
def table(emulator: Emulator, tmp_path: Path) -> Table:
    return Table(tmp_path, emulator, "anthropic", rows=ROWS)


def leave(table: Table, *keys: str) -> list[dict[str, str]]:
    """Take rows out of the source; return them."""
    gone = [value for value in table.values if value["id"] in keys]
    table.values = [value for value in table.values if value["id"] not in keys]
    table.write()
    return gone


def come_back(table: Table, rows: list[dict[str, str]]) -> None:
    table.values += rows
    table.write()


def marks(table: Table) -> dict[str, Any]:
    return {row["id"]: row["_missing_since"] for row in table.rows() if row["_missing_since"]}


def keys(table: Table) -> set[str]:
    return {row["id"] for row in table.rows()}


def sent(table: Table) -> int:
    return table.ledger()["requests_accepted"]


def spec_file(table: Table, **changes: Any) -> str:
    path = table.folder / "spec.json"
    path.write_text(table.spec(**changes).model_dump_json(exclude_unset=True))
    return str(path)


def without_marks(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{k: v for k, v in row.items() if k != "_missing_since"} for row in rows]


def test_rows_stay_as_they_are_unless_the_spec_says_otherwise(table: Table) -> None:
    """The default keeps them, and adds no column."""
    table.run()
    before = table.rows()
    leave(table, "k0", "k1")
    assert ("  not in the source any more, kept", "2") in preview(table.spec(), Settings()).lines()
    receipt = table.run()
    assert table.rows() == before
    assert "_missing_since" not in before[0]
    assert (receipt.plan["marked"], receipt.plan["deleted"]) == (0, 0)
    assert dict(receipt.lines())["Also"] == "2 no longer in the source: kept"


def test_a_marked_row_says_since_when_and_is_unmarked_when_it_comes_back(table: Table) -> None:
    """The moment stays as it is, all else of each row, too, and nothing is sent for any of it."""
    table.run(**MARK)
    before = table.rows()
    assert [row["_missing_since"] for row in before] == [None] * ROWS
    gone = leave(table, "k3", "k7")
    assert preview(table.spec(**MARK), Settings()).summary.marked == 2
    assert marks(table) == {}
    receipt = table.run(**MARK)
    first = marks(table)
    assert receipt.plan["marked"] == 2
    assert "2 no longer in the source: marked" in dict(receipt.lines())["Also"]
    assert first.keys() == {"k3", "k7"}
    assert without_marks(table.rows()) == without_marks(before)
    assert table.run(**MARK).plan["marked"] == 0
    assert marks(table) == first
    come_back(table, gone[:1])
    assert preview(table.spec(**MARK), Settings()).summary.returned == 1
    assert table.run(**MARK).plan["returned"] == 1
    assert marks(table) == {"k7": first["k7"]}
    assert sent(table) == ROWS
    check_money(table)


def test_a_row_that_comes_back_changed_is_sent_and_unmarked(table: Table) -> None:
    """Its old answer is not missing either, while the new one is on its way."""
    table.run(**MARK)
    (row,) = leave(table, "k3")
    table.run(**MARK)
    come_back(table, [{**row, "text": "told anew"}])
    receipt = table.run(**MARK)
    assert (receipt.plan["requests"], receipt.plan["returned"]) == (1, 1)
    assert marks(table) == {}


def test_a_deleted_row_is_gone_and_paid_again_if_it_comes_back(table: Table) -> None:
    """Its cost stays counted; another run deletes nothing more."""
    table.run(**DELETE)
    before = check_money(table)
    gone = leave(table, "k3", "k7")
    assert preview(table.spec(**DELETE), Settings()).summary.deleted == 2
    receipt = table.run(**DELETE)
    assert receipt.plan["deleted"] == 2
    assert "2 no longer in the source: deleted" in dict(receipt.lines())["Also"]
    assert keys(table) == {f"k{i}" for i in range(ROWS)} - {"k3", "k7"}
    after = check_money(table)
    assert (after.settled, after.dataset + after.superseded) == (before.settled, before.settled)
    assert after.dataset < before.dataset
    assert table.run(**DELETE).plan["deleted"] == 0
    come_back(table, gone)
    assert table.run(**DELETE).plan["reasons"] == {"new": 2}
    assert len(keys(table)) == ROWS
    assert sent(table) == ROWS + 2
    check_money(table)


def test_what_where_limit_and_nulls_leave_out_is_not_missing(table: Table) -> None:
    """Only the source counts: a filter that is changed marks and deletes nothing."""
    table.run()
    only_three = {"where": "text in ('text of row 1', 'text of row 2', 'text of row 3')"}
    receipt = table.run(**DELETE, **only_three)
    assert (receipt.plan["filtered"], receipt.plan["deleted"]) == (ROWS - 3, 0)
    assert table.run(**DELETE, limit=1).plan["deleted"] == 0
    jsonl = table.folder / "table.jsonl"
    values: list[dict[str, Any]] = [dict(value) for value in table.values]
    values[4]["text"] = None
    values.append({"id": None, "text": "no key", "note": "n"})
    jsonl.write_text("".join(json.dumps(value) + "\n" for value in values))
    receipt = table.run(source=str(jsonl), on_null="skip", where="id is not none", **DELETE)
    assert (receipt.plan["null_skipped"], receipt.plan["deleted"]) == (1, 0)
    assert len(keys(table)) == ROWS
    assert sent(table) == ROWS


@pytest.mark.parametrize("action", ["mark", "delete"])
def test_a_source_that_was_cut_changes_and_sends_nothing(table: Table, action: str) -> None:
    """One sentence says how many rows are missing, and how to go on if that is right."""
    table.run()
    before = table.rows()
    leave(table, "k0", "k1", "k2")
    come_back(table, [{"id": "new", "text": "a new row", "note": ""}])
    sentence = r"3 rows of 10 of the dataset \(30.0%\).*`max_missing_share` allows 20.0%"
    for read in (preview, lambda spec, _: table.run(on_missing=spec.on_missing)):
        with pytest.raises(SourceError, match=sentence):
            read(table.spec(on_missing=action), Settings())
    assert table.rows() == before
    assert sent(table) == ROWS
    file = spec_file(table, on_missing=action)
    done = CliRunner().invoke(app, ["run", file, "--direct"])
    assert done.exit_code == 2
    assert "--set max_missing_share=0.3" in " ".join(done.output.split())
    done = CliRunner().invoke(app, ["run", file, "--direct", "--set", "max_missing_share=0.3"])
    assert done.exit_code == 0, done.output
    assert sent(table) == ROWS + 1
    assert len(keys(table)) == (ROWS + 1 if action == "mark" else ROWS - 2)


@pytest.mark.parametrize("action", ["mark", "delete"])
def test_an_empty_source_is_always_refused(table: Table, action: str) -> None:
    """Whatever share may be missing."""
    table.run()
    before = table.rows()
    leave(table, *keys(table))
    with pytest.raises(SourceError, match="on_missing: the source has no rows, so that all 10"):
        table.run(on_missing=action, max_missing_share=1)
    assert table.rows() == before


def test_rows_that_were_marked_before_do_not_count_as_cut(table: Table) -> None:
    """Night after night a fifth may leave: what is marked already is no reason to refuse."""
    table.run(**MARK)
    for number in range(4):
        leave(table, f"k{number}")
        assert table.run(**MARK).plan["marked"] == 1
    assert len(marks(table)) == 4


def _restored(table: Table) -> Iterator[int]:
    """Yield numbers; before each, dataset and ledger are as they were at the start."""
    ledger, copy = table.folder / "ledger.db", table.folder / "copy"
    shutil.copytree(table.output, copy)
    shutil.copy(ledger, table.folder / "ledger.copy")
    for number in moments():
        shutil.rmtree(table.output)
        shutil.copytree(copy, table.output)
        shutil.copy(table.folder / "ledger.copy", ledger)
        yield number


def _dying(real: Callable[..., None], step: int, *args: Any) -> None:
    with dying_before(step):
        real(*args)


@pytest.mark.sampled
@pytest.mark.parametrize("action", ["mark", "delete"])
def test_it_may_die_before_any_change_of_a_file(
    table: Table, action: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next run makes the same of it, and no cost counts twice."""
    leaving = {"k1", "k2", "k6"}
    spec = {"on_missing": action, "max_missing_share": 1, "items_per_batch": 4}
    table.run(**spec)
    before = money(table)
    leave(table, *leaving)
    for number in _restored(table):
        with monkeypatch.context() as patch:
            patch.setattr(steps, "follow_source", partial(_dying, steps.follow_source, number))
            try:
                table.run(**spec)
                has_ended = True
            except KeyboardInterrupt:
                has_ended = False
        table.run(**spec)
        if action == "mark":
            assert marks(table).keys() == leaving
        else:
            assert keys(table) == {f"k{i}" for i in range(ROWS)} - leaving
        assert check_money(table).settled == before.settled
        if has_ended:
            break
    assert number > 3


def test_a_deletion_that_died_is_finished_though_the_row_came_back(
    table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its money was taken out of the dataset already: it is sent again, and the books are right."""
    table.run(**DELETE)
    gone = leave(table, "k1")

    def dying(*args: Any) -> int:
        with dying_before(1):  # after the commit says so, before the part is written anew
            return real(*args)

    real = missing.take_out
    with monkeypatch.context() as patch:
        patch.setattr(missing, "take_out", dying)
        with pytest.raises(KeyboardInterrupt):
            table.run(**DELETE)
    come_back(table, gone)
    assert table.run(**DELETE).plan["reasons"] == {"new": 1}
    assert len(keys(table)) == ROWS
    check_money(table)


def test_a_row_on_its_way_is_deleted_once_it_has_landed(
    table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its answer counts on the one that it replaces."""
    monkeypatch.setenv("BATCHATA_PATIENCE", "0.3")
    monkeypatch.setenv("BATCHATA_CANCEL_GRACE", "0.2")
    table.run()
    table.values[4]["text"] = "told anew"
    table.write()
    stick(table)
    told(table, limited())
    leave(table, "k4")
    receipt = table.run(**DELETE)
    assert receipt.plan["deleted"] == 0
    assert "k4" in keys(table)
    table.emulator.control.clear_faults()
    for batch in table.ledger()["batches"]:
        table.emulator.control.finish(batch["id"])
    assert table.run(**DELETE).plan["deleted"] == 1
    assert "k4" not in keys(table)
    check_money(table)


def test_a_part_that_is_written_anew_lacks_what_was_deleted(table: Table, tmp_path: Path) -> None:
    """Neither lost files nor a rebuilt ledger bring it back; its texts go by `forget`."""
    table.run(**DELETE)
    leave(table, "k1")
    table.run(**DELETE)
    before, left = check_money(table), keys(table)
    for path in (table.output / "data").iterdir():
        path.unlink()
    assert table.run(**DELETE).plan["requests"] == 0
    assert keys(table) == left
    assert check_money(table) == before
    (tmp_path / "ledger.db").rename(tmp_path / "lost.db")
    rebuild(prepare_run(table.spec(**DELETE), Settings()), Settings())
    assert table.run(**DELETE).plan["requests"] == 0
    assert check_money(table) == before
    assert forget(table.spec(**DELETE), ["k1"], Settings()).files
    assert check_money(table) == before


def test_a_lost_folder_comes_back_without_what_was_deleted(table: Table) -> None:
    """Nothing is sent for the others; a deleted row that is back in the source is a new one."""
    table.run(**DELETE)
    before = money(table)
    gone = leave(table, "k1")
    table.run(**DELETE)
    left = keys(table)
    shutil.rmtree(table.output)
    assert table.run(**DELETE).plan["requests"] == 0
    assert keys(table) == left
    assert check_money(table, lost=True).settled == before.settled
    come_back(table, gone)
    assert table.run(**DELETE).plan["reasons"] == {"new": 1}
    check_money(table, lost=True)


def test_marks_outlive_what_else_happens_to_a_dataset(table: Table) -> None:
    """Compacting, another response model, revalidation, and a spec that keeps such rows."""
    table.run(**MARK, items_per_batch=4)
    (row,) = leave(table, "k1")
    table.run(**MARK, items_per_batch=4)
    first = marks(table)
    compact(table.spec(**MARK), Settings())
    assert marks(table) == first
    assert revalidate(table.spec(**MARK, response_schema=LABEL_ALONE), Settings()).kept == ROWS
    table.run(**MARK, response_schema=LABEL_ALONE)
    assert marks(table) == first
    declared = DeclaredSchema.read(DatasetFolder(str(table.output)))
    assert declared is not None
    assert declared.marks
    leave(table, "k2")
    table.run(response_schema=LABEL_ALONE)
    assert marks(table) == first
    come_back(table, [row])
    table.run(response_schema=LABEL_ALONE)
    assert marks(table) == {}
    assert sent(table) == ROWS


def test_marked_rows_are_deleted_once_the_spec_says_so(table: Table) -> None:
    """Those that are marked already count as missing, too."""
    table.run(**MARK)
    leave(table, "k1", "k2")
    table.run(**MARK)
    leave(table, "k3")
    with pytest.raises(SourceError, match="3 rows of 10"):
        table.run(**DELETE)
    table.run(**DELETE, max_missing_share=0.3)
    assert keys(table) == {f"k{i}" for i in range(ROWS)} - {"k1", "k2", "k3"}
    check_money(table)


def test_a_frame_is_a_source_like_any_other(table: Table, tmp_path: Path) -> None:
    """A row that left the frame leaves the dataset of its answers."""
    frame = pd.DataFrame(table.values)
    options: dict[str, Any] = {
        "key": "id",
        "prompt": "{{ text }}",
        "model": "claude-haiku-5-5",
        "output": tmp_path / "answers",
        "on_missing": "delete",
    }
    enrich_frame(frame, **options)
    enrich_frame(frame.iloc[1:], **options)
    left = pd.read_parquet(tmp_path / "answers" / "data")
    assert set(left["id"]) == set(frame["id"].iloc[1:])
    assert sent(table) == ROWS
