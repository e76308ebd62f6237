"""Receipts tell what this start did, and `status` what is held or overdue, and what to do."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from typer.testing import CliRunner

from batchata_tasks.cli.commands import app
from batchata_tasks.common.settings import Settings
from batchata_tasks.ledger import ChunkState
from batchata_tasks.operations.reconcile_report import ReconcileRequest
from batchata_tasks.planning.summary import Options
from batchata_tasks.reports.status import runs_table, undecided
from tests.support.books import run_with, stopping_at
from tests.support.operations import cancel, reconcile, runs_overview
from tests.support.stuck import left_overdue
from tests.support.table import Table
from tests.support.unclear import in_state

if TYPE_CHECKING:
    from pathlib import Path

    from batchata_tasks.emulator import Emulator
    from batchata_tasks.pipeline.receipt import Receipt

pytestmark = pytest.mark.in_turn

ROWS = 3


@pytest.fixture(autouse=True)
def _hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BATCHATA_PATIENCE", "0.3")
    monkeypatch.setenv("BATCHATA_UNCLEAR_GRACE", "0.2")
    monkeypatch.setenv("BATCHATA_CANCEL_GRACE", "0.2")


def lines(receipt: Receipt) -> dict[str, str]:
    return dict(receipt.lines())


def hold(table: Table) -> Receipt:
    """Let a create be accepted and answered oddly by a server whose lists prove nothing."""
    control = table.emulator.control
    control.faults(kind="lists_unproven")
    control.faults(kind="list_empty")
    control.faults(kind="http_error_after", status=402, count=1)
    return table.run()


def shown_states() -> list[str]:
    """Return how `batchata status` words the ends of the runs, newest first."""
    shown = runs_table(runs_overview(None))
    assert not isinstance(shown, str)
    return [str(cell) for cell in shown.columns[2].cells]


def test_held_rows_have_not_failed_and_something_may_have_been_sent(table: Table) -> None:
    """The run that sent them, and the next one, say that rows are held: none failed."""
    first = lines(hold(table))
    assert first["Result"] == "some rows are held"
    assert first["Outcomes"] == "nothing landed; 3 rows are held"
    assert "1 more, of which nobody knows whether it was accepted" in first["Batches"]
    second = lines(table.run())
    assert second["Result"] == "some rows are held"
    assert second["Outcomes"] == "nothing was sent; 3 rows are held since an earlier run"
    assert shown_states() == ["some rows are held"] * 2


def test_a_row_that_failed_is_still_told_as_failed(table: Table) -> None:
    """Where rows failed, the result says so, also if others are held."""
    hold(table)
    table.values.append({"id": "new", "text": "a new row", "note": ""})
    table.write()
    table.emulator.control.clear_faults()
    table.emulator.control.faults(kind="request_refusal")
    receipt = table.run()
    assert receipt.held_rows == ROWS
    assert lines(receipt)["Result"] == "some rows failed"
    assert lines(receipt)["Outcomes"] == "1 refused"


def test_status_tells_what_is_held_and_what_to_do(table: Table) -> None:
    """How many rows, of which chunk, what the create was answered, and the commands to decide."""
    hold(table)
    (chunk,) = in_state(ChunkState.HELD)
    (run,) = runs_overview(table.spec())
    assert (run["held_rows"], run["overdue_rows"]) == (ROWS, 0)
    result = CliRunner().invoke(app, ["status"])
    for text in (f"{ROWS} rows are held", "HTTP 402", f"--adopt {chunk}=BATCH", "--resend"):
        assert text in result.stdout
    assert undecided(table.spec(output=str(table.folder / "another")), Settings()) == []


def test_status_tells_what_is_overdue_and_what_to_do(
    table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    """How many rows, of which batch, and how it is given up."""
    batch = left_overdue(table)
    (run,) = runs_overview(table.spec())
    assert (run["held_rows"], run["overdue_rows"]) == (0, ROWS)
    (text,) = undecided(table.spec(), Settings())
    assert f"batch {batch} has not ended" in text
    assert f"its {ROWS} rows are held" in text
    assert f"reconcile --abandon {batch}`" in text
    monkeypatch.setenv("BATCHATA_CANCEL_GRACE", "0")
    reconcile(ReconcileRequest(abandon=(batch,)))
    assert undecided(None, Settings()) == []


def test_cancel_tells_what_is_held(table: Table) -> None:
    """A `cancel` without an open run still names the chunk whose rows are held."""
    hold(table)
    (chunk,) = in_state(ChunkState.HELD)
    held = [text for what, text in cancel(table.spec()).lines() if what == "Held"]
    assert len(held) == 1
    assert f"--resend {chunk}" in held[0]


def test_a_run_that_lands_an_adopted_batch_says_so(table: Table) -> None:
    """Rows and cost of the adopted batch are told apart from the run's own, which sent nothing."""
    hold(table)
    (chunk,) = in_state(ChunkState.HELD)
    (batch,) = [line["id"] for line in table.ledger()["batches"]]
    reconcile(ReconcileRequest(adopt={chunk: batch}))
    receipt = table.run()
    assert receipt.this_start is not None
    earlier = receipt.this_start["earlier"]
    assert (earlier["batches"], earlier["outcomes"]) == (1, {"succeeded": ROWS})
    assert float(earlier["cost_usd"]) > 0
    assert lines(receipt)["Earlier runs"].startswith("1 batch landed by this start: 3 succeeded")
    assert lines(receipt)["Outcomes"] == "nothing was sent; what an earlier run had sent landed"
    assert lines(table.run())["Outcomes"] == "nothing was sent"
    idle = "succeeded, nothing to send"
    assert shown_states() == [idle, idle, "succeeded"]


def test_a_start_that_sends_nothing_says_that_the_bill_is_the_whole_runs(
    emulator: Emulator, tmp_path: Path
) -> None:
    """A stopped run that is started again shows its own time, and that it paid for nothing."""
    table = Table(tmp_path, emulator, "anthropic", rows=20)
    emulator.control.faults(kind="request_refusal")
    first = table.run()
    assert first.result == "no_usable_answer"
    assert "This start" not in lines(first)
    again = table.run()
    assert again.cost_usd == first.cost_usd
    told = lines(again)
    assert told["This start"] == ("sent and landed nothing; the figures below are of the whole run")
    assert "since the run began" in told["Time"]
    assert again.this_start is not None
    assert (again.this_start["batches"], float(again.this_start["cost_usd"])) == (0, 0)
    emulator.control.clear_faults()
    mended = table.run(Options(retry_failed=True))
    assert "This start" not in lines(mended)
    assert mended.this_start is not None
    assert mended.this_start["outcomes"] == mended.outcomes == {"succeeded": 20}
    assert mended.this_start["cost_usd"] == mended.cost_usd


def test_a_start_that_carries_a_run_on_tells_its_own_part(table: Table) -> None:
    """What it sent, landed and paid stands beside the whole run's figures."""
    first = [True]

    def is_second(_: object) -> bool:
        return not first or bool(first.clear())

    spec: dict[str, Any] = {"items_per_batch": 1, "max_parallel_batches": 1}
    with pytest.raises(KeyboardInterrupt):
        run_with(table, stopping_at("submit", is_second, KeyboardInterrupt()), **spec)
    receipt = table.run(**spec)
    assert receipt.continued
    assert (receipt.batches, receipt.outcomes) == (ROWS, {"succeeded": ROWS})
    assert receipt.this_start is not None
    assert receipt.this_start["batches"] == ROWS - 1
    assert receipt.this_start["outcomes"] == {"succeeded": ROWS - 1}
    assert float(receipt.this_start["cost_usd"]) < float(receipt.cost_usd or 0)
    assert lines(receipt)["This start"].startswith("sent 2 batches, landed 2 succeeded, for $")


def test_rows_that_fail_again_in_a_later_start_count_in_that_start(table: Table) -> None:
    """Trouble of the account that goes on is no start that landed nothing."""
    table.emulator.control.faults(kind="request_no_credit")
    table.run()
    receipt = table.run()
    assert receipt.outcomes == {"errored": ROWS}
    assert receipt.this_start is not None
    assert receipt.this_start["outcomes"] == {"errored": ROWS}
    assert receipt.this_start["batches"] == 1
