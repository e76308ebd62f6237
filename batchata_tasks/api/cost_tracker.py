"""CostTracker: money that a program spends outside of runs, counted in the same ledger."""

from __future__ import annotations

import re
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from batchata_tasks.common.errors import SpecError
from batchata_tasks.common.money import stated, usd
from batchata_tasks.common.settings import Settings
from batchata_tasks.ledger import BudgetStatus, Ledger, new_id
from batchata_tasks.spec.parts import BUDGET_NAME

if TYPE_CHECKING:
    from collections.abc import Generator
    from decimal import Decimal


class CostTracker:
    """Counts what is spent against a limit, in US dollars; safe to use from many threads and processes.

    With a `name` it is the shared budget of that name: every tracker and every run whose spec names
    it spends from the same limit, in the budget's own period. Where there is no such budget yet,
    `limit_usd` makes one for all time: its period is `total`, and not `month`, which is what a spec
    means that names none. Such a spec is refused then; it says `period: total`, or makes the budget first,
    and the tracker takes its period. No tracker changes a limit (`batchata costs --set-budget` does).
    Without a name a tracker counts for itself alone, for all time.

    What binds runs is their guard, which reserves the most that a batch can cost before it is sent.
    A tracker only asks and records: between `can_afford` and `track_spend` another process may spend.

    Raises:
        SpecError: the name or the limit is none, the ledger knows no such budget and no limit is
            given, or the budget has another limit.
        LedgerError: the ledger cannot be used; so do all methods.
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
        self._url = ledger_url or Settings().ledger_url
        if name is not None:
            if re.fullmatch(BUDGET_NAME, name) is None:
                message = f"name: {name!r} cannot name a budget; write letters, digits, dots, dashes and underscores, at most 100."
                raise SpecError(message)
            with self._ledger() as ledger:
                ledger.open_budget(name, self._limit)

    @property
    def limit_usd(self) -> float | None:
        """The limit at present, in US dollars; None where there is none."""
        limit = self._now().limit
        return None if limit is None else float(usd(limit))

    @property
    def remaining_usd(self) -> Decimal | None:
        """What is left, exactly: of the limit, less what is spent or in flight; 0 once it is exceeded, None without a limit."""
        left = _left(self._now())
        return None if left is None else usd(left)

    def remaining(self) -> float | None:
        """Return what is left in US dollars; see `remaining_usd`."""
        left = self.remaining_usd
        return None if left is None else float(left)

    def can_afford(self, cost_usd: float | str | Decimal) -> bool:
        """Whether so many US dollars are left at this moment. Nothing is reserved."""
        cost, left = stated(cost_usd, "cost_usd", up=True), _left(self._now())
        return left is None or cost <= left

    def track_spend(self, cost_usd: float | str | Decimal) -> None:
        """Record that so many US dollars were spent, also where they exceed the limit: they are spent."""
        cost = stated(cost_usd, "cost_usd", up=True)
        with self._ledger() as ledger:
            ledger.spend(self._scope, cost, self._name)

    def get_stats(self) -> dict[str, Any]:
        """Return limit_usd, spent_usd, in_flight_usd, remaining_usd (floats, or None) and entries, as of one moment.

        `entries` counts what was recorded by `track_spend`; money in flight is that of runs.
        """
        now = self._now()
        amounts = {
            "limit_usd": now.limit,
            "spent_usd": now.spent,
            "in_flight_usd": now.in_flight,
            "remaining_usd": _left(now),
        }
        return {
            name: None if pico is None else float(usd(pico)) for name, pico in amounts.items()
        } | {"entries": now.entries}

    def _now(self) -> BudgetStatus:
        with self._ledger() as ledger:
            found = ledger.tracked(self._scope, self._name)
        return (
            found
            if self._name is not None
            else BudgetStatus(self._limit, found.spent, found.in_flight, found.entries)
        )

    @contextmanager
    def _ledger(self) -> Generator[Ledger, None, None]:
        # opened for each call: a tracker can be copied into other threads and processes, and needs no end
        ledger = Ledger(self._url)
        try:
            yield ledger
        finally:
            ledger.close()


def _left(now: BudgetStatus) -> int | None:
    return None if now.limit is None else max(now.limit - now.spent - now.in_flight, 0)
