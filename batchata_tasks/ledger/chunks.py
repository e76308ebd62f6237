"""Chunks: looked up by run, state or dataset, split in two, moved from state to state."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import bindparam, delete, insert, select, update

from batchata_tasks.common.clock import now_us
from batchata_tasks.common.errors import LedgerError
from batchata_tasks.ledger import tables as t
from batchata_tasks.ledger.leases import Leases
from batchata_tasks.ledger.store import blocks, reads, writes
from batchata_tasks.ledger.values import SET_ASIDE, UNFINISHED, Chunk, ChunkState, Lease

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sqlalchemy import Connection, Row


# made once: making a statement takes longer than running it
_CHUNK = select(t.chunks).where(t.chunks.c.id == bindparam("chunk_id"))
_CHUNKS_OF_RUN = (
    select(t.chunks)
    .where(t.chunks.c.run_id == bindparam("run_id"))
    .order_by(t.chunks.c.round, t.chunks.c.start)
)
_CHUNKS_OF_RUN_IN = _CHUNKS_OF_RUN.where(t.chunks.c.state.in_(bindparam("states", expanding=True)))
_UNFINISHED = select(t.chunks).where(
    t.chunks.c.dataset_id == bindparam("dataset_id"),
    t.chunks.c.run_id != bindparam("but_run"),
    t.chunks.c.state.in_((*UNFINISHED, *SET_ASIDE)),
)
_LANDED = select(t.chunks).where(
    t.chunks.c.dataset_id == bindparam("dataset_id"),
    t.chunks.c.state == ChunkState.LANDED,
    t.chunks.c.emptied == bindparam("emptied"),
)
_MOVED = update(t.chunks).where(
    t.chunks.c.id == bindparam("moved"),
    t.chunks.c.state.in_(bindparam("before", expanding=True)),
)


class Chunks(Leases):
    """The part of the ledger about chunks."""

    @reads
    def chunk(self, connection: Connection, chunk_id: str) -> Chunk:
        """Return one chunk."""
        return chunk_of(connection.execute(_CHUNK, {"chunk_id": chunk_id}).one())

    @reads
    def existing_chunks(self, connection: Connection, chunk_ids: Iterable[str]) -> list[Chunk]:
        """Return those of a few chunks that there are."""
        rows = (connection.execute(_CHUNK, {"chunk_id": name}).first() for name in chunk_ids)
        return [chunk_of(row) for row in rows if row is not None]

    @reads
    def states_of(self, connection: Connection, chunk_ids: Iterable[str]) -> dict[str, str]:
        """Return the states of those chunks that there are, by id."""
        states = dict[str, str]()
        for block in blocks(chunk_ids):
            query = select(t.chunks.c.id, t.chunks.c.state).where(t.chunks.c.id.in_(block))
            states |= {row.id: row.state for row in connection.execute(query)}
        return states

    @reads
    def chunks(
        self, connection: Connection, run_id: str, states: Iterable[str] | None = None
    ) -> list[Chunk]:
        """Return the chunks of a run in the order of their rows."""
        if states is None:
            rows = connection.execute(_CHUNKS_OF_RUN, {"run_id": run_id})
        else:
            which = {"run_id": run_id, "states": list(states)}
            rows = connection.execute(_CHUNKS_OF_RUN_IN, which)
        return [chunk_of(row) for row in rows]

    @reads
    def chunks_in(self, connection: Connection, states: Iterable[str]) -> list[Chunk]:
        """Return the chunks of all datasets that are in one of the states, oldest first."""
        query = (
            select(t.chunks)
            .where(t.chunks.c.state.in_(list(states)))
            .order_by(t.chunks.c.updated_at)
        )
        return [chunk_of(row) for row in connection.execute(query)]

    @reads
    def landed_chunks(self, connection: Connection, dataset_id: str) -> list[Chunk]:
        """Return the landed chunks of a dataset that should still have rows in it."""
        return self._landed(connection, dataset_id, 0)

    @reads
    def emptied_chunks(self, connection: Connection, dataset_id: str) -> list[Chunk]:
        """Return the landed chunks of a dataset whose rows have all been superseded."""
        return self._landed(connection, dataset_id, 1)

    def _landed(self, connection: Connection, dataset_id: str, emptied: int) -> list[Chunk]:
        which = {"dataset_id": dataset_id, "emptied": emptied}
        return [chunk_of(row) for row in connection.execute(_LANDED, which)]

    @reads
    def order_of(self, connection: Connection, dataset_id: str) -> list[str]:
        """Return the ids of a dataset's chunks, in the order in which they were planned."""
        query = (
            select(t.chunks.c.id)
            .join(t.runs, t.runs.c.id == t.chunks.c.run_id)
            .where(t.chunks.c.dataset_id == dataset_id)
            .order_by(t.runs.c.started_at, t.chunks.c.round, t.chunks.c.start)
        )
        return list(connection.execute(query).scalars())

    @reads
    def unfinished_chunks(
        self, connection: Connection, dataset_id: str, but_run: str
    ) -> list[Chunk]:
        """Return the chunks whose rows are in flight, unlanded or held, except those of one run."""
        which = {"dataset_id": dataset_id, "but_run": but_run}
        return [chunk_of(row) for row in connection.execute(_UNFINISHED, which)]

    @writes
    def split_chunk(
        self, connection: Connection, lease: Lease, chunk: Chunk, head: Chunk, tail: Chunk
    ) -> None:
        """Replace an unsent chunk by two chunks: its first rows, and the rest.

        If money is reserved for it, each part gets a reservation of its own.

        Raises:
            LedgerError: the chunk was sent, so it cannot be split.
        """
        self._check(connection, lease)
        unsent = (t.chunks.c.id == chunk.id) & (t.chunks.c.state == ChunkState.PLANNED)
        if connection.execute(delete(t.chunks).where(unsent)).rowcount != 1:
            message = f"chunk {chunk.id} is not {ChunkState.PLANNED}, so it cannot be split."
            raise LedgerError(message)
        connection.execute(insert(t.chunks).values(chunk_row(head)))
        connection.execute(insert(t.chunks).values(chunk_row(tail)))
        here = t.reservations.c.chunk_id == chunk.id
        reserved = connection.execute(select(t.reservations).where(here)).mappings().first()
        if reserved is not None:
            connection.execute(delete(t.reservations).where(here))
            for part in (head, tail):
                row = {**reserved, "chunk_id": part.id, "reserved": part.bound or 0}
                connection.execute(insert(t.reservations).values(row))

    def _move(
        self,
        connection: Connection,
        chunk_id: str,
        before: Iterable[str],
        after: str,
        **values: Any,
    ) -> None:
        """Move a chunk to the state `after`.

        Raises:
            LedgerError: it is in none of the states `before`; nothing is written.
        """
        facts = {"moved": chunk_id, "before": list(before), "state": after, "updated_at": now_us()}
        if connection.execute(_MOVED, facts | values).rowcount != 1:
            states = ", ".join(before)
            message = f"chunk {chunk_id} is in none of the states {states}: it cannot be {after}."
            raise LedgerError(message)


def chunk_of(row: Row[Any]) -> Chunk:
    """Return the chunk in a row of the table."""
    return Chunk(**{name: getattr(row, name) for name in Chunk.__slots__})


def chunk_row(chunk: Chunk) -> dict[str, Any]:
    """Return the row to write for a chunk now."""
    return {name: getattr(chunk, name) for name in Chunk.__slots__} | {"updated_at": now_us()}


def reservation_row(chunk: Chunk) -> dict[str, Any]:
    """Return the row that reserves a chunk's bound for its run."""
    return {
        "chunk_id": chunk.id,
        "run_id": chunk.run_id,
        "reserved": chunk.bound or 0,
        "reserved_at": now_us(),
    }
