"""Shared budgets: what all runs that name one may spend together in a period.

A reservation counts against the period in which it was made, whenever it is settled. Every one of a
budget is made under the budget's lock, in the transaction that reads what is spent or in flight.
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from sqlalchemy import insert, select, update

from batchata_tasks.common.clock import now_us
from batchata_tasks.common.errors import SpecError
from batchata_tasks.common.money import dollars
from batchata_tasks.ledger import tables as t
from batchata_tasks.ledger.store import Store, reads, writes
from batchata_tasks.ledger.values import BudgetStatus, ChunkState, new_id
from batchata_tasks.types.budget import BudgetTerms

if TYPE_CHECKING:
    from sqlalchemy import ColumnElement, Connection, Row

_TRACKER = "(CostTracker)"  # who made a budget, where no spec did; no spec can have such a name


class Budgets(Store):
    """What the ledger knows of shared budgets."""

    def agree_budget(self, terms: BudgetTerms, spec: str) -> None:
        """Note what a spec says of a budget; where all specs say the same now, and did not before, that holds.

        Raises:
            SpecError: another spec says otherwise. What this one says is noted all the same, so that
                specs can be changed one after the other.
        """
        if (other := self._say(terms, spec)) is not None:
            raise _disagreed(terms, *other)

    @writes
    def _say(
        self, connection: Connection, terms: BudgetTerms, spec: str
    ) -> tuple[str, BudgetTerms] | None:
        self.lock(connection, f"budget {terms.name}")
        known, statement = _row(connection, terms.name), _statement(terms)
        if known is None:
            _make(connection, terms, spec)
            return None
        here, other = (
            update(t.budgets).where(t.budgets.c.name == terms.name),
            _other(known, terms, spec),
        )
        if other is None or other[0]:  # a stranger is not made known by asking twice
            connection.execute(
                here.values(said=json.dumps({**json.loads(known.said), spec: statement}))
            )
        if other is None and statement not in json.loads(known.agreed):
            connection.execute(here.values(_values(terms) | {"agreed": json.dumps([statement])}))
        return other

    @reads
    def check_budget(self, connection: Connection, terms: BudgetTerms, spec: str) -> BudgetTerms:
        """Return the terms that would hold after `agree_budget`, and raise SpecError where it would; write nothing."""
        known = _row(connection, terms.name)
        if known is None:
            return terms
        if (other := _other(known, terms, spec)) is not None:
            raise _disagreed(terms, *other)
        return _terms(known) if _statement(terms) in json.loads(known.agreed) else terms

    @reads
    def binding(self, connection: Connection, terms: BudgetTerms) -> BudgetTerms:
        """Return the terms that hold: the ledger's, or these where it has none yet."""
        return binding_terms(connection, terms)

    @writes
    def set_budget(self, connection: Connection, name: str, limit: int) -> None:
        """Change the limit of a budget for all specs, whatever they say of it; raises SpecError where there is none of that name.

        It holds until the specs agree on something new. What they said until now is none: it is refused to
        nobody any more, and objects to nothing, so that a spec that is gone cannot either.
        """
        self.lock(connection, f"budget {name}")
        if (known := _row(connection, name)) is None:
            message = f"--set-budget {name}: the ledger knows no budget of that name; a run of a spec that names it makes it."
            raise SpecError(message)
        said, terms = json.loads(known.said), replace(_terms(known), limit=limit)
        overruled = [
            *json.loads(known.agreed),
            *(words for words in said.values() if words is not None),
            _statement(terms),
        ]
        changed = _values(terms) | {
            "said": json.dumps(dict.fromkeys(said)),
            "agreed": json.dumps(overruled),
        }
        connection.execute(update(t.budgets).where(t.budgets.c.name == name).values(changed))

    @writes
    def open_budget(self, connection: Connection, name: str, limit: int | None) -> None:
        """Join the budget of that name; one that is not there yet is made, for all time, where a limit is given.

        Raises:
            SpecError: there is none and no limit is given, or it has another limit.
        """
        self.lock(connection, f"budget {name}")
        known = _row(connection, name)
        if known is None:
            if limit is None:
                message = f"the ledger knows no budget of the name {name!r}; give its `limit_usd`."
                raise SpecError(message)
            _make(connection, BudgetTerms(name, limit, "total", "UTC"), _TRACKER)
        elif limit is not None and all(words[0] != limit for words in json.loads(known.agreed)):
            terms = _terms(known)
            wanted = replace(terms, limit=limit)
            raise _disagreed(wanted, *(_other(known, wanted, "") or ("", terms)))

    @writes
    def spend(self, connection: Connection, scope: str, amount: int, name: str | None) -> None:
        """Record money that was spent outside of runs; it counts at once, also beyond a limit.

        It stands among the reservations, under a chunk and a run that do not exist (`scope` is the
        run), as money for no row.
        """
        counts: dict[str, object] = {"budget": None, "period": None}
        if name is not None:
            self.lock(connection, f"budget {name}")
            known = _row(connection, name)
            counts = {"budget": name, "period": _terms(known).start(now_us()) if known else 0}
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
    def tracked(self, connection: Connection, scope: str, name: str | None) -> BudgetStatus:
        """Return how the present period of a budget stands; without a name, what was spent under `scope`."""
        r, terms = t.reservations.c, None
        mine = r.run_id == scope
        if name is not None:
            known = _row(connection, name)
            terms = _terms(known) if known else None
            mine = (r.budget == name) & _since(terms.start(now_us()) if terms else 0)
        query = select(r.settled, r.reserved, t.chunks.c.id).outerjoin(
            t.chunks, t.chunks.c.id == r.chunk_id
        )
        rows = connection.execute(query.where(mine)).all()
        in_flight = sum(row.reserved for row in rows if row.settled is None)
        spent, entries = sum(row.settled or 0 for row in rows), sum(row.id is None for row in rows)
        return BudgetStatus(terms.limit if terms else None, spent, in_flight, entries)

    @reads
    def budgets(self, connection: Connection) -> list[BudgetTerms]:
        """Return all budgets, by name."""
        return [
            _terms(row) for row in connection.execute(select(t.budgets).order_by(t.budgets.c.name))
        ]

    @reads
    def budget_money(self, connection: Connection, terms: BudgetTerms) -> tuple[int, int]:
        """Return (settled, reserved and still in flight) of a budget's present period, as these terms have it."""
        return budget_sums(connection, terms, terms.start(now_us()))

    @reads
    def others_in_flight(self, connection: Connection, terms: BudgetTerms, dataset_id: str) -> int:
        """Return what live runs of other datasets have in flight in the budget's present period, and will settle.

        Money of a run that is dead comes back only when its dataset is run again, and that of a chunk that is
        held when a person decides: nobody waits for it.
        """
        r, c, d = t.reservations.c, t.chunks.c, t.datasets.c
        query = (
            select(r.reserved)
            .join(t.chunks, c.id == r.chunk_id)
            .join(t.datasets, d.id == c.dataset_id)
        )
        since = _since(binding_terms(connection, terms).start(now_us()))
        theirs = (
            (c.dataset_id != dataset_id)
            & (c.state != ChunkState.HELD)
            & r.settled.is_(None)
            & (r.budget == terms.name)
            & since
        )
        return sum(
            connection.execute(
                query.where(theirs, d.lease_until > self.clock(connection))
            ).scalars()
        )


def budget_sums(connection: Connection, terms: BudgetTerms, start: int) -> tuple[int, int]:
    """Return (settled, reserved and still in flight) of the period that began at `start`."""
    r = t.reservations.c
    rows = connection.execute(
        select(r.settled, r.reserved).where(r.budget == terms.name, _since(start))
    ).all()
    # summed here: a database's own sum ends at 2^63 picodollars, 9 million dollars
    return sum(row.settled or 0 for row in rows), sum(
        row.reserved for row in rows if row.settled is None
    )


def _since(start: int) -> ColumnElement[bool]:
    """Whether a reservation counts from `start` on; its period may have been noted when the budget had others."""
    return (t.reservations.c.reserved_at >= start) | (t.reservations.c.period >= start)


def _row(connection: Connection, name: str) -> Row[Any] | None:
    return connection.execute(select(t.budgets).where(t.budgets.c.name == name)).first()


def _terms(row: Row[Any]) -> BudgetTerms:
    return BudgetTerms(row.name, row.limit_amount, row.period, row.timezone)


def binding_terms(connection: Connection, terms: BudgetTerms) -> BudgetTerms:
    """Return the terms that hold: the ledger's, or these where it has none yet."""
    known = _row(connection, terms.name)
    return terms if known is None else _terms(known)


def _make(connection: Connection, terms: BudgetTerms, spec: str) -> None:
    statement = _statement(terms)
    said = {
        "name": terms.name,
        "said": json.dumps({spec: statement}),
        "agreed": json.dumps([statement]),
    }
    connection.execute(insert(t.budgets).values(_values(terms) | said))


def _statement(terms: BudgetTerms) -> list[int | str]:
    return [terms.limit, terms.period, terms.timezone]


def _other(known: Row[Any], terms: BudgetTerms, spec: str) -> tuple[str, BudgetTerms] | None:
    """Return who says something else of a budget (a spec, or nobody by name: the ledger), and what; None where none does.

    What was agreed on, or overruled by hand, is said by all without harm: it changes nothing.
    """
    said, settled, statement = json.loads(known.said), json.loads(known.agreed), _statement(terms)
    for name, words in said.items():
        if (
            name != spec
            and words not in (None, statement)
            and not (words in settled and statement in settled)
        ):
            return name, BudgetTerms(terms.name, *words)
    # a limit that was set by hand is changed by specs that were there, not by the first stranger
    return ("", _terms(known)) if statement not in settled and spec not in said else None


def _values(terms: BudgetTerms) -> dict[str, object]:
    return {
        "limit_amount": terms.limit,
        "period": terms.period,
        "timezone": terms.timezone,
        "changed_at": now_us(),
    }


def _disagreed(terms: BudgetTerms, other: str, theirs: BudgetTerms) -> SpecError:
    who = {_TRACKER: "a CostTracker", "": "the ledger"}.get(other, f"the spec {other}")
    again = "" if who == "the ledger" else f"run {who} again if it was changed, "
    asked, held = (
        f"{dollars(one.limit)} a {one.period} ({one.timezone})".replace("a total", "in total")
        for one in (terms, theirs)
    )
    message = (
        f"budget: {who} says {held} of {terms.name!r}, and this says {asked}; all that share a budget say the same of it: change one, "
        f"{again}or set the limit for all with `batchata costs --set-budget {terms.name}=USD`."
    )
    return SpecError(message)
