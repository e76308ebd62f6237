"""The terms of a shared budget."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

from batchata_tasks.common.money import dollars

_REHEARSALS = "rehearsal:"  # no budget that a spec names begins so


@dataclass(frozen=True, slots=True)
class BudgetTerms:
    """A shared budget: at most `limit` picodollars per period, in the time of `timezone`.

    `file` names the file of budgets that states them; None if a spec does so itself. The same terms
    are equal wherever they stand.
    """

    name: str
    limit: int
    period: str  # day, week, month or total
    timezone: str
    file: str | None = field(default=None, compare=False)

    def of_rehearsals(self) -> BudgetTerms:
        """Return the same terms for rehearsals, whose money counts in a budget of their own."""
        return replace(self, name=name_of_rehearsals(self.name))

    @property
    def is_of_rehearsals(self) -> bool:
        """Whether only the money of rehearsals counts."""
        return is_of_rehearsals(self.name)

    @property
    def plain_name(self) -> str:
        """The name that a spec gives it."""
        return self.name.removeprefix(_REHEARSALS)

    @property
    def label(self) -> str:
        """The name for people, which tells a budget of rehearsals from that of real runs."""
        return f"{self.plain_name} (rehearsals)" if self.is_of_rehearsals else self.name

    def in_words(self) -> str:
        """Return the terms for people."""
        period = "in total" if self.period == "total" else f"a {self.period}"
        return f"{dollars(self.limit)} {period} ({self.timezone})"

    def start(self, moment: int) -> int:
        """Return when a moment's period began, both in microseconds since 1970; 0 for total."""
        if self.period == "total":
            return 0
        local = datetime.fromtimestamp(moment // 10**6, ZoneInfo(self.timezone))
        day = local.replace(hour=0, minute=0, second=0, microsecond=0, fold=0)
        first = {
            "day": day,
            "week": day - timedelta(days=day.weekday()),
            "month": day.replace(day=1),
        }[self.period]
        return int(first.timestamp()) * 10**6


def name_of_rehearsals(name: str) -> str:
    """Return the name under which the ledger keeps a budget's money of rehearsals."""
    return f"{_REHEARSALS}{name}"


def is_of_rehearsals(name: str) -> bool:
    """Whether the ledger keeps a budget's money of rehearsals under this name."""
    return name.startswith(_REHEARSALS)
