"""Batches that did not end in time: set aside, given up by a person, taken back if they end.

An overdue chunk is no part of any run's work any more: its run is closed without it. Its rows count
as in flight and its money stays reserved until its batch ends, or somebody abandons it. Then its
bound counts as spent, for no row, and its rows are planned again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import bindparam, func, select, update

from batchata_tasks.common.clock import now_us
from batchata_tasks.common.errors import LedgerError
from batchata_tasks.ledger import tables as t
from batchata_tasks.ledger.chunks import Chunks, chunk_of
from batchata_tasks.ledger.store import reads, writes
from batchata_tasks.ledger.values import Chunk, ChunkState, Lease

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sqlalchemy import Connection

WAITING = (ChunkState.SUBMITTED, ChunkState.OVERDUE)

_HERE, _AT = t.chunks.c.dataset_id == bindparam("dataset_id"), t.chunks.c.updated_at
_IN_STATES = (
    select(t.chunks)
    .where(_HERE, t.chunks.c.state.in_(bindparam("states", expanding=True)))
    .order_by(_AT)
)
_LAST_LANDED = (
    select(func.max(_AT))
    .where(_HERE, t.chunks.c.batch_id.is_not(None), t.chunks.c.state == ChunkState.LANDED)
    .scalar_subquery()
)
_SET_ASIDE_SINCE = (
    select(t.chunks)
    .where(_HERE, t.chunks.c.state == ChunkState.OVERDUE, func.coalesce(_LAST_LANDED, 0) < _AT)
    .order_by(_AT)
)
_SUBMITTED_AT = select(t.batches.c.submitted_at).where(t.batches.c.batch_id == bindparam("named"))


class Overdue(Chunks):
    """The part of the ledger about batches that did not end in time."""

    @writes
    def set_overdue(self, connection: Connection, lease: Lease, chunk_id: str) -> None:
        """Record that a chunk's batch did not end in time: no run waits for it any more."""
        self._check(connection, lease)
        self._move(connection, chunk_id, (ChunkState.SUBMITTED,), ChunkState.OVERDUE)

    @writes
    def set_submitted(self, connection: Connection, lease: Lease, chunk_id: str) -> None:
        """Record that an overdue chunk's batch has ended, and that its rows have to be found."""
        self._check(connection, lease)
        self._move(connection, chunk_id, (ChunkState.OVERDUE,), ChunkState.SUBMITTED)

    @writes
    def rename_batch(
        self, connection: Connection, lease: Lease, chunk_id: str, before: str, after: str
    ) -> None:
        """Record that a chunk's batch has another id than the answer to its create named.

        Raises:
            LedgerError: it is not that chunk's batch (any more), or the new id is another chunk's.
        """
        self._check(connection, lease)
        states = (*WAITING, ChunkState.ABANDONED)
        waiting = (t.chunks.c.id == chunk_id) & t.chunks.c.state.in_(states)
        here = waiting & (t.chunks.c.batch_id == before)
        if connection.execute(update(t.chunks).where(here).values(batch_id=after)).rowcount != 1:
            message = f"chunk {chunk_id} does not wait for batch {before:.100} (any more)."
            raise LedgerError(message)
        that = t.batches.c.batch_id == before
        connection.execute(update(t.batches).where(that).values(batch_id=after))

    @reads
    def was_seen(self, connection: Connection, batch_id: str) -> bool:
        """Whether the provider ever told the status of a batch since it was created."""
        query = select(t.batches.c.looked_at).where(t.batches.c.batch_id == batch_id)
        return connection.execute(query).scalar() is not None

    def is_missing(self, chunk: Chunk) -> bool:
        """Whether the provider never showed a chunk's batch since its create.

        It is waited for, or was abandoned.
        """
        is_open = chunk.state in (*WAITING, ChunkState.ABANDONED)
        return is_open and not self.was_seen(chunk.batch_id or "")

    @writes
    def abandon(self, connection: Connection, lease: Lease, chunk_id: str) -> None:
        """Give a chunk's batch up: its rows are planned again, and its bound counts as spent.

        Of one that landed before, and whose rows were lost, what it cost counts.
        """
        self._check(connection, lease)
        before = (*WAITING, ChunkState.COLLECTED, ChunkState.LANDED)
        self._move(connection, chunk_id, before, ChunkState.ABANDONED)
        r = t.reservations.c
        cost = func.coalesce(r.settled, r.reserved)
        spent = {"settled": cost, "overhead": cost, "settled_at": now_us()}
        spent["superseded"] = func.coalesce(r.superseded, 0)
        connection.execute(update(t.reservations).where(r.chunk_id == chunk_id).values(spent))

    @writes
    def take_back(self, connection: Connection, lease: Lease, chunk_id: str) -> None:
        """Undo `abandon`: the batch has ended after all. Its bound is reserved, until it lands."""
        self._check(connection, lease)
        self._move(connection, chunk_id, (ChunkState.ABANDONED,), ChunkState.OVERDUE)
        here = t.reservations.c.chunk_id == chunk_id
        unknown = dict.fromkeys(("settled", "overhead", "superseded", "settled_at"))
        connection.execute(update(t.reservations).where(here).values(unknown))

    @reads
    def dataset_chunks(
        self, connection: Connection, dataset_id: str, states: Iterable[str]
    ) -> list[Chunk]:
        """Return the chunks of a dataset that are in one of the states, oldest first."""
        which = {"dataset_id": dataset_id, "states": list(states)}
        return [chunk_of(row) for row in connection.execute(_IN_STATES, which)]

    @reads
    def set_aside_since_landing(self, connection: Connection, dataset_id: str) -> list[Chunk]:
        """Return the overdue chunks that were set aside since a batch of the dataset last landed.

        Oldest first.
        """
        which = {"dataset_id": dataset_id}
        return [chunk_of(row) for row in connection.execute(_SET_ASIDE_SINCE, which)]

    @reads
    def chunk_of_batch(self, connection: Connection, batch_id: str) -> Chunk | None:
        """Return the chunk that a batch is; None if the ledger has no such batch."""
        query = select(t.chunks).where(t.chunks.c.batch_id == batch_id)
        row = connection.execute(query).first()
        return None if row is None else chunk_of(row)

    @reads
    def submitted_at(self, connection: Connection, batch_id: str) -> int | None:
        """Return when a batch was recorded, in microseconds since 1970."""
        return connection.execute(_SUBMITTED_AT, {"named": batch_id}).scalar()

    @reads
    def later_runs(self, connection: Connection, run_id: str) -> set[str]:
        """Return the runs of the same dataset that began after a run."""
        this = select(t.runs).where(t.runs.c.id == run_id)
        run = connection.execute(this).one()
        query = select(t.runs.c.id).where(
            t.runs.c.dataset_id == run.dataset_id, t.runs.c.started_at > run.started_at
        )
        return set(connection.execute(query).scalars())
