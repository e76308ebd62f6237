"""What cost limits would do to a plan: the guard simulated with bounds and likely costs."""

from __future__ import annotations

from collections import deque
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from batchata_tasks.common.money import dollars, exact
from batchata_tasks.common.text import pluralize
from batchata_tasks.execution.guard import SMALLEST_SHARE
from batchata_tasks.ledger import MoneyInFlight
from batchata_tasks.pipeline.receipt_money import in_flight_facts, in_flight_words
from batchata_tasks.planning.limits import SpendingLimits, budget_member, limits_of, overruled

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from batchata_tasks.ledger import BudgetTerms, Ledger
    from batchata_tasks.planning.route import Route
    from batchata_tasks.planning.summary import PlanSummary
    from batchata_tasks.spec.run import RunSpec

_LEAST_CAP = 16  # that every endpoint takes


class Chunk(Protocol):
    """Rows `start` to `stop` of a plan, and the most that they can cost, in picodollars."""

    @property
    def start(self) -> int: ...  # noqa: D102 - see above
    @property
    def stop(self) -> int: ...  # noqa: D102
    @property
    def bound(self) -> int | None: ...  # noqa: D102


@dataclass
class Prospect:
    """How far a first round would get."""

    batches: int = 0  # sent
    waits: int = 0  # for money in flight
    rows: int = 0  # sent
    unsent: int = 0  # rows

    @property
    def stops(self) -> bool:
        """Whether a limit stops it before its last row."""
        return self.unsent > 0


@dataclass(frozen=True)
class BudgetMoney:
    """What is left of a budget, in picodollars, and what comes back to it, batch by batch.

    Less than nothing is left if more was spent than the limit has become. A run lands what its
    dataset has in flight (`own`) before it sends more.
    """

    left: int
    own: Sequence[MoneyInFlight] = ()
    others: Sequence[MoneyInFlight] = ()

    @classmethod
    def of(cls, ledger: Ledger, terms: BudgetTerms, dataset_id: str) -> BudgetMoney:
        """Return how a budget's present period stands for a dataset."""
        left = terms.limit - sum(ledger.budget_money(terms))
        return cls(left, *ledger.money_in_flight(terms, dataset_id))

    @property
    def for_run(self) -> int:
        """What a run finds in it."""
        return self.left + sum(money.back for money in self.own)

    @property
    def of_others(self) -> MoneyInFlight:
        """What others have in flight, in sum."""
        return MoneyInFlight.sum_of(self.others)


class _Simulation:
    """Simulates the guard. Each row of a chunk has the chunk's mean bound and mean cost."""

    def __init__(
        self, limits: list[int], others: Sequence[MoneyInFlight], planned: int, parallel: int
    ) -> None:
        self._left = limits  # picodollars, of each limit; the last one is the budget's
        self._others = deque(others)  # what comes back to it, once the run waits for that
        self._planned = planned  # rows
        self._parallel = parallel  # batches
        self._flying: deque[tuple[int, int]] = deque()  # (bound, likely cost), oldest first
        self._reserved: int = 0
        self.result = Prospect()

    def send(self, chunk: Chunk, cost: int) -> None:
        """Send a chunk, in parts if need be; rows that cannot be paid for stay unsent."""
        rows, bound = chunk.stop - chunk.start, chunk.bound or 0
        while rows:
            if len(self._flying) == self._parallel:
                self.settle()
            sent = self._affordable(rows, bound)
            if sent:
                sent_bound: int = bound * sent // rows
                sent_cost: int = min(cost, bound) * sent // rows
                self._flying.append((sent_bound, sent_cost))
                self._reserved += sent_bound
                self.result.batches += 1
                self.result.rows += sent
                rows -= sent
                bound -= sent_bound
                cost -= sent_cost
            elif self._flying:
                self.result.waits += 1
                self.settle()
            elif self._others:
                self.result.waits += 1
                self._left[-1] += self._others.popleft().back
            else:
                return

    def _affordable(self, rows: int, bound: int) -> int:
        """Return how many of a chunk's rows fit under the limit now; 0 if too few to be sent."""
        if not self._left or bound <= (left := min(self._left) - self._reserved):
            return rows
        fitting = left * rows // bound
        return fitting if fitting >= min(max(1, self._planned // SMALLEST_SHARE), rows) else 0

    def settle(self) -> None:
        """Let the oldest batch end: its bound is released, its cost is spent."""
        bound, cost = self._flying.popleft()
        self._reserved -= bound
        self._left = [left - cost for left in self._left]

    def settle_all(self) -> None:
        """Let all batches end."""
        while self._flying:
            self.settle()


def simulate(
    chunks: Sequence[Chunk],
    costs: Iterable[int | None],
    left: int | None,
    parallel: int,
    pilot: int = 0,
    budget: int | None = None,
    others: Sequence[MoneyInFlight] = (),
) -> Prospect:
    """Return how the first round of a plan would go with `left` picodollars (None: no limit).

    So much is also left of its `budget`; a run that waits for `others` finds their money there.
    `costs` are the likely costs of the chunks; the first `pilot` rows have to land before others
    are sent.
    """
    planned = sum(chunk.stop - chunk.start for chunk in chunks)
    limits = [amount for amount in (left, budget) if amount is not None]
    simulation = _Simulation(limits, others, planned, parallel)
    for chunk, cost in zip(chunks, costs, strict=True):
        if chunk.start == pilot:
            simulation.settle_all()
        simulation.send(chunk, cost or 0)
    simulation.result.unsent = planned - simulation.result.rows
    return simulation.result


@dataclass(frozen=True)
class LimitsAhead:
    """What is left of a run's limits before it begins, and how far the run would get with that."""

    limits: SpendingLimits
    budget: BudgetMoney | None  # in its present period
    bound: int  # of all that would be sent
    prospect: Prospect
    # the same for a run that waits for what others of the budget have in flight; None if it need
    # not, or they have nothing
    once_back: Prospect | None = None
    least: int = 0  # the bound of the cheapest row
    # the largest cap on answers with which all of it may be sent at once; None if it does not
    # fit by a cap that answers are likely to keep to, or fits already
    fitting_cap: int | None = None
    resent: int = 0  # rows that need no work, and would be sent again with another cap
    overruled: str | None = None  # a sentence: the limit of the budget is not what the spec states
    used: int = 0  # of the limit of a run, by the unfinished one that it goes on with

    @property
    def left(self) -> int:
        """The least that any of the limits leaves, in picodollars."""
        budget = None if self.budget is None else self.budget.for_run
        own = None if self.limits.run is None else self.limits.run - self.used
        return min(amount for amount in (own, budget) if amount is not None)

    @property
    def fits(self) -> bool:
        """Whether all of it may be sent at once; else batches are split."""
        return self.bound <= self.left

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values; money is exact decimal text in US dollars."""
        terms, money, budget = self.limits.budget, self.budget, None
        if terms is not None and money is not None:
            budget = {
                "name": terms.label,
                "limit_usd": exact(terms.limit),
                "period": terms.period,
                "left_usd": exact(max(money.left, 0)),
                "overruled": self.overruled,
                **in_flight_facts(money.of_others),
            }
        return {
            "run_usd": exact(self.limits.run),
            "used_usd": exact(self.used),
            "budget": budget,
            "stops": self.prospect.stops,
            "max_tokens_that_fits": self.fitting_cap,
            **asdict(self.prospect),
            "once_back": None if self.once_back is None else asdict(self.once_back),
        }

    def text(self) -> str:
        """Return the limits and how far the run would get, for people."""
        terms = self.limits.budget
        limits = [] if self.limits.run is None else [f"{self._own(self.limits.run)} a run"]
        if terms is not None and self.budget is not None:
            period = "in total" if terms.period == "total" else f"a {terms.period}"
            left = f"{dollars(max(self.budget.left, 0))} left of {dollars(terms.limit)} {period}"
            if self.budget.own:
                landed = dollars(max(self.budget.for_run, 0))
                left += f", about {landed} once what is in flight has landed"
            limits.append(f"budget {terms.label}: {left}")
        text = f"{'; '.join(limits)}: {self.outlook()}"
        return text if self.overruled is None else f"{text}. Budget: {self.overruled}"

    def _own(self, limit: int) -> str:
        if not self.used:
            return dollars(limit)
        return f"about {dollars(max(limit - self.used, 0))} left of {dollars(limit)}"

    def outlook(self) -> str:
        """Return how far the run would get, for people, and the cap with which all would fit."""
        return self._verdict() + self._remedy()

    def _remedy(self) -> str:
        if self.fitting_cap is None:
            return ""
        text = f"; with `max_tokens: {self.fitting_cap}` all of it would fit at once"
        if self.resent:
            rows = pluralize(self.resent, "row that is", "rows that are")
            what = f"{rows} up to date or in flight would be sent again"
            text += f", but it counts as another model: {what}"
        return text

    def _verdict(self) -> str:
        if self.fits:
            text = "enough for the most that one attempt at each row may cost"
            now = self.left if self.budget is None else min(self.left, self.budget.left)
            return text if self.bound <= now else f"{text}, once what is in flight has landed"
        ahead = self.prospect
        if self.once_back is not None:
            return f"{self._now()}. {self._once_back(self.once_back)}"
        if ahead.stops and not ahead.rows:
            return f"{self._now()}: raise it, or lower `max_tokens`"
        waits = f" and {pluralize(ahead.waits, 'wait')} for money in flight" if ahead.waits else ""
        batches = f"about {pluralize(ahead.batches, 'batch')}{waits}"
        if not ahead.stops:
            return f"expected to be enough, with {batches}"
        return f"expected to stop after {_about(ahead)}, with {batches}"

    def _now(self) -> str:
        """Say how far it gets at once, if a limit stops it."""
        if self.prospect.rows:
            return f"enough for {_about(self.prospect)} now"
        now = "" if self.once_back is None else " now"
        if self.left >= self.least:  # a batch has a hundredth of the rows at least, or the pilot's
            return f"too little for the first batch{now}"
        return f"too little for any row{now}, of which the cheapest may cost {dollars(self.least)}"

    def _once_back(self, later: Prospect) -> str:
        """Say what a run has of it that waits for what others have in flight, and who waits."""
        money = MoneyInFlight() if self.budget is None else self.budget.of_others
        text = in_flight_words(money)
        if later.rows == self.prospect.rows:
            return f"{text}, which is too little: raise it, or lower `max_tokens`"
        enough = f"for {_about(later)}" if later.stops else "for all rows"
        wait = "wait for that, or run it again then (a deployment's run waits by itself)"
        return f"{text}, which is expected to be enough {enough}: {wait}, or raise the limit"


def _about(prospect: Prospect) -> str:
    return f"about {prospect.rows:,} of {pluralize(prospect.rows + prospect.unsent, 'row')}"


def look_ahead(
    spec: RunSpec,
    ledger: Ledger | None,
    chunks: Sequence[Chunk],
    costs: Iterable[int | None],
    summary: PlanSummary,
    routes: Sequence[Route] = (),
    *,
    dataset_id: str,
    rehearsal: bool = False,
    used: int = 0,
) -> LimitsAhead | None:
    """Return what the limits of a spec would do to a plan now; None if it has no limits.

    `routes` are those of the requests. An unfinished run of the spec will have `used` so much of
    the limit of a run.

    Raises:
        SpecError: the ledger has other terms for its budget.
    """
    limits = limits_of(spec, rehearsal=rehearsal)
    if not spec.limited:
        return None
    by_hand = None
    if limits.budget is not None and ledger is not None:
        terms = ledger.check_budget(limits.budget, budget_member(spec))
        by_hand = overruled(limits.budget, terms)
        limits = SpendingLimits(limits.run, terms)
    budget = None
    if limits.budget is not None:
        budget = BudgetMoney(limits.budget.limit)
        if ledger is not None:
            budget = BudgetMoney.of(ledger, limits.budget, dataset_id)
    ahead = within(limits, budget, spec, chunks, list(costs), summary, routes, used)
    return replace(ahead, overruled=by_hand)


def within(
    limits: SpendingLimits,
    budget: BudgetMoney | None,
    spec: RunSpec,
    chunks: Sequence[Chunk],
    costs: Sequence[int | None],
    summary: PlanSummary,
    routes: Sequence[Route],
    used: int = 0,
) -> LimitsAhead:
    """Return how far chunks of a plan would get with what is left of a run's limit and its budget.

    One of the two is there. So much of the former is `used`.
    """
    money = BudgetMoney(0) if budget is None else budget
    ahead = partial(
        simulate,
        chunks,
        costs,
        None if limits.run is None else limits.run - used,
        spec.max_parallel_batches,
        summary.pilot,
        None if budget is None else money.for_run,
    )
    prospect, bound = ahead(), sum(chunk.bound or 0 for chunk in chunks)
    once_back = ahead(money.others) if prospect.stops and money.others else None
    found = LimitsAhead(limits, budget, bound, prospect, once_back, summary.least, used=used)
    cap = _fitting_cap(routes, chunks, bound - found.left, summary)
    sent = summary.up_to_date + summary.in_flight - summary.held
    resent = sent if cap is not None and "model" in spec.rerun_on else 0
    return replace(found, fitting_cap=cap, resent=resent)


def _fitting_cap(
    routes: Sequence[Route], chunks: Sequence[Chunk], excess: int, summary: PlanSummary
) -> int | None:
    """Return the cap on answers with which the bound of all requests is lower by `excess`.

    None if there is no excess, if caps are of several models, or if answers are likely to be
    longer.
    """
    requests = sum(chunk.stop - chunk.start for chunk in chunks)
    if excess <= 0 or not requests or len(routes) != 1 or (rates := routes[0].rates) is None:
        return None
    # at the cheapest tier, the bound goes down by no less than this for each token
    a_token = min([rates.output.base, *(price for _, price in rates.output.tiers)])
    a_token = a_token * routes[0].factor // 10**6 * requests
    if not a_token:
        return None
    cap = routes[0].cap - -(-(excess + requests) // a_token)  # each bound was rounded up
    usual = -(-summary.output_tokens // requests)
    return cap if cap >= max(usual, _LEAST_CAP) else None
