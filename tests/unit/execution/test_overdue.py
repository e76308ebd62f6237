"""Batches that never end: how long they are waited for, and what becomes of them."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

import pytest

from batchata_tasks.common.errors import TerminalError
from batchata_tasks.execution.overdue import Wait
from batchata_tasks.ledger import ChunkState
from tests.support.books import all_chunks, check_money, money, opened
from tests.support.operations import preview
from tests.support.stuck import STUCK, a_day_later, add_rows, left_overdue, limited, stick, told
from tests.support.unclear import in_state

if TYPE_CHECKING:
    from tests.support.table import Table

pytestmark = pytest.mark.in_turn

ROWS = 4


@pytest.fixture(autouse=True)
def _short_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BATCHATA_PATIENCE", "0.3")
    monkeypatch.setenv("BATCHATA_CANCEL_GRACE", "0.2")


@pytest.mark.parametrize("which", STUCK)
def test_a_run_ends_although_its_cancelled_batch_does_not(table: Table, which: str) -> None:
    """A batch that ignores or refuses its cancel is waited for as long as the grace says.

    The run then ends as its limit says, names the batch and what can be done, and keeps the money
    reserved. A plan counts its rows as in flight.
    """
    stick(table, which)
    receipt, notes = told(table, limited())
    (batch,) = [line["id"] for line in table.ledger()["batches"]]
    assert (receipt.result, receipt.exit_code) == ("time_limit_reached", 5)
    assert (receipt.held_rows, receipt.outcomes, receipt.unsent_rows) == (ROWS, {}, 0)
    for texts in (receipt.warnings, notes):
        (text,) = [text for text in texts if "reconcile" in text]
        assert batch in text
        assert "4 rows are held" in text
        assert f"`batchata reconcile --abandon {batch}`" in text
    assert in_state(ChunkState.OVERDUE) == [all_chunks()[0].id]
    assert money(table).reserved == all_chunks()[0].bound
    assert preview(table.spec()).summary.in_flight == ROWS


@pytest.mark.parametrize("which", STUCK)
def test_new_rows_go_on_and_the_old_ones_land_if_their_batch_ends_after_all(
    table: Table, which: str
) -> None:
    """The next run sends new rows only; the one after the end lands the old ones first."""
    batch = left_overdue(table, which)
    add_rows(table, 2)
    receipt, notes = told(table)
    assert (receipt.exit_code, receipt.held_rows) == (3, ROWS)
    assert (receipt.outcomes, receipt.plan["in_flight"]) == ({"succeeded": 2}, ROWS)
    assert any(f"batch {batch} of an earlier run has not ended yet" in text for text in notes)
    table.emulator.control.finish(batch)
    receipt, notes = told(table)
    assert (receipt.exit_code, receipt.held_rows, receipt.plan["up_to_date"]) == (0, 0, ROWS + 2)
    assert any(f"batch {batch} of an earlier run has ended" in text for text in notes)
    assert table.ledger()["requests_accepted"] == ROWS + 2
    assert len(table.rows()) == ROWS + 2
    table.check_answers()
    check_money(table)


@pytest.mark.parametrize("proof", ["listed", "unproven"])
def test_an_overdue_batch_that_is_not_found_is_sought_in_the_list_at_once(
    table: Table, monkeypatch: pytest.MonkeyPatch, proof: str
) -> None:
    """A later run does not ask again and again for what a list shows, or leaves open.

    It goes on with the other rows, and the batch stays held.
    """
    batch = left_overdue(table)
    control = table.emulator.control
    control.faults(kind="not_found", route="get")
    if proof == "unproven":
        control.faults(kind="lists_unproven")
        control.faults(kind="list_empty")
    monkeypatch.setenv("BATCHATA_PATIENCE", "0.05")  # shorter than the first pause
    receipt, notes = told(table)
    assert (receipt.held_rows, receipt.batches) == (ROWS, 0)
    assert not any("Trying again" in note for note in notes)
    words = "has not ended yet" if proof == "listed" else "is not found, and the list of batches"
    assert any(batch in note and words in note for note in notes)
    assert in_state(ChunkState.OVERDUE) == [all_chunks()[0].id]


def test_another_spec_lands_what_an_earlier_one_left(table: Table) -> None:
    """An overdue batch lands under the spec that sent it; a changed prompt then sends it anew."""
    batch = left_overdue(table)
    plan = preview(table.spec(prompt="Other: {{ text }}")).summary
    assert (plan.in_flight, plan.held, plan.requests) == (ROWS, ROWS, 0)
    assert table.run(prompt="Other: {{ text }}").plan["in_flight"] == ROWS
    table.emulator.control.finish(batch)
    receipt = table.run(prompt="Other: {{ text }}")
    assert receipt.plan["reasons"] == {"prompt": ROWS}
    assert receipt.exit_code == 0
    check_money_of_superseded(table)


def check_money_of_superseded(table: Table) -> None:
    sums = money(table)
    assert sums.superseded > 0
    check_money(table)


def test_a_batch_that_is_past_its_time_is_not_waited_for(
    table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without any limit, a batch is given up once it should have expired, and the grace is over."""
    a_day_later(monkeypatch)
    stick(table)
    receipt, notes = told(table)
    assert (receipt.result, receipt.exit_code) == ("some_rows_failed", 3)
    assert receipt.held_rows == ROWS
    assert any("after it was to expire" in text for text in notes)


def test_the_grace_does_not_begin_anew_with_each_process(
    table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that is killed while it waits leaves the rest of the grace to the next one."""
    monkeypatch.setenv("BATCHATA_CANCEL_GRACE", "600")
    stick(table)

    def killed(_wait: Wait) -> float:
        raise KeyboardInterrupt

    with monkeypatch.context() as dying:
        dying.setattr(Wait, "left", killed)
        with pytest.raises(KeyboardInterrupt):
            told(table, limited())
    (path,) = (table.output / "_batchata/intents").glob("*.json")
    intent = json.loads(path.read_text())
    assert time.time() - intent["cancel_asked_at_us"] / 1e6 < 60
    path.write_text(json.dumps(intent | {"cancel_asked_at_us": intent["sent_at_us"] - 601 * 10**6}))
    assert table.run().held_rows == ROWS
    with opened() as ledger:
        assert [chunk.state for chunk in ledger.chunks_in(["overdue"])] == ["overdue"]


def test_a_status_that_nobody_knows_is_told_once(table: Table) -> None:
    """Its word is told once, however often it comes, and the batch is waited for."""
    table.emulator.control.progress("reads", 4)
    table.emulator.control.faults(kind="odd_objects", style="unknown_status", word="Pondering")
    receipt, notes = told(table)
    assert receipt.exit_code == 0
    assert [note for note in notes if "not known" in note and "'pondering'" in note] == [
        note for note in notes if "not known" in note
    ]
    assert sum("not known" in note for note in notes) == 1


def test_results_count_as_the_end_whatever_the_status_says(table: Table) -> None:
    """A batch whose end has a name that nobody knows lands once its results are there."""
    table.emulator.control.faults(kind="odd_objects", style="unknown_end", word="Blorped")
    assert table.run().outcomes == {"succeeded": ROWS}
    check_money(table)


# --- looks that are refused for good --------------------------------------------------------------


@pytest.mark.parametrize("status", [401, 403])
def test_a_batch_that_alone_is_refused_is_named(
    table: Table, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    """While it is waited for, the run ends with what to do; then new rows go on without it."""
    control = table.emulator.control
    control.progress("reads", 2)
    control.faults(kind="list_empty")
    control.faults(kind="http_error", route="get", status=status)
    batch = ""
    for _ in range(2):
        with pytest.raises(TerminalError) as refused:
            table.run()
        (batch,) = [line["id"] for line in table.ledger()["batches"]]
        assert f"HTTP {status}" in str(refused.value)
        assert f"this may concern batch {batch} alone" in str(refused.value)
        assert f"`batchata reconcile --abandon {batch}`" in str(refused.value)
    a_day_later(monkeypatch)
    receipt = table.run()
    assert (receipt.exit_code, receipt.held_rows) == (3, ROWS)
    assert f"`batchata reconcile --abandon {batch}`" in receipt.warnings[0]
    control.clear_faults()
    add_rows(table, 1)
    control.progress("immediate")
    assert table.run().exit_code == 0
    assert len(table.rows()) == table.ledger()["requests_accepted"] == ROWS + 1


@pytest.mark.parametrize("status", [400, 401, 403, 410, 422])
def test_a_batch_that_is_refused_is_read_from_the_list(table: Table, status: int) -> None:
    """Where the list of batches shows it, it is waited for by that, and lands."""
    table.emulator.control.faults(kind="http_error", route="get", status=status)
    assert table.run().outcomes == {"succeeded": ROWS}
    assert table.ledger()["batches_accepted"] == 1


def test_a_key_that_is_refused_everywhere_ends_the_run(table: Table) -> None:
    """Then it is the key, and no batch is named."""
    control = table.emulator.control
    control.faults(kind="http_error", route="get", status=401)
    control.faults(kind="http_error", route="list", status=401, nth=2, count=9)
    control.faults(kind="http_error", route="list", status=401, nth=3, count=9)
    with pytest.raises(TerminalError, match="check the key") as refused:
        table.run()
    assert "alone" not in str(refused.value)


@pytest.mark.parametrize("status", [400, 403])
def test_an_overdue_batch_that_is_refused_keeps_no_other_from_landing(
    table: Table, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    """Each overdue batch is asked for, whatever is answered about one before it."""
    first = left_overdue(table)
    add_rows(table, 1)
    stick(table)
    told(table, limited())
    control = table.emulator.control
    control.clear_faults()
    for batch in (line["id"] for line in table.ledger()["batches"]):
        control.finish(batch)
    control.faults(kind="list_empty")
    control.faults(kind="http_error", route="get", status=status, count=1)
    receipt, notes = told(table)
    assert (receipt.held_rows, len(table.rows())) == (ROWS, 1)
    assert any(first in note and "--abandon" in note for note in notes)
