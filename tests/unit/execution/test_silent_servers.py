"""Servers that leave a call without an answer: no run with a time limit waits for that for long."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from batchata_tasks.ledger import ChunkState
from batchata_tasks.providers import pace
from tests.support.books import check_money
from tests.support.stuck import told
from tests.support.table import TIME_TO_SEND
from tests.support.unclear import in_state

if TYPE_CHECKING:
    from tests.support.table import Table

pytestmark = pytest.mark.in_turn

FOR_EVER = 60


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pace, "SOON", 0.1)
    monkeypatch.setenv("BATCHATA_CANCEL_GRACE", "0.3")


def check_all_land(table: Table) -> None:
    """Check that the next run lands all rows, each paid for once."""
    table.emulator.control.clear_faults()
    (batch,) = [line["id"] for line in table.ledger()["batches"]]
    table.emulator.control.finish(batch)
    assert told(table)[0].held_rows == 0
    assert len(table.rows()) == len(table.values)
    assert table.ledger()["billed_twice"]["number"] == 0
    check_money(table)


@pytest.mark.parametrize(
    ("kind", "cancel"), [("slow_after", "answered"), ("slow_after", "silent"), ("drip", "silent")]
)
def test_a_time_limit_ends_a_look_without_an_answer(table: Table, kind: str, cancel: str) -> None:
    """The limit is seen although nothing answers; the batch is asked to cancel, and set aside."""
    control = table.emulator.control
    control.faults(kind="never_ends", count=1)
    control.faults(kind="cancel_ignored")
    control.faults(kind=kind, route="get", seconds=FOR_EVER)
    seconds = FOR_EVER if cancel == "silent" else 0
    control.faults(kind=kind, route="cancel", seconds=seconds)
    receipt, notes = told(table, time_limit=TIME_TO_SEND)
    assert (receipt.result, receipt.exit_code) == ("time_limit_reached", 5)
    assert in_state(ChunkState.OVERDUE)
    assert any("cancelling batch" in note for note in notes)
    assert any("could not be cancelled yet" in note for note in notes) is (cancel == "silent")
    assert all(rule["strikes"] for rule in control.list_faults())
    check_all_land(table)


@pytest.mark.parametrize("route", ["upload", "list"])
def test_a_time_limit_ends_what_comes_before_a_create(openai: Table, route: str) -> None:
    """An upload or a list that is not answered is given up, and nothing is sent."""
    openai.emulator.control.faults(kind="slow_after", route=route, seconds=FOR_EVER)
    receipt, _ = told(openai, time_limit="0.6s")
    assert (receipt.result, receipt.exit_code) == ("time_limit_reached", 5)
    assert openai.ledger()["batches"] == []


def test_a_create_that_was_sent_is_waited_for_beyond_the_time_limit(table: Table) -> None:
    """It may be accepted: it is not given up, which would leave it in doubt."""
    table.emulator.control.faults(kind="slow_after", route="create", seconds=4)
    receipt, _ = told(table, time_limit=TIME_TO_SEND)
    assert (receipt.result, in_state(ChunkState.UNCLEAR)) == ("time_limit_reached", [])
    assert table.ledger()["batches_accepted"] == 1


def test_a_wait_within_a_wait_is_no_longer() -> None:
    """Limits nest: the shorter one counts, and the longer one again after it."""
    with pace.within(1000):
        with pace.within(0):
            left = pace.timeouts({"read": 150.0, "write": None})
            assert all(most is not None and most <= pace.SOON for most in left.values())
        assert pace.timeouts({"read": 150.0}) == {"read": 150.0}
    assert pace.timeouts({"read": None}) == {"read": None}
