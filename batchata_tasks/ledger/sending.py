"""Sending: intents before creates, batches after them, and chunks that may have been accepted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import bindparam, delete, func, insert, or_, select, update

from batchata_tasks.common.clock import now_us
from batchata_tasks.common.errors import HeldError, LeaseError, LedgerError
from batchata_tasks.ledger import tables as t
from batchata_tasks.ledger.chunks import Chunks, chunk_of
from batchata_tasks.ledger.store import blocks, reads, writes
from batchata_tasks.ledger.values import (
    SET_ASIDE,
    UNFINISHED,
    Chunk,
    ChunkState,
    Intent,
    KnownBatch,
    Lease,
    RunPhase,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from sqlalchemy import Connection, Row


_OPEN = (*UNFINISHED, *SET_ASIDE)
_INTENT = select(t.intents).where(t.intents.c.chunk_id == bindparam("chunk_id"))
_NO_INTENT = delete(t.intents).where(t.intents.c.chunk_id == bindparam("of_chunk"))
_RIVALS = (
    select(func.count())
    .select_from(t.intents.join(t.chunks, t.chunks.c.id == t.intents.c.chunk_id))
    .where(
        t.intents.c.account == bindparam("account"),
        t.intents.c.requests == bindparam("requests"),
        t.chunks.c.state == ChunkState.UNCLEAR,
        t.chunks.c.id != bindparam("chunk_id"),
    )
)
_RESENDS = select(t.chunks.c.resends).where(t.chunks.c.id == bindparam("chunk_id"))
_NAMED = select(t.batches.c.batch_id).where(t.batches.c.batch_id == bindparam("named"))
_KNOWN = select(
    t.batches.c.batch_id,
    t.batches.c.chunk_id,
    t.batches.c.account,
    t.batches.c.submitted_at,
    t.batches.c.ended_at,
    (t.chunks.c.stop - t.chunks.c.start).label("requests"),
).outerjoin(t.chunks, t.chunks.c.id == t.batches.c.chunk_id)
_KNOWN_IN = _KNOWN.where(t.batches.c.batch_id.in_(bindparam("batch_ids", expanding=True)))
_SENT_UNDER = (
    select(t.batches.c.account, t.intents.c.scope)
    .outerjoin(t.intents, t.intents.c.chunk_id == t.batches.c.chunk_id)
    .where(t.batches.c.batch_id == bindparam("named"))
)
_SCOPES = (
    select(t.chunks.c.provider, t.intents.c.scope)
    .join(t.chunks, t.chunks.c.id == t.intents.c.chunk_id)
    .where(or_(t.intents.c.sent_at >= bindparam("since"), t.chunks.c.state.in_(_OPEN)))
    .distinct()
)
_BATCHES_OF_RUN = (
    select(t.batches, t.chunks.c.state, t.chunks.c.start, t.chunks.c.stop)
    .join(t.chunks, t.chunks.c.id == t.batches.c.chunk_id)
    .where(t.chunks.c.run_id == bindparam("run_id"))
    .order_by(t.batches.c.submitted_at)
)
_LOOK = update(t.batches).where(t.batches.c.batch_id == bindparam("looked"))


class Sending(Chunks):
    """The part of the ledger about what was about to be sent, and what the provider has."""

    @writes
    def record_intent(
        self, connection: Connection, lease: Lease, intent: Intent, *, named: bool = False
    ) -> bool:
        """Write the intent to send a chunk; return whether it may be sent now.

        It may not while another create of the same account and size is unclear: the two could not
        be told apart in a provider's list, unless batches are `named` there.

        Raises:
            LedgerError: the chunk is not planned. If it is unclear, somebody sends it at this
                moment, or may have sent it: its absence must be proven, and the intent withdrawn.
        """
        row = {name: getattr(intent, name) for name in Intent.__slots__}
        self._check(connection, lease)
        # the lease does not suffice: rivals may belong to other datasets
        self.lock(connection, f"sends of account {intent.account}")
        if not named and connection.execute(_RIVALS, row).scalar_one():
            return False
        self._move(connection, intent.chunk_id, (ChunkState.PLANNED,), ChunkState.UNCLEAR)
        connection.execute(_NO_INTENT, {"of_chunk": intent.chunk_id})
        connection.execute(insert(t.intents), row)
        return True

    @writes
    def withdraw_intent(
        self,
        connection: Connection,
        lease: Lease,
        chunk_id: str,
        intent: Intent | None = None,
        *,
        absent: bool = False,
    ) -> None:
        """Delete an intent: it is certain that nothing was accepted.

        It is `absent` if that was concluded from the provider's list, not told by the provider: a
        chunk is sent again only once after that.

        Raises:
            LedgerError: `intent` is given, and another one has replaced it.
        """
        self._check(connection, lease)  # without the lease it may be a successor's intent by now
        if intent is not None and not self._stands(connection, intent):
            message = f"chunk {chunk_id} is sent by another process by now; start the run again."
            raise LedgerError(message)
        more: dict[str, Any] = {}
        if absent:
            before = connection.execute(_RESENDS, {"chunk_id": chunk_id}).scalar_one()
            more["resends"] = before + 1
        self._move(connection, chunk_id, (ChunkState.UNCLEAR,), ChunkState.PLANNED, **more)
        connection.execute(_NO_INTENT, {"of_chunk": chunk_id})

    @writes
    def return_chunk(self, connection: Connection, lease: Lease, chunk_id: str) -> None:
        """Record that the provider accepted a chunk but ran none of it, so it is to be sent again.

        Its money stays reserved.
        """
        self._check(connection, lease)
        self._move(connection, chunk_id, (ChunkState.SUBMITTED,), ChunkState.PLANNED, batch_id=None)

    @writes
    def hold(self, connection: Connection, lease: Lease, chunk_id: str) -> None:
        """Record that nobody can find out any more whether a chunk was accepted.

        Its rows are not planned and its money stays reserved until a person decides.
        """
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
        """Settle a held chunk: it is that batch. Its run is reopened, to land it.

        Raises:
            HeldError: another chunk has a batch of that id.
        """
        self._check(connection, lease)
        self._move(connection, chunk.id, (ChunkState.HELD,), ChunkState.UNCLEAR)
        self._add_batch(connection, chunk, batch_id, account, status)
        its_run = update(t.runs).where(t.runs.c.id == chunk.run_id)
        connection.execute(its_run.values(state=RunPhase.OPEN))

    @writes
    def drop_held(self, connection: Connection, lease: Lease, chunk_id: str) -> None:
        """Settle a held chunk: it was never accepted.

        If its run is open, that run sends its rows; else the next run plans them again.
        """
        self._check(connection, lease)
        query = (
            select(t.runs.c.state)
            .join(t.chunks, t.chunks.c.run_id == t.runs.c.id)
            .where(t.chunks.c.id == chunk_id)
        )
        if connection.execute(query).scalar_one() == RunPhase.OPEN:
            self._move(connection, chunk_id, (ChunkState.HELD,), ChunkState.PLANNED)
            return
        self._move(connection, chunk_id, (ChunkState.HELD,), ChunkState.DROPPED)
        connection.execute(delete(t.reservations).where(t.reservations.c.chunk_id == chunk_id))

    @reads
    def check_intent(self, connection: Connection, lease: Lease, intent: Intent) -> None:
        """Raise LeaseError unless the lease is held and the intent stands.

        It is read right before a create is sent. If another intent has replaced this one, this
        process was taken for dead.
        """
        self._check_held(connection, lease)
        if not self._stands(connection, intent):
            message = (
                f"chunk {intent.chunk_id} is sent by another process by now, "
                "so this one sends nothing; start the run again."
            )
            raise LeaseError(message)

    def _stands(self, connection: Connection, intent: Intent) -> bool:
        row = connection.execute(_INTENT, {"chunk_id": intent.chunk_id}).first()
        return row is not None and _intent_of(row) == intent

    @reads
    def intent(self, connection: Connection, chunk_id: str) -> Intent:
        """Return the intent of a chunk that was sent or may have been."""
        return _intent_of(connection.execute(_INTENT, {"chunk_id": chunk_id}).one())

    @reads
    def unclear_chunks(self, connection: Connection) -> list[tuple[Chunk, Intent]]:
        """Return the chunks of all datasets that may have been accepted, oldest first.

        These are the unclear and the held ones. Each comes with its intent.
        """
        intents = (
            select(*t.intents.c)
            .join(t.chunks, t.chunks.c.id == t.intents.c.chunk_id)
            .where(t.chunks.c.state.in_((ChunkState.UNCLEAR, ChunkState.HELD)))
            .order_by(t.chunks.c.updated_at)
        )
        pairs: list[tuple[Chunk, Intent]] = []
        for row in connection.execute(intents).all():
            chunk = select(t.chunks).where(t.chunks.c.id == row.chunk_id)
            pairs.append((chunk_of(connection.execute(chunk).one()), _intent_of(row)))
        return pairs

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
        """Write the batch id: the chunk is at the provider.

        Refused if the run lost the dataset: its successor looks for the batch at the provider.

        Raises:
            HeldError: another chunk has a batch of that id.
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
        before = (ChunkState.UNCLEAR,)
        self._move(connection, chunk.id, before, ChunkState.SUBMITTED, batch_id=batch_id)
        if connection.execute(_NAMED, {"named": batch_id}).first() is not None:
            message = (
                f"the server gave the id {batch_id:.100} to a second batch, or two servers of this "
                "ledger name their batches alike, so that their results cannot be told apart; use "
                "a ledger of its own (BATCHATA_LEDGER_URL) for each server."
            )
            raise HeldError(message)
        connection.execute(insert(t.batches), row)

    @reads
    def known_batches(self, connection: Connection, batch_ids: Iterable[str]) -> set[str]:
        """Return those of `batch_ids` that already belong to a chunk."""
        return {batch.batch_id for batch in _known(connection, batch_ids)}

    @reads
    def known_as(self, connection: Connection, batch_ids: Iterable[str]) -> dict[str, KnownBatch]:
        """Return what is known of those of `batch_ids` that already belong to a chunk, by id."""
        return {batch.batch_id: batch for batch in _known(connection, batch_ids)}

    @reads
    def newest_batch_at(self, connection: Connection, accounts: Iterable[str]) -> int | None:
        """Return when the newest known batch of an account was sent (microseconds since 1970).

        The account is given by all names that it goes by.
        """
        query = select(func.max(t.batches.c.submitted_at)).where(
            t.batches.c.account.in_(list(accounts))
        )
        return connection.execute(query).scalar()

    @reads
    def sent_under(self, connection: Connection, batch_id: str) -> tuple[str | None, str | None]:
        """Return the account under which a batch was sent, and the settings that select it."""
        row = connection.execute(_SENT_UNDER, {"named": batch_id}).first()
        return (None, None) if row is None else (row.account, row.scope)

    @reads
    def scopes_since(self, connection: Connection, since: int) -> list[tuple[str, str | None]]:
        """Return the providers, and the settings that select an account, of what was sent.

        That is since a moment (microseconds since 1970), or is open.
        """
        rows = connection.execute(_SCOPES, {"since": since})
        return [(row.provider, row.scope) for row in rows]

    @writes
    def record_look(
        self, connection: Connection, batch_id: str, status: str, done: int | None, *, ended: bool
    ) -> None:
        """Record the status of a batch as it was polled; `done` is how many requests have ended."""
        values: dict[str, Any] = {"status": status, "requests_done": done, "looked_at": now_us()}
        if ended:
            values["ended_at"] = now_us()
        connection.execute(_LOOK, {"looked": batch_id, **values})

    @reads
    def batches_of(self, connection: Connection, run_id: str) -> list[Row[Any]]:
        """Return the batches of a run, oldest first."""
        return list(connection.execute(_BATCHES_OF_RUN, {"run_id": run_id}))


def _known(connection: Connection, batch_ids: Iterable[str]) -> Iterator[KnownBatch]:
    for block in blocks(batch_ids):
        for row in connection.execute(_KNOWN_IN, {"batch_ids": block}):
            yield KnownBatch(**{name: getattr(row, name) for name in KnownBatch.__slots__})


def _intent_of(row: Row[Any]) -> Intent:
    return Intent(**{name: getattr(row, name) for name in Intent.__slots__})
