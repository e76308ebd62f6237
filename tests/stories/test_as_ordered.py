"""What another process made of a batch's results lands only if it is what was asked for."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batchata_tasks.common.clock import now_us
from batchata_tasks.execution import land
from batchata_tasks.pipeline.enrich import enrich
from batchata_tasks.pipeline.steps import Steps, part_step
from batchata_tasks.planning.summary import Options
from batchata_tasks.progress.listener import LineProgress
from tests.support.books import check_money, run_with
from tests.support.table import Table

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from batchata_tasks.emulator import Emulator
    from batchata_tasks.execution.run_ref import PartOrder, RunRef

pytestmark = pytest.mark.in_turn

ROWS = 6
TWO_BATCHES = {"items_per_batch": 3, "max_parallel_batches": 1}


@pytest.fixture
def one(emulator: Emulator, tmp_path: Path) -> Table:
    """Return a table of a few rows for one provider: what is tested knows none."""
    return Table(tmp_path, emulator, "anthropic", rows=ROWS)


def steps_with(
    table: Table, change: Callable[[Path, dict[str, Any]], Any] = lambda _file, made: made
) -> Steps:
    """Return steps of which one makes parts, as a worker does; `change` is what goes wrong."""

    def part(ref: RunRef, order: PartOrder) -> Any:
        made = json.loads(json.dumps(part_step(ref, order)))
        return change(table.output / "_batchata" / made["file"], made)

    return replace(Steps(), makes_parts=part)


def rewritten(change: Callable[[pa.Table], pa.Table]) -> Callable[[Path, dict[str, Any]], Any]:
    """Return what writes other rows into a file than it had."""

    def changed(file: Path, made: dict[str, Any]) -> Any:
        with pq.ParquetFile(file) as stored:
            rows = change(stored.read())
        pq.write_table(rows, file)
        return made

    return changed


def cut(file: Path, made: dict[str, Any]) -> Any:
    file.write_bytes(file.read_bytes()[:-200])
    return made


def emptied(file: Path, made: dict[str, Any]) -> Any:
    file.write_bytes(b"")
    return made


def of_another_chunk(file: Path, made: dict[str, Any]) -> Any:
    """Give each batch the file of the first one."""
    first = file.parent.parent / "first.parquet"
    if not first.exists():
        shutil.copy(file, first)
    shutil.copy(first, file)
    return made


def twice(rows: pa.Table) -> pa.Table:
    return rows.take(pa.array([1, 1, 2]))


def dearer(rows: pa.Table) -> pa.Table:
    return with_values(rows, lambda row: {"_cost_usd": row["_cost_usd"] * 2})


def refused(rows: pa.Table) -> pa.Table:
    return with_values(rows, lambda _row: {"_status": "refused"})


def with_values(rows: pa.Table, new: Callable[[dict[str, Any]], dict[str, Any]]) -> pa.Table:
    return pa.Table.from_pylist([row | new(row) for row in rows.to_pylist()], schema=rows.schema)


FILES = {
    "cut": (cut, "cannot be read"),
    "emptied": (emptied, "cannot be read"),
    "another chunk's": (of_another_chunk, "not those of the batch"),
    "short": (rewritten(lambda rows: rows.slice(1)), "not those of the batch"),
    "a row twice": (rewritten(twice), "not those of the batch"),
    "other columns": (rewritten(lambda rows: rows.select(["id"])), "columns are others"),
    "other outcomes": (rewritten(refused), "other outcomes"),
    "other costs": (rewritten(dearer), "cost something else"),
}


@pytest.mark.parametrize("kind", FILES)
def test_a_file_that_is_not_what_was_asked_for_does_not_land(one: Table, kind: str) -> None:
    """Its results are read here instead: each row lands, once, and the log says why.

    Nothing is paid for again, and no file is left.
    """
    change, why = FILES[kind]
    told = list[str]()
    receipt = enrich(
        one.spec(**TWO_BATCHES), steps=steps_with(one, change), progress=LineProgress(told.append)
    )
    assert receipt.outcomes == {"succeeded": ROWS}
    assert len(one.rows()) == ROWS
    one.check_answers()
    check_money(one)
    assert run_with(one, Steps()).plan["up_to_date"] == ROWS
    assert one.ledger()["requests_accepted"] == ROWS
    assert sum("not what was asked for" in text and why in text for text in told) == (
        1 if kind == "another chunk's" else 2
    )
    assert not list((one.output / "_batchata").glob(".part-*"))


def without(*path: str) -> Callable[[dict[str, Any]], Any]:
    """Return what takes a field away."""

    def change(made: dict[str, Any]) -> Any:
        inner = made
        for name in path[:-1]:
            inner = inner[name]
        del inner[path[-1]]
        return made

    return change


def with_tally(**facts: Any) -> Callable[[dict[str, Any]], Any]:
    """Return what changes the totals of the rows that succeeded."""

    def change(made: dict[str, Any]) -> Any:
        made["report"]["tallies"]["succeeded"] |= facts
        return made

    return change


SAID: dict[str, Callable[[dict[str, Any]], Any]] = {
    "a list": lambda _made: [],
    "a text": lambda _made: "done",
    "nothing": lambda _made: {},
    "no `replaces`": without("replaces"),
    "no report": without("report"),
    "no overhead": without("report", "overhead"),
    "no totals": without("report", "tallies", "succeeded"),
    "no rows": without("report", "tallies", "succeeded", "rows"),
    "fewer rows": with_tally(rows=2),
    "a text for rows": with_tally(rows="3"),
    "another cost": with_tally(cost=1),
    "another moment": lambda made: made | {"enriched_at": 0},
    "other older costs": lambda made: made | {"superseded": 7},
    "other older parts": lambda made: made | {"replaces": ["part-of-another.parquet"]},
    "other attempts": lambda made: made | {"retried": {"errored": 1}},
    "another file": lambda made: made | {"file": "owner.json"},
    "a file by a path": lambda made: made | {"file": f"../_batchata/{made['file']}"},
    "something more": lambda made: made | {"more": 1},
}


@pytest.mark.in_turn
@pytest.mark.parametrize("kind", SAID)
def test_what_is_said_of_a_file_has_to_be_so(one: Table, kind: str) -> None:
    """If a field lacks, has another type, or contradicts the rows, they are read here."""
    steps, told = steps_with(one, lambda _file, made: SAID[kind](made)), list[str]()
    receipt = enrich(one.spec(), steps=steps, progress=LineProgress(told.append))
    assert receipt.outcomes == {"succeeded": ROWS}
    assert len(one.rows()) == ROWS
    check_money(one)
    assert any("not what was asked for" in text for text in told)
    assert (one.output / "_batchata" / "owner.json").exists()


def not_here(*_: object) -> None:
    """Stand for reading results in the process that lands."""
    pytest.fail("the part was made here")


@pytest.mark.parametrize(
    "fault", [None, "request_refusal", "request_broken_line", "request_missing", "request_no_usage"]
)
def test_what_is_as_ordered_lands_whatever_its_rows_are(
    table: Table, monkeypatch: pytest.MonkeyPatch, fault: str | None
) -> None:
    """New rows, rows tried again, rows that replace others or keep an earlier answer.

    None of them is read twice.
    """
    monkeypatch.setattr(land, "make_part", not_here)
    steps = steps_with(table)
    if fault is not None:
        table.emulator.control.faults(kind=fault, contains="row 7")
    run_with(table, steps, items_per_batch=10)
    if fault is not None:
        table.emulator.control.faults(kind=fault, contains="row 4", times=3)
    table.values[0]["text"] += ", changed"
    table.write()
    run_with(table, steps, Options(refresh_before=now_us()), items_per_batch=10)
    run_with(table, steps, Options(retry_failed=True), items_per_batch=10)
    assert len(table.rows()) == len(table.values)
