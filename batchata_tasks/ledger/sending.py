"""Sending: intents before creates, batches after them, and the chunks of which nobody knows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import delete, func, insert, select, update

from batchata_tasks.common.clock import now_us
from batchata_tasks.ledger import tables as t
from batchata_tasks.ledger.chunks import Chunks, chunk_of
from batchata_tasks.ledger.store import reads, writes
from batchata_tasks.ledger.values import Chunk, ChunkState, Intent, Lease

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sqlalchemy import Connection, Row


class Sending(Chunks):
    """What was about to be sent, and what the provider has."""

    @writes
    def record_intent(self, connection: Connection, lease: Lease, intent: Intent) -> bool:
        """Write the intent to send a chunk, if nothing speaks against it.

        Returns False while another create of the same account and size is of unknown fate: the
        two could not be told apart in a provider's list that carries no names.
        """
        rival = (
            select(func.count())
            .select_from(t.intents.join(t.chunks, t.chunks.c.id == t.intents.c.chunk_id))
            .where(
                t.intents.c.account == intent.account,
                t.intents.c.requests == intent.requests,
                t.chunks.c.state == ChunkState.UNCLEAR,
                t.chunks.c.id != intent.chunk_id,
            )
        )
        self._check(connection, lease)
        self.lock(
            connection, f"sends of account {intent.account}"
        )  # rivals may lie in other datasets
        if connection.execute(rival).scalar_one():
            return False
        self._move(
            connection,
            intent.chunk_id,
            (ChunkState.PLANNED, ChunkState.UNCLEAR),
            ChunkState.UNCLEAR,
        )
        connection.execute(delete(t.intents).where(t.intents.c.chunk_id == intent.chunk_id))
        row = {name: getattr(intent, name) for name in Intent.__slots__}
        connection.execute(insert(t.intents).values(row))
        return True

    @writes
    def withdraw_intent(self, connection: Connection, lease: Lease, chunk_id: str) -> None:
        """Take an intent back: it is certain that nothing was accepted."""
        self._check(connection, lease)  # else it may be a successor's intent by now
        self._move(connection, chunk_id, (ChunkState.UNCLEAR,), ChunkState.PLANNED)
        connection.execute(delete(t.intents).where(t.intents.c.chunk_id == chunk_id))

    @writes
    def return_chunk(self, connection: Connection, lease: Lease, chunk_id: str) -> None:
        """Note that the provider took a chunk and let none of it run: it is to be sent again, its money stays reserved."""
        self._check(connection, lease)
        self._move(connection, chunk_id, (ChunkState.SUBMITTED,), ChunkState.PLANNED, batch_id=None)

    @writes
    def hold(self, connection: Connection, lease: Lease, chunk_id: str) -> None:
        """Note that nobody can tell any more whether a chunk was accepted; its rows and its money are held."""
        self._check(connection, lease)
        self._move(connection, chunk_id, (ChunkState.UNCLEAR,), ChunkState.HELD)

    @writes
    def adopt_held(
        self,
        connection: Connection,
        lease: Lease,
        chunk: Chunk,
        batch_id: str,
        account: str,
        status: str,
    ) -> None:
        """Settle a held chunk: it is that batch. Its run is open again, so that the next one lands it."""
        self._check(connection, lease)
        self._move(connection, chunk.id, (ChunkState.HELD,), ChunkState.UNCLEAR)
        self._add_batch(connection, chunk, batch_id, account, status)
        connection.execute(update(t.runs).where(t.runs.c.id == chunk.run_id).values(state="open"))

    @writes
    def drop_held(self, connection: Connection, lease: Lease, chunk_id: str) -> None:
        """Settle a held chunk: it never was accepted. Its rows are sent by its run, if that is open, or planned again."""
        self._check(connection, lease)
        run_id = connection.execute(
            select(t.chunks.c.run_id).where(t.chunks.c.id == chunk_id)
        ).scalar_one()
        if (
            connection.execute(select(t.runs.c.state).where(t.runs.c.id == run_id)).scalar_one()
            == "open"
        ):
            self._move(connection, chunk_id, (ChunkState.HELD,), ChunkState.PLANNED)
            return
        self._move(connection, chunk_id, (ChunkState.HELD,), ChunkState.DROPPED)
        connection.execute(delete(t.reservations).where(t.reservations.c.chunk_id == chunk_id))

    @reads
    def intent(self, connection: Connection, chunk_id: str) -> Intent:
        """Return the intent of a chunk that was sent or is of unknown fate."""
        return _intent_of(
            connection.execute(select(t.intents).where(t.intents.c.chunk_id == chunk_id)).one()
        )

    @reads
    def doubts(self, connection: Connection) -> list[tuple[Chunk, Intent]]:
        """Return the chunks of all datasets of which nobody knows whether they were accepted, with their intents, oldest first."""
        query = select(t.chunks.c.id, *t.intents.c).join(
            t.intents, t.intents.c.chunk_id == t.chunks.c.id
        )
        in_doubt = t.chunks.c.state.in_((ChunkState.UNCLEAR, ChunkState.HELD))
        rows = connection.execute(query.where(in_doubt).order_by(t.chunks.c.updated_at)).all()
        return [
            (
                chunk_of(connection.execute(select(t.chunks).where(t.chunks.c.id == row.id)).one()),
                _intent_of(row),
            )
            for row in rows
        ]

    @writes
    def record_batch(
        self,
        connection: Connection,
        lease: Lease,
        chunk: Chunk,
        batch_id: str,
        account: str,
        status: str,
    ) -> None:
        """Write the batch id; the chunk is at the provider.

        A run that lost the dataset may not: its successor finds the batch by looking.
        """
        self._check(connection, lease)
        self._add_batch(connection, chunk, batch_id, account, status)

    def _add_batch(
        self, connection: Connection, chunk: Chunk, batch_id: str, account: str, status: str
    ) -> None:
        row = {
            "batch_id": batch_id,
            "chunk_id": chunk.id,
            "provider": chunk.provider,
            "account": account,
            "status": status,
            "submitted_at": now_us(),
        }
        self._move(
            connection, chunk.id, (ChunkState.UNCLEAR,), ChunkState.SUBMITTED, batch_id=batch_id
        )
        connection.execute(insert(t.batches).values(row))

    @reads
    def known_batches(self, connection: Connection, batch_ids: Iterable[str]) -> set[str]:
        """Return those of `batch_ids` that already belong to a chunk."""
        query = select(t.batches.c.batch_id).where(t.batches.c.batch_id.in_(list(batch_ids)))
        return set(connection.execute(query).scalars())

    @reads
    def account_of(self, connection: Connection, batch_id: str) -> str | None:
        """Return the account under which a batch was sent."""
        return connection.execute(
            select(t.batches.c.account).where(t.batches.c.batch_id == batch_id)
        ).scalar()

    @writes
    def record_look(
        self, connection: Connection, batch_id: str, status: str, done: int | None, *, ended: bool
    ) -> None:
        """Write what a look at a batch found that was not known yet."""
        values: dict[str, Any] = {"status": status, "requests_done": done, "looked_at": now_us()}
        if ended:
            values["ended_at"] = now_us()
        connection.execute(update(t.batches).where(t.batches.c.batch_id == batch_id).values(values))

    @reads
    def batches_of(self, connection: Connection, run_id: str) -> list[Row[Any]]:
        """Return the batches of a run, oldest first."""
        query = (
            select(t.batches, t.chunks.c.state, t.chunks.c.start, t.chunks.c.stop)
            .join(t.chunks, t.chunks.c.id == t.batches.c.chunk_id)
            .where(t.chunks.c.run_id == run_id)
            .order_by(t.batches.c.submitted_at)
        )
        return list(connection.execute(query).all())


def _intent_of(row: Row[Any]) -> Intent:
    return Intent(**{name: getattr(row, name) for name in Intent.__slots__})
