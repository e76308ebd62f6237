"""What cost limits would do to a plan: the guard played through with bounds and likely costs, nothing sent."""

from __future__ import annotations

from collections import deque
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from batchata_tasks.common.money import dollars, usd
from batchata_tasks.common.text import pluralize
from batchata_tasks.execution.guard import SMALLEST_SHARE
from batchata_tasks.planning.limits import SpendingLimits, budget_member, limits_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from batchata_tasks.ledger import Ledger
    from batchata_tasks.planning.packing import PlannedChunk
    from batchata_tasks.planning.summary import PlanSummary
    from batchata_tasks.spec.run import RunSpec


@dataclass
class Prospect:
    """How far a first round would come: batches sent, waits for money in flight, rows sent and not sent."""

    batches: int = 0
    waits: int = 0
    rows: int = 0
    unsent: int = 0

    @property
    def stops(self) -> bool:
        """Whether a limit stops it before its last row."""
        return self.unsent > 0


class _Play:
    """One play of the guard. Within a span, each row has the mean bound and the mean cost."""

    def __init__(self, left: int | None, planned: int, parallel: int) -> None:
        self._left, self._planned, self._parallel = left, planned, parallel
        self._flying: deque[tuple[int, int]] = deque()  # (bound, likely cost), oldest first
        self._reserved: int = 0
        self.found = Prospect()

    def send(self, span: PlannedChunk, cost: int) -> None:
        """Send a span, in parts where need be; what cannot be paid for is set aside."""
        rows, bound = span.stop - span.start, span.bound
        while rows:
            if len(self._flying) == self._parallel:
                self.settle()
            fits = (
                rows
                if self._left is None or bound <= self._left - self._reserved
                else self._fitting(rows, bound)
            )
            if fits:
                share: tuple[int, int] = (bound * fits // rows, min(cost, bound) * fits // rows)
                self._flying.append(share)
                self._reserved += share[0]
                self.found.batches += 1
                self.found.rows += fits
                rows, bound, cost = rows - fits, bound - share[0], cost - share[1]
            elif self._flying:
                self.found.waits += 1
                self.settle()
            else:
                return

    def _fitting(self, rows: int, bound: int) -> int:
        fits = ((self._left or 0) - self._reserved) * rows // bound
        return fits if fits >= min(max(1, self._planned // SMALLEST_SHARE), rows) else 0

    def settle(self) -> None:
        """Let the oldest batch end: its bound comes back, its cost is spent."""
        bound, cost = self._flying.popleft()
        self._reserved -= bound
        if self._left is not None:
            self._left -= cost

    def settle_all(self) -> None:
        """Let all batches end."""
        while self._flying:
            self.settle()


def play(
    spans: Sequence[PlannedChunk],
    costs: Iterable[int | None],
    left: int | None,
    parallel: int,
    pilot: int = 0,
) -> Prospect:
    """Return how the first round of a plan would go with `left` picodollars (None: no limit).

    `costs` are what the spans are likely to cost, `pilot` the rows that have to come home before others go.
    """
    planned = sum(span.stop - span.start for span in spans)
    game = _Play(left, planned, parallel)
    for span, cost in zip(spans, costs, strict=True):
        if span.start == pilot:
            game.settle_all()
        game.send(span, cost or 0)
    game.found.unsent = planned - game.found.rows
    return game.found


@dataclass(frozen=True)
class LimitsAhead:
    """What is left of a run's limits before it begins, and how far that would bring it."""

    limits: SpendingLimits
    budget_left: int | None  # in the budget's present period
    bound: int  # of all that would be sent
    prospect: Prospect
    least: int = 0  # the bound of the cheapest row

    @property
    def left(self) -> int:
        """What all limits leave, in picodollars."""
        return min(amount for amount in (self.limits.run, self.budget_left) if amount is not None)

    @property
    def fits(self) -> bool:
        """Whether all of it may be sent at once; else batches are cut."""
        return self.bound <= self.left

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values; money is exact decimal text in US dollars."""
        terms = self.limits.budget
        budget = (
            None
            if terms is None
            else {
                "name": terms.name,
                "limit_usd": f"{usd(terms.limit):f}",
                "period": terms.period,
                "left_usd": f"{usd(self.budget_left or 0):f}",
            }
        )
        run = None if self.limits.run is None else f"{usd(self.limits.run):f}"
        return {
            "run_usd": run,
            "budget": budget,
            "stops": self.prospect.stops,
            **asdict(self.prospect),
        }

    def text(self) -> str:
        """Say it to people."""
        terms, found = self.limits.budget, self.prospect
        named = [] if self.limits.run is None else [f"{dollars(self.limits.run)} a run"]
        if terms is not None:
            period = "in total" if terms.period == "total" else f"a {terms.period}"
            named.append(
                f"budget {terms.name}: {dollars(self.budget_left)} left of {dollars(terms.limit)} {period}"
            )
        waits = f" and {pluralize(found.waits, 'wait')} for money in flight" if found.waits else ""
        if self.fits:
            verdict = "all of it fits"
        elif found.stops and not found.rows:
            verdict = f"too little for any row, of which the cheapest may cost {dollars(self.least)}: raise it, or lower `max_tokens`"
        elif found.stops:
            rows = f"{found.rows:,} of {pluralize(found.rows + found.unsent, 'row')}"
            verdict = f"expected to stop after about {rows}, with about {pluralize(found.batches, 'batch')}{waits}"
        else:
            verdict = (
                f"expected to be enough, with about {pluralize(found.batches, 'batch')}{waits}"
            )
        return f"{'; '.join(named)}: {verdict}"


def look_ahead(
    spec: RunSpec,
    ledger: Ledger | None,
    spans: Sequence[PlannedChunk],
    costs: Iterable[int | None],
    summary: PlanSummary,
) -> LimitsAhead | None:
    """Return what the limits of a spec would do to a plan at this moment; None where it has none.

    Raises:
        SpecError: the ledger has other terms for its budget.
    """
    limits = limits_of(spec)
    if not spec.limited:
        return None
    if limits.budget is not None and ledger is not None:
        limits = SpendingLimits(limits.run, ledger.check_budget(limits.budget, budget_member(spec)))
    left = None if limits.budget is None else limits.budget.limit
    if limits.budget is not None and left is not None and ledger is not None:
        left = max(left - sum(ledger.budget_money(limits.budget)), 0)
    amounts = [amount for amount in (limits.run, left) if amount is not None]
    found = play(spans, costs, min(amounts), spec.max_parallel_batches, summary.pilot)
    return LimitsAhead(limits, left, sum(span.bound for span in spans), found, summary.least)
