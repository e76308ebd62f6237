"""Money in the ledger's reports: by chunk, run and period, in sums of any size."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from io import StringIO
from typing import TYPE_CHECKING, Any

import pytest
from rich.console import Console

from batchata_tasks.common.errors import SpecError
from batchata_tasks.common.money import per_row
from batchata_tasks.ledger import (
    BudgetTerms,
    Ledger,
    LedgerTotals,
    OutcomeTotals,
    Spending,
)
from batchata_tasks.reports.costs import Costs, Group, moment_of
from batchata_tasks.reports.costs_table import print_costs
from tests.support.chunks import planned_chunk
from tests.support.operations import gather

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.ledgers import Databases

RUN: dict[str, Any] = {"name": "topics", "spec": "{}", "spec_digest": "s" * 64}
DAILY = BudgetTerms("night", 100, "day", "UTC")
HUGE = 2**62
NOW = datetime(2026, 11, 2, 23, 59, tzinfo=UTC)


class Run:
    """A run of four chunks of ten rows, in the ledger of the settings."""

    def __init__(self, url: str) -> None:
        self.ledger = Ledger(url)
        self.lease = self.ledger.acquire_lease(self.ledger.dataset_id("file:///d", None), 3600)
        self.id = self.ledger.begin_run(self.lease, RUN)
        self.chunks = [
            planned_chunk(
                f"c{n}",
                self.id,
                self.lease.dataset_id,
                range(n * 10, n * 10 + 10),
                provider="openai",
                bound=40,
                expected=20,
            )
            for n in range(4)
        ]
        self.ledger.fix_plan(self.lease, self.id, {}, self.chunks)

    def spend(
        self,
        number: int,
        tally: OutcomeTotals,
        *,
        overhead: int = 0,
        budget: BudgetTerms | None = None,
    ) -> None:
        self.ledger.reserve(self.lease, self.chunks[number], None, budget)
        self.ledger.collect(self.lease, self.chunks[number], {"succeeded": tally}, overhead)


@pytest.fixture
def run(databases: Databases, monkeypatch: pytest.MonkeyPatch) -> Iterator[Run]:
    url = databases.new()
    monkeypatch.setenv("BATCHATA_LEDGER_URL", url)
    made = Run(url)
    yield made
    made.ledger.close()


def test_each_chunk_is_told_with_its_rows(run: Run) -> None:
    """Each chunk is reported with its spec, its model and its rows, in flight, settled or landed.

    Chunks without a reservation are left out.
    """
    run.ledger.reserve(run.lease, run.chunks[0], None)
    run.spend(1, OutcomeTotals(10, 100, 20, 30, 25, 5, 50), overhead=3)
    run.spend(2, OutcomeTotals(10, 100, 20, 0, 30, 0, 60))
    run.ledger.land(run.lease, "c2", 7)
    flying, collected, landed = run.ledger.spending(0)
    assert [one.money for one in (flying, collected, landed)] == [
        LedgerTotals(in_flight=40),
        LedgerTotals(0, 28, 0, 3, 25),
        LedgerTotals(0, 30, 7, 0, 0),
    ]
    assert (landed.name, landed.model, landed.dataset, landed.run_id, landed.expected) == (
        "topics",
        "m",
        "file:///d",
        run.id,
        20,
    )
    assert collected.outcomes == {"succeeded": OutcomeTotals(10, 100, 20, 30, 25, 5, 50)}
    assert landed.money.in_dataset == 23
    assert run.ledger.spending(landed.at + 1) == []


def test_a_run_holds_no_money_for_what_it_did_not_send(run: Run) -> None:
    """Money that is only reserved is given back at the end of the run, so its books omit it."""
    run.ledger.reserve(run.lease, run.chunks[0], None)
    run.spend(1, OutcomeTotals(10, cost=25), overhead=3)
    assert run.ledger.run_totals(run.id) == LedgerTotals(0, 28, 0, 3, 25)


def test_sums_do_not_end_at_63_bits(run: Run) -> None:
    """More than nine million dollars are added up like any other amount."""
    for number in range(4):
        run.spend(
            number,
            OutcomeTotals(1, cost=HUGE, list_cost=HUGE + 1),
            budget=replace(DAILY, limit=8 * HUGE),
        )
        run.ledger.land(run.lease, f"c{number}", HUGE)
    assert run.ledger.run_totals(run.id) == LedgerTotals(0, 4 * HUGE, 4 * HUGE)
    assert sum(run.ledger.periods(DAILY).values(), LedgerTotals()).settled == 4 * HUGE
    total = gather("spec", moment_of(None, None)).to_json()["total"]
    assert (total["settled_usd"], total["list_price_usd"], total["saved_usd"]) == (
        "18446744.073709551616",
        "18446744.073709551620",
        "0.000000000004",
    )


def test_periods_of_a_budget(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """The present period comes with what remains of it, and earlier ones since the date given."""
    for days, number in ((3, 0), (1, 1), (0, 2)):
        at = int((NOW - timedelta(days=days)).timestamp()) * 10**6
        for module in ("ledger.money", "ledger.chunks", "ledger.budgets", "reports.costs"):
            monkeypatch.setattr(f"batchata_tasks.{module}.now_us", lambda at=at: at)
        run.spend(number, OutcomeTotals(10, cost=10 + number), budget=DAILY)
    run.ledger.agree_budget(DAILY, "topics")
    report = gather("day", moment_of(2, None)).to_json()
    (budget,) = report["budgets"]
    assert (budget["name"], budget["spent_usd"], budget["left_usd"]) == (
        "night",
        "0.000000000012",
        "0.000000000088",
    )
    assert [(one["first_day"], one["spent_usd"]) for one in budget["past"]] == [
        ((NOW - timedelta(days=1)).date().isoformat(), "0.000000000011")
    ]
    assert [(group["name"], group["settled_usd"]) for group in report["groups"]] == [
        ((NOW - timedelta(days=days)).date().isoformat(), amount)
        for days, amount in ((1, "0.000000000011"), (0, "0.000000000012"))
    ]
    assert report["datasets"][0]["settled_usd"] == "0.000000000033"  # of all time


def test_an_unknown_price_is_no_zero() -> None:
    """A line that is all unpriced is unknown; unpriced parts are counted beside the sums."""
    group = Group("topics")
    one = Spending(
        1,
        "r",
        "topics",
        "m",
        "file:///d",
        None,
        True,
        False,
        None,
        LedgerTotals(),
        {"succeeded": OutcomeTotals(5)},
    )
    group.add(one)
    assert {value for name, value in group.to_json().items() if name.endswith("_usd")} == {None}
    priced = Spending(
        1,
        "r",
        "topics",
        "m",
        "file:///d",
        None,
        True,
        True,
        9,
        LedgerTotals(settled=40),
        {"succeeded": OutcomeTotals(4, cost=40, list_cost=80)},
    )
    group.add(priced)
    line = group.to_json()
    assert (line["rows"], line["unpriced_batches"], line["settled_usd"]) == (
        9,
        1,
        "0.000000000040",
    )
    assert (line["saved_usd"], line["cost_per_row_usd"], line["expected_usd"]) == (
        "0.000000000040",
        "0.000000000010",
        None,
    )


def test_a_list_price_that_one_answer_lacks_is_unknown_in_the_sum() -> None:
    """If one answer has no list price, the sum has none, in any order.

    Ledgers of older versions stored none, and a sum of some answers would claim too much.
    """
    old = OutcomeTotals(1, cost=5)
    new = OutcomeTotals(1, cost=5, list_cost=10)
    none = OutcomeTotals(1)
    assert (old + new).list_cost is (new + old).list_cost is (old + new + new).saved is None
    assert (new + none + new).list_cost == 20


def test_the_average_is_rounded_once() -> None:
    """The cost of a row is the nearest picodollar; for no rows there is none."""
    assert [per_row(7, rows) for rows in (2, 3, 0)] == [4, 2, None]


@pytest.mark.parametrize("width", [60, 80, 120])
def test_the_table_fits_the_terminal(width: int) -> None:
    """Lines fit the terminal's width: names are cut and lesser columns left out.

    An amount is never cut.
    """
    books = LedgerTotals(123 * 10**9, 4_567 * 10**9, 0, 5)
    tallies = {"succeeded": OutcomeTotals(98_765, 10, 10, 5, 4_567 * 10**9, 0, 9_134 * 10**9)}
    groups = [
        Group(name, {"r"}, 12, 0, 1, 4_000 * 10**9, books, 0, 98_765, tallies)
        for name in ("a" * 50, "b")
    ]
    terminal = Console(file=(screen := StringIO()), width=width, force_terminal=True, no_color=True)
    print_costs(Costs("spec", moment_of(None, None), groups, groups[0], [], [], []), terminal)
    table = screen.getvalue().splitlines()[1:5]
    assert all(len(line) <= width + line.count("\x1b") * 4 for line in table)
    assert all("$4.57" in line for line in table[1:])
    pipe = Console(file=(piped := StringIO()), width=width)
    print_costs(Costs("spec", moment_of(None, None), groups, groups[0], [], [], []), pipe)
    assert "a" * 50 in piped.getvalue()
    assert "Overhead" in piped.getvalue()


def test_since_when(monkeypatch: pytest.MonkeyPatch) -> None:
    """Days include today and begin at midnight (UTC).

    A date and a number of days exclude each other.
    """
    monkeypatch.setattr("batchata_tasks.reports.costs.now_us", lambda: int(NOW.timestamp()) * 10**6)
    assert (moment_of(1, None), moment_of(2, None)) == (
        datetime(2026, 11, 2, tzinfo=UTC),
        datetime(2026, 11, 1, tzinfo=UTC),
    )
    assert moment_of(None, "2026-11-02") == datetime(2026, 11, 2, tzinfo=UTC)
    assert (
        moment_of(36_500, None) == moment_of(None, "0001-01-01") == datetime.fromtimestamp(0, UTC)
    )
    for days, since in ((1, "2026-11-02"), (None, "yesterday"), (None, "2026-11-31")):
        with pytest.raises(SpecError, match=r"^--since"):
            moment_of(days, since)
