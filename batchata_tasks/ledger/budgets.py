"""Shared budgets: limits for what all runs that name one may spend together in a period.

A reservation counts against the period in which it was made, whenever it is settled. Reservations
against a budget are made under the budget's lock, in the transaction that reads what is spent or in
flight.
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from sqlalchemy import insert, select, update

from batchata_tasks.common.clock import now_us
from batchata_tasks.common.errors import SpecError
from batchata_tasks.ledger import tables as t
from batchata_tasks.ledger.store import Store, reads, writes
from batchata_tasks.ledger.values import SET_ASIDE, BudgetStatus, new_id
from batchata_tasks.types.budget import BudgetTerms, is_of_rehearsals, name_of_rehearsals

if TYPE_CHECKING:
    from sqlalchemy import ColumnElement, Connection, Row

_TRACKER = "(CostTracker)"  # created a budget that no spec named; no spec can have this name


class ChangedBudget(NamedTuple):
    """A budget whose limit was set by hand: its terms before and now, and what they overrule.

    `overruled` are the terms that specs state otherwise.
    """

    before: BudgetTerms
    now: BudgetTerms
    overruled: dict[str, BudgetTerms]


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
        statement = _statement(terms)
        if budget is None:
            _create(connection, terms, spec)
            return None
        here = update(t.budgets).where(t.budgets.c.name == terms.name)
        conflict = _conflict(budget, terms, spec)
        agreed: list[list[int | str]] = json.loads(budget.agreed)
        # a new spec that contradicts a limit set by hand is not recorded: else it would be let
        # through when it is run a second time
        if conflict is None or conflict[0]:
            said = {**_said(budget, terms), spec: _stated(terms)}
            connection.execute(here.values(said=json.dumps(said)))
            if None not in said.values():
                agreed = _still_stated(budget, agreed, said)
                connection.execute(here.values(agreed=json.dumps(agreed)))
        if conflict is None and statement not in agreed:
            connection.execute(here.values(_values(terms) | {"agreed": json.dumps([statement])}))
        return conflict

    @reads
    def check_budget(self, connection: Connection, terms: BudgetTerms, spec: str) -> BudgetTerms:
        """Return the terms that would be binding after `agree_budget`; write nothing.

        Raises:
            SpecError: `agree_budget` would raise it.
        """
        budget = _row(connection, terms.name)
        if budget is None:
            return terms
        if (conflict := _conflict(budget, terms, spec)) is not None:
            raise _disagreed(terms, *conflict)
        return _terms(budget) if _statement(terms) in json.loads(budget.agreed) else terms

    @reads
    def binding(self, connection: Connection, terms: BudgetTerms) -> BudgetTerms:
        """Return the binding terms of a budget: the ledger's, or these if it has none yet."""
        return binding_terms(connection, terms)

    @writes
    def set_budget(self, connection: Connection, name: str, limit: int) -> ChangedBudget:
        """Change the limit of a budget for all specs, whatever limit they state.

        The limit holds until one of them states a new one. Limits that specs stated until now are
        overruled: a spec that still states one is not refused, and hinders no other spec. So a spec
        that no longer exists cannot hinder any, either.

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
        changes = [_set_limit(connection, budget, limit) for budget in found]
        return changes[0]

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
            _create(connection, BudgetTerms(name, limit, "total", "UTC"), _TRACKER)
        elif limit is not None and all(
            statement[0] != limit for statement in json.loads(budget.agreed)
        ):
            terms = _terms(budget)
            wanted = replace(terms, limit=limit)
            raise _disagreed(wanted, *(_conflict(budget, wanted, "") or ("", terms)))

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
            terms = _terms(budget) if budget else None
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
    def budgets(self, connection: Connection) -> list[BudgetTerms]:
        """Return all budgets, by name, but those of rehearsals."""
        rows = connection.execute(select(t.budgets).order_by(t.budgets.c.name))
        return [terms for terms in map(_terms, rows) if not terms.is_of_rehearsals]

    @reads
    def budget_money(self, connection: Connection, terms: BudgetTerms) -> tuple[int, int]:
        """Return (settled, in flight) of the budget's present period according to `terms`."""
        return budget_sums(connection, terms, terms.start(now_us()))

    @reads
    def others_in_flight(self, connection: Connection, terms: BudgetTerms, dataset_id: str) -> int:
        """Return what live runs of other datasets have in flight in the budget's present period.

        Money that is not worth waiting for is left out: that of a dead run, which returns only when
        its dataset is run again, and that of a held or overdue chunk, for which nobody waits.
        """
        r = t.reservations.c
        c = t.chunks.c
        d = t.datasets.c
        query = (
            select(r.reserved)
            .join(t.chunks, c.id == r.chunk_id)
            .join(t.datasets, d.id == c.dataset_id)
        )
        since = _since(binding_terms(connection, terms).start(now_us()))
        query = query.where(
            c.dataset_id != dataset_id,
            c.state.not_in(SET_ASIDE),
            r.settled.is_(None),
            r.budget == terms.name,
            since,
            d.lease_until > self.clock(connection),
        )
        return sum(connection.execute(query).scalars())


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
    return _terms(budget).start(moment) if budget else 0


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


def _terms(row: Row[Any]) -> BudgetTerms:
    return BudgetTerms(row.name, row.limit_amount, row.period, row.timezone)


def binding_terms(connection: Connection, terms: BudgetTerms) -> BudgetTerms:
    """Return the binding terms of a budget: the ledger's, or these if it has none yet."""
    budget = _row(connection, terms.name)
    return terms if budget is None else _terms(budget)


def _create(connection: Connection, terms: BudgetTerms, spec: str) -> None:
    said = {
        "name": terms.name,
        "said": json.dumps({spec: _stated(terms)}),
        "agreed": json.dumps([_statement(terms)]),
    }
    connection.execute(insert(t.budgets).values(_values(terms) | said))


def _set_limit(connection: Connection, budget: Row[Any], limit: int) -> ChangedBudget:
    """Let a limit hold for all specs, and overrule what they stated until now."""
    said: dict[str, list[Any] | None] = json.loads(budget.said)
    terms = replace(_terms(budget), limit=limit)
    stated = {
        spec: BudgetTerms(budget.name, *statement)
        for spec, statement in said.items()
        if statement is not None
    }
    agreed = [*json.loads(budget.agreed), *map(_statement, stated.values()), _statement(terms)]
    changed = _values(terms) | {
        "said": json.dumps(dict.fromkeys(said)),
        "agreed": json.dumps(agreed),
    }
    here = t.budgets.c.name == budget.name
    connection.execute(update(t.budgets).where(here).values(changed))
    overruled = {spec: one for spec, one in stated.items() if one != terms}
    return ChangedBudget(_terms(budget), terms, overruled)


def _statement(terms: BudgetTerms) -> list[int | str]:
    return [terms.limit, terms.period, terms.timezone]


def _stated(terms: BudgetTerms) -> list[int | str]:
    """Return terms as `said` has them: with the file of budgets that states them, if one does."""
    return _statement(terms) if terms.file is None else [*_statement(terms), terms.file]


def _said(budget: Row[Any], terms: BudgetTerms) -> dict[str, list[int | str] | None]:
    """Return what each spec said last; those that name the same file say what it says by now."""
    said: dict[str, list[int | str] | None] = json.loads(budget.said)
    if terms.file is None:
        return said
    return {spec: _stated(terms) if _is_by(terms.file, one) else one for spec, one in said.items()}


def _still_stated(
    budget: Row[Any], agreed: list[list[int | str]], said: dict[str, list[int | str] | None]
) -> list[list[int | str]]:
    """Return the binding terms, and those that were overruled by hand and are stated still.

    Those that nobody states any more are new if they are stated again, and hold then.
    """
    stated = [_statement(_terms(budget)), *(one[:3] for one in said.values() if one is not None)]
    return [one for one in agreed if one in stated]


def _is_by(file: str | None, stated: list[int | str] | None) -> bool:
    """Whether a spec had its terms from this file of budgets."""
    return file is not None and stated is not None and stated[3:] == [file]


def _conflict(budget: Row[Any], terms: BudgetTerms, spec: str) -> tuple[str, BudgetTerms] | None:
    """Return a spec that has other terms for a budget, and these terms; None if there is none.

    The name is empty if the terms are the ledger's own. Terms that were agreed on, or overruled by
    hand, conflict with no other such terms: stating them again changes nothing.
    """
    said = _said(budget, terms)
    agreed = json.loads(budget.agreed)
    statement = _statement(terms)
    for name, other in said.items():
        if name == spec or other is None or other[:3] == statement:
            continue
        if other[:3] not in agreed or statement not in agreed:
            return name, BudgetTerms(terms.name, *cast("Any", other))
    # a limit that was set by hand can be changed by the specs of that time, not by a new one
    known = spec in said or any(_is_by(terms.file, other) for other in said.values())
    return ("", _terms(budget)) if statement not in agreed and not known else None


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
    whose = who if theirs.file is None else f"{theirs.file}, which {who} names,"
    command = f"batchata costs --set-budget {terms.plain_name}=USD"
    message = (
        f"budget: {whose} gives {terms.label!r} {theirs.in_words()}, and {terms.file or 'this'} "
        f"gives it {terms.in_words()}; all that share a budget must give it the same terms: change "
        f"one, {again}or set the limit for all with `{command}`."
    )
    return SpecError(message)
