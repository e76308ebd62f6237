"""Shared budgets: what all runs that name one may spend together in a period.

A reservation counts against the period in which it was made, whenever it is settled. Every one of a
budget is made under the budget's lock, in the transaction that reads what is spent or in flight.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from sqlalchemy import insert, select, update

from batchata_tasks.errors import SpecError
from batchata_tasks.ledger import tables as t
from batchata_tasks.ledger.store import Store, reads, writes
from batchata_tasks.ledger.values import BudgetTerms, Tracked, new_id, now_us
from batchata_tasks.money import dollars

if TYPE_CHECKING:
    from sqlalchemy import Connection

_ONE = 10**6
_TRACKER, _BY_HAND = "(CostTracker)", "(by hand)"  # who set a budget, where no spec did; no spec can have such a name


class Budgets(Store):
    """What the ledger knows of shared budgets."""

    @writes
    def agree_budget(self, connection: Connection, terms: BudgetTerms, spec: str) -> None:
        """Note what a spec says of a budget; the spec that said it first may change its mind.

        Raises:
            SpecError: another spec says otherwise.
        """
        self.lock(connection, f"budget {terms.name}")
        known = self._known(connection, terms.name)
        if known is None:
            values = _values(terms) | {"name": terms.name, "set_by": spec}
            connection.execute(insert(t.budgets).values(values))
            return
        known_terms, set_by = known
        if known_terms == terms:
            return
        if set_by != spec:
            raise _disagreed(terms, known_terms, set_by)
        connection.execute(update(t.budgets).where(t.budgets.c.name == terms.name).values(_values(terms)))

    @reads
    def check_budget(self, connection: Connection, terms: BudgetTerms, spec: str) -> None:
        """Raise SpecError where `agree_budget` would; write nothing."""
        known = self._known(connection, terms.name)
        if known is not None and known[0] != terms and known[1] != spec:
            raise _disagreed(terms, *known)

    @writes
    def set_budget(self, connection: Connection, name: str, limit: int) -> None:
        """Change the limit of a budget for all specs; raises SpecError where there is none of that name."""
        self.lock(connection, f"budget {name}")
        known = self._known(connection, name)
        if known is None:
            message = f"--set-budget {name}: the ledger knows no budget of that name; a run of a spec that names it makes it."
            raise SpecError(message)
        values = _values(replace(known[0], limit=limit)) | {"set_by": _BY_HAND}
        connection.execute(update(t.budgets).where(t.budgets.c.name == name).values(values))

    @writes
    def open_budget(self, connection: Connection, name: str, limit: int | None) -> BudgetTerms:
        """Return the budget of that name; one that is not there yet is made, for all time, where a limit is given.

        Raises:
            SpecError: there is none and no limit is given, or a spec gave it another limit.
        """
        self.lock(connection, f"budget {name}")
        known = self._known(connection, name)
        if known is None:
            if limit is None:
                message = f"the ledger knows no budget of the name {name!r}; give its `limit_usd`."
                raise SpecError(message)
            terms = BudgetTerms(name, limit, "total", "UTC")
            connection.execute(insert(t.budgets).values(_values(terms) | {"name": name, "set_by": _TRACKER}))
            return terms
        terms = known[0] if limit is None else replace(known[0], limit=limit)
        if terms != known[0]:
            if known[1] != _TRACKER:
                raise _disagreed(terms, *known)
            connection.execute(update(t.budgets).where(t.budgets.c.name == name).values(_values(terms)))
        return terms

    @writes
    def spend(self, connection: Connection, scope: str, amount: int, name: str | None) -> None:
        """Record money that was spent outside of runs; it counts at once, also beyond a limit.

        It stands among the reservations, under a chunk and a run that do not exist (`scope` is the
        run), as money for no row.
        """
        counts: dict[str, object] = {"budget": None, "period": None}
        if name is not None:
            self.lock(connection, f"budget {name}")
            known = self._known(connection, name)
            counts = {"budget": name, "period": known[0].start(now_us()) if known else 0}
        row = {"chunk_id": new_id(), "run_id": scope, "reserved": amount, "reserved_at": now_us(), "settled_at": now_us()}
        money = {"settled": amount, "superseded": 0, "overhead": amount}
        connection.execute(insert(t.reservations).values(row | money | counts))

    @reads
    def tracked(self, connection: Connection, scope: str, name: str | None) -> Tracked:
        """Return how the present period of a budget stands; without a name, what was spent under `scope`."""
        r, terms = t.reservations.c, None
        mine = r.run_id == scope
        if name is not None:
            known = self._known(connection, name)
            terms = known[0] if known else None
            mine = (r.budget == name) & (r.period == (terms.start(now_us()) if terms else 0))
        query = select(r.settled, r.reserved, t.chunks.c.id).outerjoin(t.chunks, t.chunks.c.id == r.chunk_id)
        rows = connection.execute(query.where(mine)).all()
        in_flight = sum(row.reserved for row in rows if row.settled is None)
        spent, entries = sum(row.settled or 0 for row in rows), sum(row.id is None for row in rows)
        return Tracked(terms.limit if terms else None, spent, in_flight, entries)

    @reads
    def budgets(self, connection: Connection) -> list[BudgetTerms]:
        """Return all budgets, by name."""
        rows = connection.execute(select(t.budgets).order_by(t.budgets.c.name))
        return [BudgetTerms(row.name, row.limit_amount, row.period, row.timezone) for row in rows]

    @reads
    def budget_money(self, connection: Connection, terms: BudgetTerms) -> tuple[int, int]:
        """Return (settled, reserved and still in flight) of a budget's present period."""
        return budget_sums(connection, terms, terms.start(now_us()))

    @reads
    def others_in_flight(self, connection: Connection, terms: BudgetTerms, run_id: str) -> int:
        """Return what live runs other than this one have in flight in the budget's present period.

        Money of a run that is dead comes back only when its dataset is run again: nobody waits for it.
        """
        r, d = t.reservations.c, t.datasets.c
        query = select(r.reserved).join(t.runs, t.runs.c.id == r.run_id).join(t.datasets, d.id == t.runs.c.dataset_id)
        theirs = (r.run_id != run_id) & r.settled.is_(None) & (r.budget == terms.name) & (r.period == terms.start(now_us()))
        return sum(connection.execute(query.where(theirs, d.lease_until > self.clock(connection))).scalars())

    @writes
    def correct_bounds(
        self, connection: Connection, provider: str, model: str, base: int, excess: int, chunk_id: str
    ) -> int:
        """Note that a cost was `excess` millionths of its bound; return the factor (in millionths) for bounds from now on.

        `base` is the factor that the bound itself was made with. The same note twice, or those of chunks
        that were planned together, multiply nothing twice. A tenth is added: the next answer may be a little dearer still.
        """
        self.lock(connection, f"bounds {provider} {model}")
        here = (t.corrections.c.provider == provider) & (t.corrections.c.model == model)
        known = connection.execute(select(t.corrections.c.factor).where(here)).scalar()
        factor = max(known or _ONE, -(-base * excess * 11 // (10 * _ONE)))
        row = {"factor": factor, "chunk_id": chunk_id, "noted_at": now_us()}
        if known is None:
            connection.execute(insert(t.corrections).values(row | {"provider": provider, "model": model}))
        else:
            connection.execute(update(t.corrections).where(here).values(row))
        return factor

    @reads
    def bounds_factor(self, connection: Connection, provider: str, model: str) -> int:
        """Return what bounds of a model are to be multiplied with, in millionths."""
        here = (t.corrections.c.provider == provider) & (t.corrections.c.model == model)
        return connection.execute(select(t.corrections.c.factor).where(here)).scalar() or _ONE

    def _known(self, connection: Connection, name: str) -> tuple[BudgetTerms, str] | None:
        row = connection.execute(select(t.budgets).where(t.budgets.c.name == name)).first()
        return None if row is None else (BudgetTerms(row.name, row.limit_amount, row.period, row.timezone), row.set_by)


def budget_sums(connection: Connection, terms: BudgetTerms, start: int) -> tuple[int, int]:
    """Return (settled, reserved and still in flight) of the period that began at `start`."""
    r = t.reservations.c
    rows = connection.execute(select(r.settled, r.reserved).where(r.budget == terms.name, r.period == start)).all()
    # summed here: a database's own sum ends at 2^63 picodollars, 9 million dollars
    return sum(row.settled or 0 for row in rows), sum(row.reserved for row in rows if row.settled is None)


def _values(terms: BudgetTerms) -> dict[str, object]:
    return {"limit_amount": terms.limit, "period": terms.period, "timezone": terms.timezone, "changed_at": now_us()}


def _disagreed(terms: BudgetTerms, known: BudgetTerms, set_by: str) -> SpecError:
    who = {_TRACKER: "a CostTracker says", _BY_HAND: "it was set by hand"}.get(set_by, f"the spec {set_by} says")
    asked, held = (f"{dollars(one.limit)} a {one.period} ({one.timezone})".replace("a total", "in total") for one in (terms, known))
    message = (
        f"budget: {terms.name!r} is {held} in the ledger, as {who}, and {asked} here; specs that share a budget "
        f"give it the same limit: change one of them, or all and the ledger (`batchata costs --set-budget {terms.name}=USD`)."
    )
    return SpecError(message)
