"""Money and landing: reserved before a create, settled from usage, closed when the rows are in the dataset."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from sqlalchemy import delete, func, insert, select, update

from batchata_tasks.common.clock import now_us
from batchata_tasks.ledger import tables as t
from batchata_tasks.ledger.budgets import Budgets, binding_terms, budget_sums
from batchata_tasks.ledger.chunks import Chunks, reservation_row
from batchata_tasks.ledger.store import reads, writes
from batchata_tasks.ledger.values import Chunk, ChunkState, Lease, OutcomeTotals, RemainingBudget

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from sqlalchemy import Connection

    from batchata_tasks.types.budget import BudgetTerms


class Money(Chunks, Budgets):
    """What a run may still spend, what it spent, and on what."""

    @writes
    def reserve(
        self,
        connection: Connection,
        lease: Lease,
        chunk: Chunk,
        limit: int | None,
        budget: BudgetTerms | None = None,
    ) -> RemainingBudget | None:
        """Reserve a chunk's bound; None on success, else what is left of the run's limit and of its budget.

        One transaction reads what is spent or in flight and adds to it, so that chunks that are
        guarded at the same time, by whichever run, cannot both take the last dollar.
        """
        self._check(connection, lease)
        done = connection.execute(
            select(t.reservations.c.chunk_id).where(t.reservations.c.chunk_id == chunk.id)
        ).first()
        if done is not None:
            return None
        left = RemainingBudget(
            None if limit is None else max(limit - _committed(connection, chunk.run_id), 0), None
        )
        counts: dict[str, Any] = {"budget": None, "period": None, "reserved_at": now_us()}
        if budget is not None:
            self.lock(connection, f"budget {budget.name}")
            budget = binding_terms(connection, budget)
            counts |= {"budget": budget.name, "period": budget.start(counts["reserved_at"])}
            left = RemainingBudget(
                left.run,
                max(budget.limit - sum(budget_sums(connection, budget, counts["period"])), 0),
            )
        if (limit is not None or budget is not None) and (chunk.bound or 0) > left.least:
            return left
        connection.execute(insert(t.reservations).values(reservation_row(chunk) | counts))
        return None

    @reads
    def budget_of(self, connection: Connection, chunk_id: str) -> dict[str, Any] | None:
        """Return the budget's name and the period (its begin, in microseconds) that a chunk's money counts against."""
        row = connection.execute(
            select(t.reservations).where(t.reservations.c.chunk_id == chunk_id)
        ).first()
        return (
            None
            if row is None or row.budget is None
            else {"name": row.budget, "period_us": row.period}
        )

    @writes
    def release_unsent(self, connection: Connection, lease: Lease, run_id: str) -> None:
        """Give back what a run has set aside for chunks that were not sent; it sets money aside for them anew when it is carried on."""
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

        `retried` counts its rows by the outcome that they had in an earlier round of the run.
        """
        cost = sum(tally.cost or 0 for tally in tallies.values()) + overhead
        self._check(connection, lease)
        self._move(
            connection,
            chunk.id,
            (ChunkState.PLANNED, ChunkState.SUBMITTED, ChunkState.COLLECTED),
            ChunkState.COLLECTED,
        )
        connection.execute(delete(t.outcomes).where(t.outcomes.c.chunk_id == chunk.id))
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
            connection.execute(insert(t.outcomes).values(row))
        settled = {"settled": cost, "overhead": overhead, "settled_at": now_us()}
        connection.execute(
            update(t.reservations).where(t.reservations.c.chunk_id == chunk.id).values(settled)
        )

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
        """Close the commit of a chunk: its rows are in the dataset, older ones are gone (its own, too, where it is `emptied`)."""
        self._check(connection, lease)
        self._move(
            connection, chunk_id, (ChunkState.COLLECTED,), ChunkState.LANDED, emptied=int(emptied)
        )
        connection.execute(
            update(t.reservations)
            .where(t.reservations.c.chunk_id == chunk_id)
            .values(superseded=superseded)
        )

    @writes
    def note_emptied(self, connection: Connection, lease: Lease, chunk_id: str) -> None:
        """Note that no row of a landed chunk is left in the dataset; called before its part is deleted."""
        self._check(connection, lease)
        connection.execute(update(t.chunks).where(t.chunks.c.id == chunk_id).values(emptied=1))

    @writes
    def begin_again(self, connection: Connection, lease: Lease, chunk_ids: Iterable[str]) -> None:
        """Note that a dataset was lost: these landed chunks are collected and landed anew, from the provider's results."""
        self._check(connection, lease)
        lost = t.chunks.c.id.in_(list(chunk_ids)) & (t.chunks.c.state == ChunkState.LANDED)
        connection.execute(
            update(t.chunks)
            .where(lost)
            .values(state=ChunkState.COLLECTED, emptied=0, updated_at=now_us())
        )

    @writes
    def give_up(
        self, connection: Connection, lease: Lease, chunk_id: str, cost: int | None = None
    ) -> None:
        """Note that nothing of a chunk can be landed (any more): what it cost, or else may have cost, belongs to no row."""
        self._check(connection, lease)
        self._move(
            connection,
            chunk_id,
            (ChunkState.SUBMITTED, ChunkState.COLLECTED, ChunkState.LANDED),
            ChunkState.LANDED,
            emptied=1,
        )
        spent = (
            func.coalesce(t.reservations.c.settled, t.reservations.c.reserved)
            if cost is None
            else cost
        )
        values = {"overhead": spent, "settled": spent, "superseded": 0, "settled_at": now_us()}
        connection.execute(
            update(t.reservations).where(t.reservations.c.chunk_id == chunk_id).values(values)
        )

    @writes
    def balance(self, connection: Connection, lease: Lease, chunk_id: str, rows_cost: int) -> None:
        """Set a landed chunk's overhead so that all landed chunks together cost what the dataset's rows do, and what belongs to none."""
        self._check(connection, lease)
        mine = (t.chunks.c.dataset_id == lease.dataset_id) & (t.chunks.c.state == ChunkState.LANDED)
        query = (
            select(t.reservations)
            .join(t.chunks, t.chunks.c.id == t.reservations.c.chunk_id)
            .where(mine)
        )
        held = sum(
            (row.settled or 0) - (row.superseded or 0) - (row.overhead or 0)
            for row in connection.execute(query)
        )
        more = func.coalesce(t.reservations.c.overhead, 0) + (held - rows_cost)
        connection.execute(
            update(t.reservations)
            .where(t.reservations.c.chunk_id == chunk_id)
            .values(overhead=more)
        )

    @reads
    def money(self, connection: Connection, run_id: str) -> tuple[int, int]:
        """Return (settled, reserved and still in flight) of a run."""
        query = select(t.reservations.c.settled, t.reservations.c.reserved).where(
            t.reservations.c.run_id == run_id
        )
        rows = connection.execute(query).all()
        return sum(row.settled or 0 for row in rows), sum(
            row.reserved for row in rows if row.settled is None
        )

    @reads
    def returning(self, connection: Connection, run_id: str) -> int:
        """Return what a run has in flight and will settle; money of chunks that are held waits for a person."""
        query = select(t.reservations.c.reserved).join(
            t.chunks, t.chunks.c.id == t.reservations.c.chunk_id
        )
        mine = (
            (t.reservations.c.run_id == run_id)
            & t.reservations.c.settled.is_(None)
            & (t.chunks.c.state != ChunkState.HELD)
        )
        return sum(connection.execute(query.where(mine)).scalars())

    @reads
    def in_flight(self, connection: Connection, run_id: str) -> set[str]:
        """Return the chunks of a run for which money is set aside and not settled."""
        query = select(t.reservations.c.chunk_id).where(
            t.reservations.c.run_id == run_id, t.reservations.c.settled.is_(None)
        )
        return set(connection.execute(query).scalars())

    @reads
    def outcomes(
        self, connection: Connection, run_id: str, chunk_ids: Iterable[str] | None = None
    ) -> dict[str, OutcomeTotals]:
        """Return rows, tokens and money per outcome of a run, or of some of its chunks.

        A row counts once, by the outcome of its last round; tokens and money are those of all rounds.
        """
        query = select(t.outcomes).where(t.outcomes.c.run_id == run_id)
        if chunk_ids is not None:
            query = query.where(t.outcomes.c.chunk_id.in_(list(chunk_ids)))
        found: dict[str, OutcomeTotals] = {}
        for row in connection.execute(query):
            tally = OutcomeTotals(**{name: getattr(row, name) for name in OutcomeTotals.__slots__})
            found[row.outcome] = found.get(row.outcome, OutcomeTotals()) + replace(
                tally, rows=row.rows - row.retried
            )
        return found


def _committed(connection: Connection, run_id: str) -> int:
    query = select(t.reservations.c.settled, t.reservations.c.reserved).where(
        t.reservations.c.run_id == run_id
    )
    # summed here: a database's own sum ends at 2^63 picodollars, 9 million dollars
    return sum(
        row.reserved if row.settled is None else row.settled for row in connection.execute(query)
    )
