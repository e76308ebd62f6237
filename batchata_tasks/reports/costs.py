"""`batchata costs`: what was spent, reserved and saved, by spec, budget, model or day.

Sums are whole picodollars. What has no known price is left out of them and counted beside them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

from batchata_tasks.common.clock import now_us
from batchata_tasks.common.errors import SpecError
from batchata_tasks.common.money import exact, per_row, stated
from batchata_tasks.common.settings import Settings
from batchata_tasks.ledger import BudgetTerms, Ledger, LedgerTotals, OutcomeTotals

if TYPE_CHECKING:
    from collections.abc import Iterable

    from batchata_tasks.ledger import Spending

_DAYS = 30


@dataclass
class Group:
    """One line: the money of a spec, a budget, a model, a day, a dataset, or of all. Amounts in picodollars."""

    name: str | None  # None for what belongs to no spec, budget or model
    runs: set[str] = field(default_factory=set[str])
    batches: int = 0
    unpriced: int = 0  # batches that no sum holds, since no price of their model is known
    priced: int = 0
    expected: int | None = 0
    books: LedgerTotals = field(default_factory=LedgerTotals)
    by_hand: int = 0  # spent outside of runs
    priced_rows: int = 0
    tallies: dict[str, OutcomeTotals] = field(default_factory=dict[str, OutcomeTotals])

    def add(self, one: Spending) -> None:
        """Count the money of one chunk."""
        self.books += one.books
        self.priced += one.priced
        if one.name is None:
            self.by_hand += one.books.settled
            return
        self.runs.add(one.run_id)
        self.batches += one.sent
        self.unpriced += not one.priced
        self.expected = (
            None if self.expected is None or one.expected is None else self.expected + one.expected
        )
        self.priced_rows += sum(tally.rows for tally in one.tallies.values()) if one.priced else 0
        for outcome, tally in one.tallies.items():
            self.tallies[outcome] = self.tallies.get(outcome, OutcomeTotals()) + tally

    @property
    def whole(self) -> OutcomeTotals:
        """Rows, tokens and prices of all answers."""
        return sum(self.tallies.values(), OutcomeTotals(cost=0, list_cost=0))

    @property
    def money(self) -> dict[str, int | None]:
        """All amounts by their names; None for what is not known."""
        whole, books = self.whole, self.books
        amounts = {
            "expected": self.expected,
            "settled": books.settled,
            "in_flight": books.in_flight,
            "list_price": whole.list_cost,
            "saved": whole.saved,
            "cost_per_row": per_row(books.settled - self.by_hand, self.priced_rows),
            "superseded": books.superseded,
            "overhead": books.overhead,
        }
        return amounts if self.priced else dict.fromkeys(amounts)

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values; money is exact decimal text in US dollars."""
        return {
            "name": self.name,
            "runs": len(self.runs),
            "batches": self.batches,
            "unpriced_batches": self.unpriced,
            "rows": self.whole.rows,
            "cached_share": self.whole.cached_share,
            **{f"{name}_usd": exact(amount) for name, amount in self.money.items()},
            "cost_by_outcome": {
                name: exact(self.tallies[name].cost) for name in sorted(self.tallies)
            },
        }

    def dataset_json(self) -> dict[str, Any]:
        """Return what became of a dataset's money: settled = in the dataset + superseded + overhead + unlanded."""
        books = self.books
        amounts = {
            "settled": books.settled,
            "in_dataset": books.in_dataset,
            "superseded": books.superseded,
            "overhead": books.overhead,
            "unlanded": books.unlanded,
            "in_flight": books.in_flight,
        }
        return {"dataset": self.name, "unpriced_batches": self.unpriced} | {
            f"{name}_usd": exact(amount) if self.priced else None
            for name, amount in amounts.items()
        }


@dataclass(frozen=True)
class Period:
    """A period of a shared budget. Amounts in picodollars."""

    terms: BudgetTerms
    start: int  # microseconds since 1970; 0 where there is but one
    books: LedgerTotals

    @property
    def left(self) -> int:
        """What may still be reserved in it."""
        return max(self.terms.limit - self.books.settled - self.books.in_flight, 0)

    @property
    def first_day(self) -> str | None:
        """The day on which it began, by the budget's clocks; None where there is but one."""
        return (
            datetime.fromtimestamp(self.start / 1e6, ZoneInfo(self.terms.timezone))
            .date()
            .isoformat()
            if self.start
            else None
        )

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values; money is exact decimal text in US dollars."""
        return {
            "first_day": self.first_day,
            "spent_usd": exact(self.books.settled),
            "in_flight_usd": exact(self.books.in_flight),
        }


@dataclass(frozen=True)
class Costs:
    """What was spent since a moment. `budgets` holds each budget's periods, the present one first; `datasets` are of all time."""

    by: str
    since: datetime
    groups: list[Group]
    total: Group
    budgets: list[list[Period]]
    datasets: list[Group]

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {
            "by": self.by,
            "since": self.since.isoformat(),
            "groups": [group.to_json() for group in self.groups],
            "total": self.total.to_json(),
            "budgets": [_budget_json(periods) for periods in self.budgets],
            "datasets": [group.dataset_json() for group in self.datasets],
        }


def _budget_json(periods: list[Period]) -> dict[str, Any]:
    present, terms = periods[0], periods[0].terms
    facts = {
        "name": terms.name,
        "period": terms.period,
        "timezone": terms.timezone,
        "limit_usd": exact(terms.limit),
    }
    return (
        facts
        | present.to_json()
        | {"left_usd": exact(present.left), "past": [period.to_json() for period in periods[1:]]}
    )


def moment_of(days: int | None, since: str | None) -> datetime:
    """Return the midnight (UTC) from which on money counts.

    Raises:
        SpecError: `since` is no day, or both are given.
    """
    if since is None:
        now = datetime.fromtimestamp(now_us() // 10**6, UTC)
        midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
        return max(midnight - timedelta(days=(days or _DAYS) - 1), datetime.fromtimestamp(0, UTC))
    if days is not None:
        raise SpecError("--since, --days: give one of them.")
    try:
        return max(
            datetime.strptime(since, "%Y-%m-%d").replace(tzinfo=UTC), datetime.fromtimestamp(0, UTC)
        )
    except ValueError:
        message = f"--since {since}: write a day as YYYY-MM-DD."
        raise SpecError(message) from None


def change_budget(text: str) -> None:
    """Change a shared budget's limit, as `NAME=USD` says.

    Raises:
        SpecError: it is not of that form, or the ledger knows no such budget.
    """
    name, sign, amount = text.partition("=")
    if not sign:
        message = f"--set-budget {text}: write it as NAME=USD, such as night=20."
        raise SpecError(message)
    limit = stated(amount, f"--set-budget {text}")
    ledger = Ledger(Settings().ledger_url)
    try:
        ledger.set_budget(name, limit)
    finally:
        ledger.close()


def gather(by: str, since: datetime) -> Costs:
    """Read from the ledger what was reserved since a moment, and what became of it."""
    start = int(since.timestamp()) * 10**6
    ledger = Ledger(Settings().ledger_url)
    try:
        everything = ledger.spending(0)
        budgets = [_periods(terms, ledger.periods(terms), start) for terms in ledger.budgets()]
    finally:
        ledger.close()
    recent = [one for one in everything if one.at >= start]
    groups, total = _grouped(recent, by), Group("total")
    for one in recent:
        total.add(one)
    groups.sort(
        key=lambda group: (
            (group.name or "") if by == "day" else (-group.books.settled, group.name or "")
        )
    )
    datasets = _grouped((one for one in everything if one.dataset is not None), "dataset")
    return Costs(by, since, groups, total, budgets, datasets)


def _grouped(spendings: Iterable[Spending], by: str) -> list[Group]:
    groups: dict[str | None, Group] = {}
    for one in spendings:
        name = {
            "spec": one.name,
            "model": one.model,
            "budget": one.budget,
            "dataset": one.dataset,
            "day": datetime.fromtimestamp(one.at / 1e6, UTC).date().isoformat(),
        }[by]
        groups.setdefault(name, Group(name)).add(one)
    return list(groups.values())


def _periods(terms: BudgetTerms, sums: dict[int, LedgerTotals], since: int) -> list[Period]:
    """Return the present period and, newest first, those before it that began since a moment."""
    present = terms.start(now_us())
    past = [start for start in sorted(sums, reverse=True) if terms.start(since) <= start < present]
    return [Period(terms, start, sums.get(start, LedgerTotals())) for start in (present, *past)]
