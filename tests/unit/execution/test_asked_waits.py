"""Waits that a provider asks for: never beyond patience, nor beyond a run's time limit."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from batchata_tasks.common.errors import TransientError
from batchata_tasks.pipeline.enrich import enrich
from batchata_tasks.progress.listener import LineProgress
from tests.support.books import check_money

if TYPE_CHECKING:
    from tests.support.table import Table

pytestmark = pytest.mark.in_turn

DAYS = 432_000


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BATCHATA_PATIENCE", "600")


def test_no_wait_is_beyond_patience(table: Table) -> None:
    """A look that asks for days ends the run at once, and says so; the next start lands it."""
    table.emulator.control.faults(kind="http_429", route="get", retry_after=DAYS)
    notes = list[str]()
    with pytest.raises(TransientError):
        enrich(table.spec(), progress=LineProgress(notes.append))
    (text,) = [note for note in notes if "asked for" in note]
    assert "A wait of 432,000 s was asked for" in text
    table.emulator.control.clear_faults()
    assert table.run().outcomes["succeeded"] == len(table.values)
    assert table.ledger()["batches_accepted"] == 1


def check_limit_ends_the_wait(table: Table, route: str) -> None:
    table.emulator.control.faults(kind="http_429", route=route, retry_after=500)
    receipt = table.run(time_limit="0.6s")
    assert (receipt.result, receipt.exit_code) == ("time_limit_reached", 5)
    assert table.ledger()["batches"] == []
    check_money(table)


def test_no_wait_for_a_create_is_beyond_the_time_limit(table: Table) -> None:
    """A wait within patience ends at the time limit, and nothing is sent after it."""
    check_limit_ends_the_wait(table, "create")


def test_no_wait_for_an_upload_is_beyond_the_time_limit(openai: Table) -> None:
    """So does the wait for an upload, which is not asked for again either."""
    check_limit_ends_the_wait(openai, "upload")
