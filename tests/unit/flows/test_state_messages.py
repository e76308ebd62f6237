"""The message of a flow run's state: what ended how, what was not sent, and why."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from batchata_tasks.common.money import dollars, pico_from_usd, usd
from batchata_tasks.flows.enrich import summary
from tests.support.operations import preview
from tests.support.table import Table

if TYPE_CHECKING:
    from pathlib import Path

    from batchata_tasks.emulator import Emulator

pytestmark = pytest.mark.in_turn


@pytest.fixture
def small(table: Table) -> float:
    """Return a limit, in US dollars, that is enough for some of the rows."""
    return float(usd((preview(table.spec()).summary.bound or 0) // 20))


def test_a_limit_is_named_with_what_it_left_unsent(table: Table, small: float) -> None:
    """Rows that landed, rows that were not sent, and the limit that kept them back."""
    receipt = table.run(cost_limit_usd=small)
    assert receipt.result == "cost_limit_reached"
    landed, unsent = receipt.outcomes["succeeded"], receipt.unsent_rows
    assert landed
    assert unsent
    limit = dollars(pico_from_usd(small))
    assert summary(receipt) == (
        f"{landed} succeeded; {unsent} rows not sent within the limit of {limit}"
    )


def test_a_budget_is_named(table: Table, small: float) -> None:
    """If the shared budget is used up, the message has its name, its limit and its period."""
    budget = {"name": "team", "limit_usd": small, "period": "month"}
    text = summary(table.run(budget=budget))
    limit = dollars(pico_from_usd(small))
    assert text.endswith(f" rows not sent within the budget team ({limit} this month)")


def test_rows_that_failed_for_good_are_told(emulator: Emulator, tmp_path: Path) -> None:
    """A run that sends nothing says why some rows count as failed all the same."""
    table = Table(tmp_path, emulator, "openai", rows=2)
    emulator.control.faults(kind="request_refusal", contains="row 1")
    table.run()
    assert summary(table.run()) == (
        "nothing to send; 1 row is not sent again, having failed for good or used up all attempts"
    )


def test_what_needs_no_limit(emulator: Emulator, tmp_path: Path) -> None:
    """Without a limit the outcomes are all there is to say; without rows, that."""
    table = Table(tmp_path, emulator, "openai", rows=2)
    assert summary(table.run()) == "2 succeeded"
    assert summary(table.run()) == "nothing to send"
