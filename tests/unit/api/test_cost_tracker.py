"""CostTracker: exact, shared by name, and of the same money as the guard's."""

from __future__ import annotations

import math
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest

from batchata_tasks.api.cost_tracker import CostTracker
from batchata_tasks.common.errors import SpecError
from batchata_tasks.common.money import PICO
from batchata_tasks.ledger import (
    BudgetTerms,
    Ledger,
    OutcomeTotals,
    RemainingBudget,
)
from batchata_tasks.spec.parts import Budget
from tests.support.chunks import planned_chunk
from tests.support.commands import start

if TYPE_CHECKING:
    from tests.support.ledgers import Databases

RUN: dict[str, Any] = {"name": "n", "spec": "{}", "spec_digest": "s" * 64}


def test_a_tracker_counts_exactly(databases: Databases) -> None:
    """Ten times 0.1 is one dollar, however the amounts are written.

    What remains is never below zero.
    """
    tracker = CostTracker("1.05", ledger_url=databases.new())
    for amount in (0.1, "0.1", Decimal("0.1"), 0.3, 0.4):
        assert tracker.can_afford(amount)
        tracker.track_spend(amount)
    assert (tracker.remaining_usd, tracker.remaining(), tracker.limit_usd) == (
        Decimal("0.05"),
        0.05,
        1.05,
    )
    assert tracker.can_afford("0.05")
    assert not tracker.can_afford("0.050000000001")
    assert not tracker.can_afford("0.0500000000001")  # finer than a picodollar
    tracker.track_spend(2)
    assert tracker.get_stats() == {
        "limit_usd": 1.05,
        "spent_usd": 3.0,
        "in_flight_usd": 0.0,
        "remaining_usd": 0.0,
        "entries": 6,
    }


def test_without_a_name_each_tracker_counts_for_itself(databases: Databases) -> None:
    """A tracker without a limit affords everything and still counts."""
    url = databases.new()
    one, other = CostTracker(1, ledger_url=url), CostTracker(ledger_url=url)
    one.track_spend(1)
    assert (other.limit_usd, other.remaining(), other.can_afford(1_000_000)) == (None, None, True)
    other.track_spend(5)
    assert (one.get_stats()["spent_usd"], other.get_stats()["spent_usd"]) == (1.0, 5.0)


def test_a_name_is_a_shared_budget(databases: Databases) -> None:
    """Trackers of one name share limit and spend; the limit may be omitted."""
    url = databases.new()
    with pytest.raises(SpecError, match="no budget named 'night'; give its `limit_usd`"):
        CostTracker(name="night", ledger_url=url)
    first = CostTracker(2, name="night", ledger_url=url)
    second = CostTracker(name="night", ledger_url=url)
    first.track_spend(0.5)
    second.track_spend(0.25)
    assert first.get_stats() == second.get_stats()
    assert (second.limit_usd, second.remaining(), second.get_stats()["entries"]) == (2.0, 1.25, 2)


def test_a_tracker_changes_no_limit(databases: Databases) -> None:
    """A limit other than the budget's is refused, whoever set the budget's.

    It changes when it is set by hand, and programs with the old limit continue under the new one.
    """
    url = databases.new()
    first, ledger = CostTracker(2, name="night", ledger_url=url), Ledger(url)
    with pytest.raises(
        SpecError,
        match=(
            r"^budget: a CostTracker gives 'night' \$2.00 in total .* and this gives it \$3.00 "
            r".* `batchata costs --set-budget night=USD`\.$"
        ),
    ):
        CostTracker(3, name="night", ledger_url=url)
    assert first.limit_usd == 2
    ledger.set_budget("night", 3 * PICO)
    assert [
        CostTracker(limit, name="night", ledger_url=url).limit_usd for limit in (2, 3, None)
    ] == [3, 3, 3]
    other = r"^budget: the ledger gives 'night' \$3.00 .* and this gives it \$4.00"
    with pytest.raises(SpecError, match=other):
        CostTracker(4, name="night", ledger_url=url)
    ledger.close()


def test_a_budget_of_a_spec_keeps_its_terms(databases: Databases) -> None:
    """A tracker takes the spec's limit and period as they are; other terms are refused."""
    url = databases.new()
    ledger = Ledger(url)
    ledger.agree_budget(BudgetTerms("night", 2 * PICO, "day", "UTC"), "topics")
    tracker = CostTracker(2, name="night", ledger_url=url)
    tracker.track_spend(0.5)
    assert ledger.budget_money(BudgetTerms("night", 2 * PICO, "day", "UTC")) == (PICO // 2, 0)
    other = r"the spec topics gives 'night' \$2.00 a day .* and this gives it \$3.00 a day"
    with pytest.raises(SpecError, match=other):
        CostTracker(3, name="night", ledger_url=url)
    CostTracker(1, name="own", ledger_url=url)
    with pytest.raises(SpecError, match="a CostTracker gives"):
        ledger.agree_budget(BudgetTerms("own", PICO, "month", "UTC"), "topics")
    ledger.close()


def test_the_guard_and_a_tracker_spend_from_one_limit(databases: Databases) -> None:
    """A run cannot reserve what a tracker spent.

    A tracker cannot afford what a run has in flight or has spent.
    """
    url = databases.new()
    tracker = CostTracker(1, name="night", ledger_url=url)
    ledger = Ledger(url)
    terms = BudgetTerms("night", PICO, "total", "UTC")
    tracker.track_spend(0.4)
    lease = ledger.acquire_lease(ledger.dataset_id("file:///d", None), 3600)
    run = ledger.begin_run(lease, RUN)
    chunks = [
        planned_chunk(f"c{n}", run, lease.dataset_id, range(n, n + 1), bytes=1, bound=PICO // 2)
        for n in range(2)
    ]
    ledger.fix_plan(lease, run, {}, chunks)
    assert ledger.reserve(lease, chunks[0], None, terms) is None
    assert ledger.reserve(lease, chunks[1], None, terms) == RemainingBudget(None, PICO // 10)
    assert (
        tracker.can_afford(0.1),
        tracker.can_afford(0.11),
        tracker.get_stats()["in_flight_usd"],
    ) == (True, False, 0.5)
    ledger.collect(lease, chunks[0], {"succeeded": OutcomeTotals(1, cost=PICO // 5)}, 0)
    assert tracker.get_stats() == {
        "limit_usd": 1.0,
        "spent_usd": 0.6,
        "in_flight_usd": 0.0,
        "remaining_usd": 0.4,
        "entries": 1,
    }
    assert ledger.money(run) == (PICO // 5, 0)
    ledger.close()


def test_threads_and_processes_lose_nothing(databases: Databases) -> None:
    """Eight threads of one tracker and another process spend at once: every cent is counted."""
    url = databases.new()
    tracker, gate = CostTracker(10, name="night", ledger_url=url), threading.Barrier(8)

    def spend(_: int) -> None:
        gate.wait()
        for _ in range(3):
            tracker.track_spend("0.01")

    code = (
        "import sys; from batchata_tasks.api.cost_tracker import CostTracker\nfor _ in range(5): "
        "CostTracker(name='night', ledger_url=sys.argv[1]).track_spend('0.01')"
    )
    with start("-c", code, url) as other, ThreadPoolExecutor(8) as pool:
        list(pool.map(spend, range(8)))
        assert other.wait().returncode == 0
    assert tracker.remaining_usd == Decimal("9.71")
    assert tracker.get_stats()["entries"] == 29


@pytest.mark.parametrize("amount", [-1, "-0.01", math.nan, math.inf, "much", "", 1_000_001])
def test_what_is_no_amount_is_refused(amount: Any) -> None:
    """A negative, infinite or unreadable amount changes nothing, wherever it is given."""
    with pytest.raises(SpecError, match=r"^limit_usd: .* is not an amount"):
        CostTracker(amount)
    tracker = CostTracker(1)
    for call in (tracker.can_afford, tracker.track_spend):
        with pytest.raises(SpecError, match=r"^cost_usd: .* is not an amount"):
            call(amount)
    assert tracker.get_stats()["entries"] == 0


@pytest.mark.parametrize("name", ["", "a b", "-a", "a" * 101, "a\n"])
def test_what_names_no_budget_is_refused(name: str) -> None:
    """A tracker's name follows the rules of a budget's name in a spec."""
    with pytest.raises(SpecError, match=r"^name: "):
        CostTracker(1, name=name)


def test_the_period_of_a_budget_is_its_makers(databases: Databases) -> None:
    """A budget keeps the period of whoever made it.

    A tracker's budget is for all time, so a spec without a period (a month) is refused; a spec's
    budget stays monthly.
    """
    spec = Budget.model_validate({"name": "night", "limit_usd": 20}).terms()
    url, other = databases.new(), databases.new()
    CostTracker(20, name="night", ledger_url=url)
    with closing(Ledger(url)) as ledger:
        with pytest.raises(
            SpecError,
            match=(
                r"a CostTracker gives 'night' \$20\.00 in total \(UTC\), "
                r"and this gives it \$20\.00 a month"
            ),
        ):
            ledger.agree_budget(spec, "table")
        ledger.agree_budget(replace(spec, period="total"), "table")
    with closing(Ledger(other)) as ledger:
        ledger.agree_budget(spec, "table")
        CostTracker(20, name="night", ledger_url=other)
        assert [terms.period for terms in ledger.budgets()] == ["month"]
