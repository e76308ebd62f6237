"""Shared budgets: limits for what all runs that name one may spend together in a period.

A reservation counts against the period in which it was made, whenever it is settled. Reservations
against a budget are made under the budget's lock, in the transaction that reads what is spent or in
flight.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

from sqlalchemy import insert, select, update

from batchata_tasks.common.clock import now_us
from batchata_tasks.common.errors import SpecError
from batchata_tasks.ledger import tables as t
from batchata_tasks.ledger.agreement import TRACKER, Agreement, terms_of
from batchata_tasks.ledger.store import Store, reads, writes
from batchata_tasks.ledger.values import (
    SET_ASIDE,
    BudgetStatus,
    ChunkState,
    MoneyInFlight,
    RunPhase,
    new_id,
)
from batchata_tasks.types.batch_life import LONGEST_LIFE
from batchata_tasks.types.budget import BudgetTerms, is_of_rehearsals, name_of_rehearsals

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import ColumnElement, Connection, Row


class ChangedBudget(NamedTuple):
    """A budget whose limit was set by hand: its terms before and now, and what they overrule.

    `overruled` are the terms that specs state otherwise. `and_rehearsals`: the budget is of real
    runs, and that of rehearsals of its name has the limit as well.
    """

    before: BudgetTerms
    now: BudgetTerms
    overruled: dict[str, BudgetTerms]
    and_rehearsals: bool = False


class Budgets(Store):
    """The part of the ledger about shared budgets."""

    def agree_budget(self, terms: BudgetTerms, spec: str) -> None:
        """Record a spec's terms for a budget; if all specs now agree, their terms become binding.

        Raises:
            SpecError: another spec has other terms. These are recorded all the same, so that specs
                can be changed one after the other.
        """
        if (conflict := self._record_terms(terms, spec)) is not None:
            raise _disagreed(terms, *conflict)

    @writes
    def _record_terms(
        self, connection: Connection, terms: BudgetTerms, spec: str
    ) -> tuple[str, BudgetTerms] | None:
        """Record a spec's terms; return who disagrees with them, and the other terms."""
        self.lock(connection, f"budget {terms.name}")
        budget = _row(connection, terms.name)
        if budget is None:
            _create(connection, terms, spec)
            return None
        before = Agreement.read(budget)
        _write(connection, before, before.stated(terms, spec))
        return before.conflict(terms, spec)

    @reads
    def check_budget(self, connection: Connection, terms: BudgetTerms, spec: str) -> BudgetTerms:
        """Return the terms that would be binding after `agree_budget`; write nothing.

        Raises:
            SpecError: `agree_budget` would raise it.
        """
        budget = _row(connection, terms.name)
        if budget is None:
            return terms
        agreement = Agreement.read(budget)
        if (conflict := agreement.conflict(terms, spec)) is not None:
            raise _disagreed(terms, *conflict)
        return agreement.stated(terms, spec).holds

    @reads
    def binding(self, connection: Connection, terms: BudgetTerms) -> BudgetTerms:
        """Return the binding terms of a budget: the ledger's, or these if it has none yet."""
        return binding_terms(connection, terms)

    @writes
    def set_budget(self, connection: Connection, name: str, limit: int) -> ChangedBudget:
        """Change the limit of a budget for all specs, and for rehearsals, whatever they state.

        It holds until all of them state the same new one, or it is set anew. What they state does
        not count until then: none is refused for it, and none hinders another. Nor does a spec that
        no longer exists; but with one, only a hand can change the limit.

        Raises:
            SpecError: there is no budget of that name.
        """
        # that of rehearsals is no name to give: it follows the one that specs give
        names = [] if is_of_rehearsals(name) else [name, name_of_rehearsals(name)]
        for one in names:
            self.lock(connection, f"budget {one}")
        found = [row for row in (_row(connection, one) for one in names) if row is not None]
        if not found:
            message = (
                f"--set-budget {name}: the ledger has no budget of that name; "
                "the first run of a spec that names it creates it."
            )
            raise SpecError(message)
        changed, *others = [_set_limit(connection, budget, limit) for budget in found]
        return changed._replace(and_rehearsals=bool(others))

    @writes
    def open_budget(self, connection: Connection, name: str, limit: int | None) -> None:
        """Join the budget of that name; if there is none, create it, with one period for all time.

        Raises:
            SpecError: there is none and no limit is given, or it has another limit.
        """
        self.lock(connection, f"budget {name}")
        budget = _row(connection, name)
        if budget is None:
            if limit is None:
                message = f"the ledger has no budget named {name!r}; give its `limit_usd`."
                raise SpecError(message)
            _create(connection, BudgetTerms(name, limit, "total", "UTC"), TRACKER)
            return
        agreement = Agreement.read(budget)
        if limit is not None and all(terms.limit != limit for terms in agreement.agreed):
            wanted = replace(agreement.holds, limit=limit)
            raise _disagreed(wanted, *(agreement.conflict(wanted, "") or ("", agreement.holds)))

    @writes
    def spend(self, connection: Connection, scope: str, amount: int, name: str | None) -> None:
        """Record money that was spent outside of runs; it counts at once, even beyond a limit.

        It is stored as a settled reservation for no row, under a chunk and a run that do not exist
        (`scope` is the run).
        """
        counts: dict[str, object] = {"budget": None, "period": None}
        if name is not None:
            self.lock(connection, f"budget {name}")
            counts = {"budget": name, "period": period_of(connection, name, now_us())}
        row = {
            "chunk_id": new_id(),
            "run_id": scope,
            "reserved": amount,
            "reserved_at": now_us(),
            "settled_at": now_us(),
        }
        money = {"settled": amount, "superseded": 0, "overhead": amount}
        connection.execute(insert(t.reservations).values(row | money | counts))

    @reads
    def budget_status(self, connection: Connection, scope: str, name: str | None) -> BudgetStatus:
        """Return the money of a budget's present period; without a name, that spent by `scope`."""
        r, terms = t.reservations.c, None
        counted = r.run_id == scope
        if name is not None:
            budget = _row(connection, name)
            terms = terms_of(budget) if budget else None
            counted = (r.budget == name) & _since(terms.start(now_us()) if terms else 0)
        query = select(r.settled, r.reserved, t.runs.c.id).outerjoin(
            t.runs, t.runs.c.id == r.run_id
        )
        rows = connection.execute(query.where(counted)).all()
        return BudgetStatus(
            limit=terms.limit if terms else None,
            spent=sum(row.settled or 0 for row in rows),
            in_flight=sum(row.reserved for row in rows if row.settled is None),
            entries=sum(row.id is None for row in rows),
        )

    @reads
    def budgets(self, connection: Connection, *, of_rehearsals: bool = False) -> list[BudgetTerms]:
        """Return all budgets, by name: those of real runs, or those `of_rehearsals`."""
        rows = connection.execute(select(t.budgets).order_by(t.budgets.c.name))
        return [terms for terms in map(terms_of, rows) if terms.is_of_rehearsals == of_rehearsals]

    @reads
    def budget_money(self, connection: Connection, terms: BudgetTerms) -> tuple[int, int]:
        """Return (settled, in flight) of the budget's present period according to `terms`."""
        return budget_sums(connection, terms, terms.start(now_us()))

    @reads
    def others_in_flight(
        self,
        connection: Connection,
        terms: BudgetTerms,
        dataset_id: str,
        *,
        watched: bool = False,
    ) -> int:
        """Return what runs of other datasets have in flight in the budget's present period.

        Money that is not worth waiting for is left out: that of a held or overdue chunk, for which
        nobody waits, and that of runs without a process. But if the ledger is `watched`, batches
        of such runs land once they have ended; only what was not sent returns when they are run
        again.
        """
        returns = self._returning(connection, watched=watched)
        rows = _in_flight(connection, terms, (t.chunks.c.dataset_id != dataset_id) & returns)
        return sum(row.reserved for row in rows)

    @reads
    def money_in_flight(
        self, connection: Connection, terms: BudgetTerms, dataset_id: str
    ) -> tuple[list[MoneyInFlight], list[MoneyInFlight]]:
        """Return what comes back to a budget's present period: of this dataset, and of others.

        That is for each batch, the oldest first. Of others it is what a watched ledger waits for.
        """
        own: list[MoneyInFlight] = []
        others: list[MoneyInFlight] = []
        is_own = t.chunks.c.dataset_id == dataset_id
        which = is_own | self._returning(connection, watched=True)
        for row in _in_flight(connection, terms, which):
            cost = row.reserved if row.expected is None else min(row.expected, row.reserved)
            money = MoneyInFlight(1, row.reserved, row.reserved - cost)
            (own if row.dataset_id == dataset_id else others).append(money)
        return own, others

    def _returning(self, connection: Connection, *, watched: bool) -> ColumnElement[bool]:
        """Select the chunks whose money returns; see `others_in_flight`."""
        returns = t.datasets.c.lease_until > self.clock(connection)
        if watched:
            returns |= (
                (t.runs.c.state == RunPhase.OPEN)
                & (t.chunks.c.state == ChunkState.SUBMITTED)
                & (t.batches.c.submitted_at > now_us() - int(LONGEST_LIFE * 1e6))
            )
        return returns


def _in_flight(
    connection: Connection, terms: BudgetTerms, which: ColumnElement[bool]
) -> Sequence[Row[Any, Any, Any]]:
    """Return what is reserved for chunks of a budget's present period, the oldest first.

    None of what is set aside, for which nobody waits.
    """
    r, c = t.reservations.c, t.chunks.c
    query = (
        select(r.reserved, c.expected, c.dataset_id)
        .join(t.chunks, c.id == r.chunk_id)
        .join(t.datasets, t.datasets.c.id == c.dataset_id)
        .join(t.runs, t.runs.c.id == c.run_id)
        .outerjoin(t.batches, t.batches.c.batch_id == c.batch_id)
        .where(
            c.state.not_in(SET_ASIDE),
            r.settled.is_(None),
            r.budget == terms.name,
            _since(binding_terms(connection, terms).start(now_us())),
            which,
        )
        .order_by(r.reserved_at)
    )
    return connection.execute(query).all()


def money_of(connection: Connection, which: ColumnElement[bool]) -> tuple[int, int]:
    """Return (settled, in flight) of some reservations: in flight is what is not settled yet."""
    query = select(t.reservations.c.settled, t.reservations.c.reserved).where(which)
    # summed here: a database's own sum ends at 2^63 picodollars, 9 million dollars
    settled = in_flight = 0
    for row in connection.execute(query):
        if row.settled is None:
            in_flight += row.reserved
        else:
            settled += row.settled
    return settled, in_flight


def period_of(connection: Connection, name: str, moment: int) -> int:
    """Return when the period of a budget began in which a moment lies; 0 if it has no terms yet."""
    budget = _row(connection, name)
    return terms_of(budget).start(moment) if budget else 0


def budget_sums(connection: Connection, terms: BudgetTerms, start: int) -> tuple[int, int]:
    """Return (settled, in flight) of the period that began at `start`."""
    return money_of(connection, (t.reservations.c.budget == terms.name) & _since(start))


def _since(start: int) -> ColumnElement[bool]:
    """Select the reservations that count from `start` on.

    The period stored with one may be of another length, if the budget's terms have changed since.
    """
    return (t.reservations.c.reserved_at >= start) | (t.reservations.c.period >= start)


def _row(connection: Connection, name: str) -> Row[Any] | None:
    return connection.execute(select(t.budgets).where(t.budgets.c.name == name)).first()


def binding_terms(connection: Connection, terms: BudgetTerms) -> BudgetTerms:
    """Return the binding terms of a budget: the ledger's, or these if it has none yet."""
    budget = _row(connection, terms.name)
    return terms if budget is None else terms_of(budget)


def _create(connection: Connection, terms: BudgetTerms, spec: str) -> None:
    values = Agreement.begun(terms, spec).values()
    connection.execute(insert(t.budgets).values(name=terms.name, changed_at=now_us(), **values))


def _write(connection: Connection, before: Agreement, now: Agreement) -> None:
    """Write what is stated of a budget, and what holds."""
    values, here = now.values(), t.budgets.c.name == now.holds.name
    if now.holds != before.holds:
        values["changed_at"] = now_us()
    connection.execute(update(t.budgets).where(here).values(values))


def _set_limit(connection: Connection, budget: Row[Any], limit: int) -> ChangedBudget:
    """Let a limit hold for all specs, and overrule what they state."""
    before = Agreement.read(budget)
    now = before.set_by_hand(limit)
    _write(connection, before, now)
    stated = ((spec, terms) for spec, terms in before.said.items() if terms is not None)
    overruled = {spec: terms for spec, terms in stated if terms != now.holds}
    return ChangedBudget(before.holds, now.holds, overruled)


def _disagreed(terms: BudgetTerms, other: str, theirs: BudgetTerms) -> SpecError:
    who = {TRACKER: "a CostTracker", "": "the ledger"}.get(other, f"the spec {other}")
    again = "" if who == "the ledger" else f"run {who} again if it was changed, "
    whose = who if theirs.file is None else f"{theirs.file}, which {who} names,"
    command = f"batchata costs --set-budget {terms.plain_name}=USD"
    message = (
        f"budget: {whose} gives {terms.label!r} {theirs.in_words()}, and {terms.file or 'this'} "
        f"gives it {terms.in_words()}; all that share a budget must give it the same terms: change "
        f"one, {again}or set the limit for all with `{command}`."
    )
    return SpecError(message)
