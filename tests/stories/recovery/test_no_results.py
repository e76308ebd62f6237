"""Batches that have ended, and whose results are not there."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from batchata_tasks.common.errors import SpecError
from batchata_tasks.execution import download
from batchata_tasks.operations.reconcile_report import ReconcileRequest
from tests.support.books import check_money
from tests.support.operations import reconcile
from tests.support.stuck import add_rows, told
from tests.support.table import MODELS, Table

if TYPE_CHECKING:
    from pathlib import Path

    from batchata_tasks.emulator import Emulator

pytestmark = pytest.mark.in_turn

ROWS = 3


@pytest.fixture(params=MODELS)
def table(
    request: pytest.FixtureRequest,
    emulator: Emulator,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Table:
    """Return a table of three rows; the results of its first batch are not found, for good."""
    monkeypatch.setenv("BATCHATA_PATIENCE", "0.1")
    monkeypatch.setattr(download, "_NO_LINES", 1)
    table = Table(tmp_path, emulator, request.param, ROWS)
    hide(table)
    return table


def hide(table: Table) -> None:
    for route in ("results", "content"):
        table.emulator.control.faults(kind="not_found", route=route)


def test_rows_whose_results_are_not_found_are_not_sent_again(table: Table) -> None:
    """They are held, the batch is named, new rows go on, and they land once results are there."""
    receipt, notes = told(table)
    (batch,) = [line["id"] for line in table.ledger()["batches"]]
    assert (receipt.exit_code, receipt.held_rows, receipt.outcomes) == (3, ROWS, {})
    assert any(f"{batch} has ended, and its results cannot be had" in note for note in notes)
    assert any(f"--abandon {batch}" in note for note in notes)
    assert table.run().held_rows == ROWS
    table.emulator.control.clear_faults()
    add_rows(table, 2)
    assert table.run().plan["up_to_date"] == ROWS
    assert table.ledger()["requests_accepted"] == ROWS + 2
    table.check_answers()
    check_money(table)


def test_a_batch_without_results_can_be_given_up(table: Table) -> None:
    """`--abandon` frees its rows, whose bound counts as spent; it refuses while results are there.

    What is given up is paid for again, since a person said so.
    """
    told(table)
    (batch,) = [line["id"] for line in table.ledger()["batches"]]
    table.emulator.control.clear_faults()
    with pytest.raises(SpecError, match="it has ended"):
        reconcile(ReconcileRequest(abandon=(batch,)))
    hide(table)
    assert reconcile(ReconcileRequest(abandon=(batch,))).abandoned == [batch]
    table.emulator.control.clear_faults()
    assert table.run().outcomes == {"succeeded": ROWS}
    assert table.ledger()["requests_accepted"] == 2 * ROWS


@pytest.mark.parametrize("status", [404, 403, 500])
def test_giving_up_a_batch_that_was_billed_says_so(table: Table, status: int) -> None:
    """An ended batch whose results cannot be had is given up, and that it was billed is said.

    It names what lands them if they come yet; it does not say that the batch may go on.
    """
    table.emulator.control.clear_faults()
    route = "results" if table.provider == "anthropic" else "content"
    table.emulator.control.faults(kind="http_error", route=route, status=status)
    table.run()
    (batch,) = [line["id"] for line in table.ledger()["batches"]]
    report = reconcile(ReconcileRequest(abandon=(batch,)))
    (note,) = [text for label, text in report.lines() if label == "Note"]
    assert f"batch {batch} has ended" in note
    assert "what ran of it was billed" in note
    assert "`batchata reconcile` says so, and how to land them" in note
    assert "may go on" not in note


def test_a_batch_that_names_no_results_is_not_sent_again(
    emulator: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A completed batch whose files are named too late is held until they are."""
    monkeypatch.setenv("BATCHATA_PATIENCE", "0.05")
    table = Table(tmp_path, emulator, "openai", ROWS)
    emulator.control.faults(kind="late_files", seconds=5, count=1)
    receipt, notes = told(table)
    assert (receipt.exit_code, receipt.held_rows) == (3, ROWS)
    assert any("names no results" in note for note in notes)
    emulator.control.advance(5)
    assert table.run().plan["up_to_date"] == ROWS
    assert table.ledger()["requests_accepted"] == ROWS
    check_money(table)
