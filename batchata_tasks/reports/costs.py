"""`batchata costs`: what was spent, reserved and saved, by spec, budget, model or day.

Sums are whole picodollars. Batches without a known price are left out of them and counted apart.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

from batchata_tasks.common.clock import now_us
from batchata_tasks.common.errors import SpecError
from batchata_tasks.common.money import exact, per_row, stated
from batchata_tasks.ledger import BudgetTerms, LedgerTotals, OutcomeTotals, opened_ledger

if TYPE_CHECKING:
    from collections.abc import Iterable

    from batchata_tasks.common.settings import Settings
    from batchata_tasks.ledger import Spending

_DAYS = 30


@dataclass
class Group:
    """One line: the money of a spec, a budget, a model, a day or a dataset, or the total.

    Amounts are in picodollars.
    """

    name: str | None  # None for the money that belongs to no spec, budget or model
    runs: set[str] = field(default_factory=set[str])
    batches: int = 0
    unpriced: int = 0  # batches that are in no sum, because their model's price is unknown
    priced: int = 0
    expected: int | None = 0
    totals: LedgerTotals = field(default_factory=LedgerTotals)
    by_hand: int = 0  # spent outside of runs
    priced_rows: int = 0
    outcomes: dict[str, OutcomeTotals] = field(default_factory=dict[str, OutcomeTotals])

    def add(self, spending: Spending) -> None:
        """Add the money of one chunk, or money that was spent outside of runs."""
        self.totals += spending.money
        self.priced += spending.priced
        if spending.name is None:
            self.by_hand += spending.money.settled
            return
        self.runs.add(spending.run_id)
        self.batches += spending.sent
        self.unpriced += not spending.priced
        unknown = self.expected is None or spending.expected is None
        self.expected = None if unknown else (self.expected or 0) + (spending.expected or 0)
        if spending.priced:
            self.priced_rows += sum(total.rows for total in spending.outcomes.values())
        for outcome, total in spending.outcomes.items():
            self.outcomes[outcome] = self.outcomes.get(outcome, OutcomeTotals()) + total

    @property
    def answers(self) -> OutcomeTotals:
        """Rows, tokens and prices of all answers."""
        return sum(self.outcomes.values(), OutcomeTotals(cost=0, list_cost=0))

    @property
    def amounts(self) -> dict[str, int | None]:
        """All amounts by name; None if unknown."""
        answers, totals = self.answers, self.totals
        amounts = {
            "expected": self.expected,
            "settled": totals.settled,
            "in_flight": totals.in_flight,
            "list_price": answers.list_cost,
            "saved": answers.saved,
            "cost_per_row": per_row(totals.settled - self.by_hand, self.priced_rows),
            "superseded": totals.superseded,
            "overhead": totals.overhead,
        }
        return amounts if self.priced else dict.fromkeys(amounts)

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values; money is exact decimal text in US dollars."""
        return {
            "name": self.name,
            "runs": len(self.runs),
            "batches": self.batches,
            "unpriced_batches": self.unpriced,
            "rows": self.answers.rows,
            "cached_share": self.answers.cached_share,
            **{f"{name}_usd": exact(amount) for name, amount in self.amounts.items()},
            "cost_by_outcome": {
                name: exact(total.cost) for name, total in sorted(self.outcomes.items())
            },
        }

    def dataset_json(self) -> dict[str, Any]:
        """Return where a dataset's money went.

        The settled amount is the sum of in_dataset, superseded, overhead and unlanded.
        """
        totals = self.totals
        amounts = {
            "settled": totals.settled,
            "in_dataset": totals.in_dataset,
            "superseded": totals.superseded,
            "overhead": totals.overhead,
            "unlanded": totals.unlanded,
            "in_flight": totals.in_flight,
        }
        return {"dataset": self.name, "unpriced_batches": self.unpriced} | {
            f"{name}_usd": exact(amount) if self.priced else None
            for name, amount in amounts.items()
        }


@dataclass(frozen=True)
class Period:
    """A period of a shared budget. Amounts in picodollars."""

    terms: BudgetTerms
    start: int  # microseconds since 1970; 0 if the budget has one period for all time
    totals: LedgerTotals

    @property
    def left(self) -> int:
        """What may still be reserved in it."""
        return max(self.terms.limit - self.totals.settled - self.totals.in_flight, 0)

    @property
    def first_day(self) -> str | None:
        """Its first day in the budget's time zone; None if it is the only period."""
        if not self.start:
            return None
        begin = datetime.fromtimestamp(self.start / 1e6, ZoneInfo(self.terms.timezone))
        return begin.date().isoformat()

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values; money is exact decimal text in US dollars."""
        return {
            "first_day": self.first_day,
            "spent_usd": exact(self.totals.settled),
            "in_flight_usd": exact(self.totals.in_flight),
        }


@dataclass(frozen=True)
class Costs:
    """What was spent since a moment."""

    by: str
    since: datetime
    groups: list[Group]
    total: Group
    budgets: list[list[Period]]  # the periods of each, the present one first
    rehearsed: list[list[Period]]  # likewise of budgets of rehearsals, which are in no other sum
    datasets: list[Group]  # of all time

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {
            "by": self.by,
            "since": self.since.isoformat(),
            "groups": [group.to_json() for group in self.groups],
            "total": self.total.to_json(),
            "budgets": [_budget_json(periods) for periods in self.budgets],
            "budgets_of_rehearsals": [_budget_json(periods) for periods in self.rehearsed],
            "datasets": [group.dataset_json() for group in self.datasets],
        }


def _budget_json(periods: list[Period]) -> dict[str, Any]:
    present, terms = periods[0], periods[0].terms
    facts = {
        "name": terms.plain_name,
        "period": terms.period,
        "timezone": terms.timezone,
        "limit_usd": exact(terms.limit),
    }
    past = [period.to_json() for period in periods[1:]]
    return facts | present.to_json() | {"left_usd": exact(present.left), "past": past}


def moment_of(days: int | None, since: str | None) -> datetime:
    """Return the midnight (UTC) from which money counts.

    Raises:
        SpecError: `since` is not a day, or both are given.
    """
    epoch = datetime.fromtimestamp(0, UTC)
    if since is None:
        now = datetime.fromtimestamp(now_us() // 10**6, UTC)
        midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
        return max(midnight - timedelta(days=(days or _DAYS) - 1), epoch)
    if days is not None:
        raise SpecError("--since, --days: give one of them.")
    try:
        day = datetime.strptime(since, "%Y-%m-%d").replace(tzinfo=UTC)
    except ValueError:
        message = f"--since {since}: write a day as YYYY-MM-DD."
        raise SpecError(message) from None
    return max(day, epoch)


def change_budget(text: str, settings: Settings) -> str:
    """Change a shared budget's limit, as `NAME=USD` says; return what that did, for people.

    Raises:
        SpecError: it is not of that form, or the ledger has no such budget.
    """
    name, sign, amount = text.partition("=")
    if not sign:
        message = f"--set-budget {text}: write it as NAME=USD, such as night=20."
        raise SpecError(message)
    limit = stated(amount, f"--set-budget {text}")
    with opened_ledger(settings.ledger_url) as ledger:
        changed = ledger.set_budget(name, limit)
    before, now = changed.before, changed.now
    done = f"budget {now.label!r}: {now.in_words()} from now on; it was {before.in_words()}."
    if now.is_of_rehearsals:
        done += f" It is of rehearsals alone: no real run has named {name!r} yet."
    elif changed.and_rehearsals:
        done += " That of its rehearsals has the same limit."
    if not changed.overruled:
        return f"{done} It holds {_UNTIL}."
    # a file is told once, whatever number of specs name it
    overruled = {
        terms.file or f"the spec {spec}": terms.in_words()
        for spec, terms in changed.overruled.items()
    }
    others = "; ".join(f"{who} ({words})" for who, words in overruled.items())
    return (
        f"{done} It overrules what is stated in {others}: runs go by the new limit, and say so, "
        f"{_UNTIL}."
    )


_UNTIL = "until all that share the budget state the same new limit, or it is set anew"


def gather(by: str, since: datetime, settings: Settings) -> Costs:
    """Read from the ledger what was reserved since a moment, and what it was spent on."""
    start = int(since.timestamp()) * 10**6
    with opened_ledger(settings.ledger_url) as ledger:
        everything = ledger.spending(0)
        budgets, rehearsed = (
            [
                _periods(terms, ledger.periods(terms), start)
                for terms in ledger.budgets(of_rehearsals=of_rehearsals)
            ]
            for of_rehearsals in (False, True)
        )
    recent = [spending for spending in everything if spending.at >= start]
    groups, total = _grouped(recent, by), Group("total")
    for spending in recent:
        total.add(spending)
    groups.sort(key=lambda group: group.name or "")
    if by != "day":
        groups.sort(key=lambda group: group.totals.settled, reverse=True)
    of_datasets = [spending for spending in everything if spending.dataset is not None]
    datasets = _grouped(of_datasets, "dataset")
    return Costs(by, since, groups, total, budgets, rehearsed, datasets)


def _grouped(spendings: Iterable[Spending], by: str) -> list[Group]:
    groups: dict[str | None, Group] = {}
    for spending in spendings:
        name = {
            "spec": spending.name,
            "model": spending.model,
            "budget": spending.budget,
            "dataset": spending.dataset,
            "day": datetime.fromtimestamp(spending.at / 1e6, UTC).date().isoformat(),
        }[by]
        groups.setdefault(name, Group(name)).add(spending)
    return list(groups.values())


def _periods(terms: BudgetTerms, sums: dict[int, LedgerTotals], since: int) -> list[Period]:
    """Return the present period, then earlier ones that began since a moment, newest first."""
    present = terms.start(now_us())
    past = [start for start in sorted(sums, reverse=True) if terms.start(since) <= start < present]
    return [Period(terms, start, sums.get(start, LedgerTotals())) for start in (present, *past)]
