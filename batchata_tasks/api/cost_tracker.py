"""CostTracker: money that a program spends outside of runs, counted in the same ledger."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from batchata_tasks.common.errors import SpecError
from batchata_tasks.common.money import stated, usd
from batchata_tasks.common.settings import Settings
from batchata_tasks.ledger import BudgetStatus, new_id, opened_ledger
from batchata_tasks.spec.parts import BUDGET_NAME

if TYPE_CHECKING:
    from decimal import Decimal


class CostTracker:
    """Counts spending against a limit, in US dollars, also from many threads and processes.

    With a `name` it is the shared budget of that name: every tracker and every run whose spec names
    it spends from the same limit, in the budget's own period. If there is no such budget yet,
    `limit_usd` makes one for all time: its period is `total`. A spec that names no period means
    `month`, and is refused then: let it say `period: total`, or run it first, so that the tracker
    takes its period. No tracker changes a limit (`batchata costs --set-budget` does). Without a
    name a tracker counts for itself alone, for all time.

    The limits of runs are held by their guard, which reserves the most that a batch can cost before
    it is sent. A tracker only looks and records: between `can_afford` and `track_spend` another
    process may spend.

    Raises:
        SpecError: the name or the limit is invalid, the ledger has no such budget and no limit is
            given, or the budget has another limit.
        LedgerError: the ledger cannot be used. All methods raise it.
    """

    def __init__(
        self,
        limit_usd: float | str | Decimal | None = None,
        *,
        name: str | None = None,
        ledger_url: str | None = None,
    ) -> None:
        self._limit = None if limit_usd is None else stated(limit_usd, "limit_usd")
        self._name, self._scope = name, new_id()
        # the ledger is opened for each call, so that a tracker can be copied into other threads and
        # processes and needs no closing
        self._url = ledger_url or Settings().ledger_url
        if name is not None:
            if re.fullmatch(BUDGET_NAME, name) is None:
                message = (
                    f"name: {name!r} cannot name a budget; "
                    "write letters, digits, dots, dashes and underscores, at most 100."
                )
                raise SpecError(message)
            with opened_ledger(self._url) as ledger:
                ledger.open_budget(name, self._limit)

    @property
    def limit_usd(self) -> float | None:
        """The present limit, in US dollars; None without one."""
        limit = self._status().limit
        return None if limit is None else float(usd(limit))

    @property
    def remaining_usd(self) -> Decimal | None:
        """The limit less what is spent or in flight, exactly; 0 once it is exceeded.

        None without a limit.
        """
        remaining = _remaining(self._status())
        return None if remaining is None else usd(remaining)

    def remaining(self) -> float | None:
        """Return `remaining_usd` as a float."""
        remaining = self.remaining_usd
        return None if remaining is None else float(remaining)

    def can_afford(self, cost_usd: float | str | Decimal) -> bool:
        """Whether this amount remains at this moment. Nothing is reserved."""
        cost = stated(cost_usd, "cost_usd", up=True)
        remaining = _remaining(self._status())
        return remaining is None or cost <= remaining

    def track_spend(self, cost_usd: float | str | Decimal) -> None:
        """Record that this amount was spent, also if that exceeds the limit."""
        cost = stated(cost_usd, "cost_usd", up=True)
        with opened_ledger(self._url) as ledger:
            ledger.spend(self._scope, cost, self._name)

    def get_stats(self) -> dict[str, Any]:
        """Return limit_usd, spent_usd, in_flight_usd, remaining_usd and entries, as of one moment.

        The amounts are floats, or None without a limit. `entries` is the number of `track_spend`
        calls; money in flight is that of runs.
        """
        status = self._status()
        amounts = {
            "limit_usd": status.limit,
            "spent_usd": status.spent,
            "in_flight_usd": status.in_flight,
            "remaining_usd": _remaining(status),
        }
        dollars = {
            name: None if pico is None else float(usd(pico)) for name, pico in amounts.items()
        }
        return {**dollars, "entries": status.entries}

    def _status(self) -> BudgetStatus:
        with opened_ledger(self._url) as ledger:
            status = ledger.budget_status(self._scope, self._name)
        return status if self._name is not None else replace(status, limit=self._limit)


def _remaining(status: BudgetStatus) -> int | None:
    if status.limit is None:
        return None
    return max(status.limit - status.spent - status.in_flight, 0)
