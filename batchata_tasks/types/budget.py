"""The terms of a shared budget."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo


@dataclass(frozen=True, slots=True)
class BudgetTerms:
    """A shared budget: so many picodollars in each period, which begins by the clocks of `timezone`."""

    name: str
    limit: int
    period: str  # day, week, month or total
    timezone: str

    def start(self, moment: int) -> int:
        """Return when the period began that a moment lies in (microseconds since 1970); 0 where there is but one."""
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
