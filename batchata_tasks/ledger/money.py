"""Money and landing.

Money is reserved before a create and settled from usage; a chunk is landed when its rows are in the
dataset.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from sqlalchemy import bindparam, delete, func, insert, select, update

from batchata_tasks.common.clock import now_us
from batchata_tasks.ledger import tables as t
from batchata_tasks.ledger.budgets import Budgets, binding_terms, budget_sums, money_of
from batchata_tasks.ledger.chunks import Chunks, reservation_row
from batchata_tasks.ledger.store import blocks, reads, writes
from batchata_tasks.ledger.values import (
    SET_ASIDE,
    Chunk,
    ChunkState,
    Lease,
    OutcomeTotals,
    RemainingBudget,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from sqlalchemy import Connection, Row

    from batchata_tasks.types.budget import BudgetTerms


_RESERVATION = select(t.reservations).where(t.reservations.c.chunk_id == bindparam("chunk_id"))
_SET_RESERVATION = update(t.reservations).where(t.reservations.c.chunk_id == bindparam("of_chunk"))
_SETTLED = select(t.reservations.c.settled).where(
    t.reservations.c.chunk_id.in_(bindparam("chunk_ids", expanding=True))
)
_IN_FLIGHT = select(t.reservations.c.chunk_id).where(
    t.reservations.c.run_id == bindparam("run_id"), t.reservations.c.settled.is_(None)
)
_OUTCOMES_OF_RUN = select(t.outcomes).where(t.outcomes.c.run_id == bindparam("run_id"))
_NO_OUTCOMES = delete(t.outcomes).where(t.outcomes.c.chunk_id == bindparam("of_chunk"))


class Money(Chunks, Budgets):
    """The part of the ledger about what a run may still spend, and what it spent on what."""

    @writes
    def reserve(
        self,
        connection: Connection,
        lease: Lease,
        chunk: Chunk,
        limit: int | None,
        budget: BudgetTerms | None = None,
    ) -> RemainingBudget | None:
        """Reserve a chunk's bound.

        Returns None on success, else what is left of the run's limit and of its budget. One
        transaction reads what is spent or in flight and adds to it, so that two chunks that are
        reserved for at the same time, by whichever run, cannot both take the last dollar.
        """
        self._check(connection, lease)
        if connection.execute(_RESERVATION, {"chunk_id": chunk.id}).first() is not None:
            return None
        moment = now_us()
        counts: dict[str, Any] = {"budget": None, "period": None, "reserved_at": moment}
        if budget is not None:
            self.lock(connection, f"budget {budget.name}")
            budget = binding_terms(connection, budget)
            counts |= {"budget": budget.name, "period": budget.start(moment)}
        left = _remaining(connection, chunk.run_id, limit, budget, moment)
        if (limit is not None or budget is not None) and (chunk.bound or 0) > left.least:
            return left
        connection.execute(insert(t.reservations), reservation_row(chunk) | counts)
        return None

    @reads
    def remaining(
        self, connection: Connection, run_id: str, limit: int | None, budget: BudgetTerms | None
    ) -> RemainingBudget:
        """Return what is left of a run's limit and of its budget; reserve nothing."""
        if budget is not None:
            budget = binding_terms(connection, budget)
        return _remaining(connection, run_id, limit, budget, now_us())

    @reads
    def budget_of(self, connection: Connection, chunk_id: str) -> dict[str, Any] | None:
        """Return the name and period of the budget that a chunk's money counts against.

        The period is given by its begin, in microseconds since 1970.
        """
        row = connection.execute(_RESERVATION, {"chunk_id": chunk_id}).first()
        if row is None or row.budget is None:
            return None
        return {"name": row.budget, "period_us": row.period}

    @writes
    def release_unsent(self, connection: Connection, lease: Lease, run_id: str) -> None:
        """Release what a run has reserved for chunks that were not sent.

        When the run is resumed, it reserves money for them again.
        """
        self._check(connection, lease)
        unsent = select(t.chunks.c.id).where(
            t.chunks.c.run_id == run_id, t.chunks.c.state == ChunkState.PLANNED
        )
        connection.execute(delete(t.reservations).where(t.reservations.c.chunk_id.in_(unsent)))

    @writes
    def collect(
        self,
        connection: Connection,
        lease: Lease,
        chunk: Chunk,
        tallies: Mapping[str, OutcomeTotals],
        overhead: int,
        retried: Mapping[str, int] | None = None,
    ) -> None:
        """Settle a chunk from its usage: the results are on disk, and its outcomes are known.

        `retried` counts its rows by the outcome that they had in an earlier round of the run. A
        chunk that was settled before, and is landed again, never costs less than it did then: of
        what its results lack by now, the rest was paid for no row.
        """
        cost = sum(tally.cost or 0 for tally in tallies.values()) + overhead
        if chunk.state == ChunkState.COLLECTED:
            known = connection.execute(_RESERVATION, {"chunk_id": chunk.id}).first()
            more = max((0 if known is None else known.settled or 0) - cost, 0)
            cost, overhead = cost + more, overhead + more
        self._check(connection, lease)
        sent = (ChunkState.SUBMITTED, ChunkState.OVERDUE, ChunkState.COLLECTED)
        self._move(connection, chunk.id, (ChunkState.PLANNED, *sent), ChunkState.COLLECTED)
        connection.execute(_NO_OUTCOMES, {"of_chunk": chunk.id})
        before = retried or {}
        for outcome in tallies.keys() | before.keys():
            tally = tallies.get(outcome, OutcomeTotals())
            row = {
                "chunk_id": chunk.id,
                "run_id": chunk.run_id,
                "outcome": outcome,
                "retried": before.get(outcome, 0),
            }
            row |= {name: getattr(tally, name) for name in OutcomeTotals.__slots__}
            connection.execute(insert(t.outcomes), row)
        settled = {"settled": cost, "overhead": overhead, "settled_at": now_us()}
        _set_reservation(connection, chunk.id, **settled)

    @writes
    def land(
        self,
        connection: Connection,
        lease: Lease,
        chunk_id: str,
        superseded: int,
        *,
        emptied: bool = False,
    ) -> None:
        """Close the commit of a chunk: its rows are in the dataset, the older ones are gone.

        If it is `emptied`, its own rows are gone, too.
        """
        self._check(connection, lease)
        self._move(
            connection, chunk_id, (ChunkState.COLLECTED,), ChunkState.LANDED, emptied=int(emptied)
        )
        _set_reservation(connection, chunk_id, superseded=superseded)

    @writes
    def note_emptied(self, connection: Connection, lease: Lease, chunk_ids: Iterable[str]) -> None:
        """Record that landed chunks have no row left; called before their part is deleted."""
        self._check(connection, lease)
        for block in blocks(chunk_ids):
            connection.execute(update(t.chunks).where(t.chunks.c.id.in_(block)).values(emptied=1))

    @writes
    def reopen_landed(self, connection: Connection, lease: Lease, chunk_ids: Iterable[str]) -> None:
        """Record that a dataset was lost: these chunks are to be collected and landed again."""
        self._check(connection, lease)
        values = {"state": ChunkState.COLLECTED, "emptied": 0, "updated_at": now_us()}
        for block in blocks(chunk_ids):
            landed = t.chunks.c.id.in_(block) & (t.chunks.c.state == ChunkState.LANDED)
            connection.execute(update(t.chunks).where(landed).values(values))

    @writes
    def give_up(
        self,
        connection: Connection,
        lease: Lease,
        chunk_id: str,
        cost: int | None = None,
        *,
        emptied: bool = True,
    ) -> None:
        """Record that no row of a chunk can be landed (any more); if `emptied`, none is left.

        What it cost, or may have cost if `cost` is None, becomes overhead.
        """
        self._check(connection, lease)
        ended = (ChunkState.COLLECTED, ChunkState.LANDED)
        before = (ChunkState.SUBMITTED, ChunkState.OVERDUE, *ended)
        self._move(connection, chunk_id, before, ChunkState.LANDED, emptied=int(emptied))
        spent: Any = cost
        if cost is None:
            spent = func.coalesce(t.reservations.c.settled, t.reservations.c.reserved)
        values = {"overhead": spent, "settled": spent, "superseded": 0, "settled_at": now_us()}
        connection.execute(_SET_RESERVATION.values(values), {"of_chunk": chunk_id})

    @writes
    def balance(self, connection: Connection, lease: Lease, chunk_id: str, rows_cost: int) -> None:
        """Set a landed chunk's overhead so that the sums add up.

        Afterwards all landed chunks of the dataset together cost `rows_cost` (the sum of its rows'
        costs), and what belongs to no row. Rehearsals and real runs have sums of their own.
        """
        of_chunk = (
            select(t.runs.c.rehearsal)
            .join(t.chunks, t.chunks.c.run_id == t.runs.c.id)
            .where(t.chunks.c.id == chunk_id)
        )
        kind = connection.execute(of_chunk).scalar() or 0
        self._check(connection, lease)
        query = (
            select(t.reservations)
            .join(t.chunks, t.chunks.c.id == t.reservations.c.chunk_id)
            .join(t.runs, t.runs.c.id == t.chunks.c.run_id)
            .where(
                t.chunks.c.dataset_id == lease.dataset_id,
                func.coalesce(t.runs.c.rehearsal, 0) == kind,
            )
            .where(t.chunks.c.state == ChunkState.LANDED)
        )
        in_dataset = sum(
            (row.settled or 0) - (row.superseded or 0) - (row.overhead or 0)
            for row in connection.execute(query)
        )
        overhead = func.coalesce(t.reservations.c.overhead, 0) + (in_dataset - rows_cost)
        connection.execute(_SET_RESERVATION.values(overhead=overhead), {"of_chunk": chunk_id})

    @writes
    def set_superseded(
        self, connection: Connection, lease: Lease, chunk_id: str, superseded: int
    ) -> None:
        """Set how much of what a landed chunk cost is in the dataset no more."""
        self._check(connection, lease)
        _set_reservation(connection, chunk_id, superseded=superseded)

    @reads
    def money(self, connection: Connection, run_id: str) -> tuple[int, int]:
        """Return (settled, in flight) of a run: in flight is what is reserved and not settled."""
        return _run_money(connection, run_id)

    @reads
    def amounts(self, connection: Connection, chunk_id: str) -> dict[str, int]:
        """Return what a landed chunk cost: `settled`, and of that `superseded` and `overhead`."""
        row = connection.execute(_RESERVATION, {"chunk_id": chunk_id}).first()
        names = ("settled", "superseded", "overhead")
        return {name: getattr(row, name, None) or 0 for name in names}

    @reads
    def settled(self, connection: Connection, chunk_ids: Iterable[str]) -> int:
        """Return what some chunks have cost, as far as they are settled."""
        total = 0
        for block in blocks(chunk_ids):
            amounts = connection.execute(_SETTLED, {"chunk_ids": block}).scalars()
            total += sum(amount or 0 for amount in amounts)
        return total

    @reads
    def returning(self, connection: Connection, run_id: str) -> int:
        """Return what a run has in flight, without what no run waits for: held and overdue."""
        query = (
            select(t.reservations.c.reserved)
            .join(t.chunks, t.chunks.c.id == t.reservations.c.chunk_id)
            .where(t.reservations.c.run_id == run_id, t.reservations.c.settled.is_(None))
            .where(t.chunks.c.state.not_in(SET_ASIDE))
        )
        return sum(connection.execute(query).scalars())

    @reads
    def in_flight(self, connection: Connection, run_id: str) -> set[str]:
        """Return the chunks of a run for which money is reserved and not settled."""
        return set(connection.execute(_IN_FLIGHT, {"run_id": run_id}).scalars())

    @reads
    def outcomes(
        self, connection: Connection, run_id: str, chunk_ids: Iterable[str] | None = None
    ) -> dict[str, OutcomeTotals]:
        """Return rows, tokens and money per outcome of a run, or of some of its chunks.

        A row counts once, by the outcome of its last round; tokens and money are of all rounds.
        """
        queries = [_OUTCOMES_OF_RUN]
        if chunk_ids is not None:
            some = [t.outcomes.c.chunk_id.in_(block) for block in blocks(chunk_ids)]
            queries = [_OUTCOMES_OF_RUN.where(which) for which in some]
        totals: dict[str, OutcomeTotals] = {}
        for query in queries:
            for row in connection.execute(query, {"run_id": run_id}):
                previous = totals.get(row.outcome, OutcomeTotals())
                totals[row.outcome] = previous + totals_of(row)
        return totals


def totals_of(row: Row[Any]) -> OutcomeTotals:
    """Return a row of the table `outcomes`; rows that were sent again count in their last round."""
    totals = OutcomeTotals(**{name: getattr(row, name) for name in OutcomeTotals.__slots__})
    return replace(totals, rows=row.rows - row.retried)


def _remaining(
    connection: Connection, run_id: str, limit: int | None, budget: BudgetTerms | None, moment: int
) -> RemainingBudget:
    """Return what is left of a run's limit and, at a moment, of its budget in binding terms."""
    run_left = budget_left = None
    if limit is not None:
        run_left = max(limit - sum(_run_money(connection, run_id)), 0)
    if budget is not None:
        spent = sum(budget_sums(connection, budget, budget.start(moment)))
        budget_left = max(budget.limit - spent, 0)
    return RemainingBudget(run_left, budget_left)


def _run_money(connection: Connection, run_id: str) -> tuple[int, int]:
    return money_of(connection, t.reservations.c.run_id == run_id)


def _set_reservation(connection: Connection, chunk_id: str, **values: int) -> None:
    connection.execute(_SET_RESERVATION, {"of_chunk": chunk_id, **values})
