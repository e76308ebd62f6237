"""Batches that never end, and runs whose time limit is over once they have sent."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from batchata_tasks.common.clock import awake_clock
from batchata_tasks.execution import overdue
from batchata_tasks.ledger import StopReason
from batchata_tasks.pipeline.enrich import enrich
from batchata_tasks.pipeline.steps import Steps
from batchata_tasks.progress.listener import LineProgress
from tests.support.books import opened

if TYPE_CHECKING:
    import pytest

    from batchata_tasks.execution.run_ref import RunRef
    from batchata_tasks.pipeline.receipt import Receipt
    from tests.support.table import Table

# its status stays finalizing and a cancel is refused; or it stays cancelling for good
STUCK = {
    "refuses": ("stuck_finalizing", "cancel_conflict"),
    "ignores": ("never_ends", "cancel_ignored"),
}


def stick(table: Table, which: str = "refuses") -> None:
    """Let the next batch be stuck, in one of two ways."""
    batch, cancel = STUCK[which]
    control = table.emulator.control
    control.faults(kind=batch, count=1, **({} if which == "refuses" else {"share": 1.0}))
    control.faults(kind=cancel, **({"count": 1} if cancel == "cancel_ignored" else {}))


def a_day_later(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a day have passed whenever it is asked how long a batch is still waited for."""
    monkeypatch.setattr(overdue, "awake_clock", lambda: awake_clock() + 86_401)


def limited() -> Steps:
    """Return steps of which the first submit uses up the time limit."""

    def submit(ref: RunRef, chunk_id: str) -> dict[str, Any]:
        sent = Steps().submit(ref, chunk_id)
        with opened() as ledger:
            ledger.request_stop(ref.run_id, StopReason.TIME_LIMIT)
        return sent

    return replace(Steps(), submit=submit)


def told(table: Table, steps: Steps | None = None, **changes: Any) -> tuple[Receipt, list[str]]:
    """Run, and return the receipt and what was told meanwhile."""
    notes = list[str]()
    progress = LineProgress(notes.append)
    return enrich(table.spec(**changes), steps=steps, progress=progress), notes


def left_overdue(table: Table, which: str = "refuses") -> str:
    """Leave the batch of a run overdue; return its id."""
    stick(table, which)
    receipt, _ = told(table, limited())
    assert (receipt.exit_code, receipt.held_rows) == (5, len(table.values))
    (batch,) = [line["id"] for line in table.ledger()["batches"]]
    return batch


def add_rows(table: Table, count: int) -> None:
    first = len(table.values)
    table.values += [
        {"id": f"k{i}", "text": f"text of row {i}", "note": f"n{i}"}
        for i in range(first, first + count)
    ]
    table.write()
