"""Queues of providers: who has how much in them, and whose turn it is to have more.

A provider bounds what an account may have waiting at once: OpenAI the prompt tokens of a model,
Anthropic the requests. So each chunk asks for room before it is sent. It is let in if there is room
for it and for all that have waited longer; so nobody overtakes a large chunk for ever. What was let
in counts until its batch has ended, whichever run sent it and whether or not that is alive: nothing
is counted up or down, but read from the chunks each time.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from sqlalchemy import bindparam, delete, exists, false, func, insert, select, update

from batchata_tasks.ledger import tables as t
from batchata_tasks.ledger.leases import Leases
from batchata_tasks.ledger.queue_line import (
    IN_DOUBT,
    LONGEST_KEPT,
    Line,
    QueueRoom,
    is_held,
    is_in,
    rests,
)
from batchata_tasks.ledger.store import reads, writes
from batchata_tasks.ledger.values import Chunk, ChunkState, Lease

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import ColumnElement, Connection, Row

_SENT = (ChunkState.SUBMITTED, ChunkState.OVERDUE, ChunkState.ABANDONED)
_OF_USE = (ChunkState.PLANNED, *IN_DOUBT, *_SENT)

_PLACES = (
    select(
        *t.queue_places.c,
        t.chunks.c.run_id,
        t.chunks.c.state,
        t.chunks.c.batch_id,
        t.chunks.c.provider,
        t.datasets.c.fence.label("held_with"),
        t.datasets.c.lease_until,
        t.batches.c.ended_at,
    )
    .join(t.chunks, t.chunks.c.id == t.queue_places.c.chunk_id)
    .join(t.datasets, t.datasets.c.id == t.chunks.c.dataset_id)
    .outerjoin(t.batches, t.batches.c.batch_id == t.chunks.c.batch_id)
    .where(t.chunks.c.state.in_(_OF_USE))
    .order_by(t.queue_places.c.since, t.queue_places.c.chunk_id)
)
_PLACES_IN = _PLACES.where(
    t.queue_places.c.account == bindparam("account"), t.queue_places.c.model == bindparam("model")
)
_PLACE = select(t.queue_places).where(t.queue_places.c.chunk_id == bindparam("of_chunk"))
_SET = update(t.queue_places).where(t.queue_places.c.chunk_id == bindparam("placed"))
_IS_PLANNED = exists().where(
    t.chunks.c.id == t.queue_places.c.chunk_id, t.chunks.c.state == ChunkState.PLANNED
)
_LEAVE = delete(t.queue_places).where(
    t.queue_places.c.chunk_id == bindparam("placed"),
    t.queue_places.c.fence == bindparam("asked_with"),
    _IS_PLANNED,
)
_USELESS = delete(t.queue_places).where(
    t.queue_places.c.account == bindparam("at"),
    ~exists().where(t.chunks.c.id == t.queue_places.c.chunk_id, t.chunks.c.state.in_(_OF_USE)),
)
_LIMIT = select(t.queue_limits).where(
    t.queue_limits.c.account == bindparam("account"), t.queue_limits.c.model == bindparam("model")
)
_NO_LIMIT = delete(t.queue_limits).where(
    t.queue_limits.c.account == bindparam("at"), t.queue_limits.c.model == bindparam("of_model")
)
_PROBE = (
    update(t.queue_limits)
    .where(
        t.queue_limits.c.account == bindparam("at"), t.queue_limits.c.model == bindparam("of_model")
    )
    .values(probe=bindparam("by"))
)
_TRIED = (
    select(t.chunks.c.state, t.batches.c.requests_done)
    .outerjoin(t.batches, t.batches.c.batch_id == t.chunks.c.batch_id)
    .where(t.chunks.c.id == bindparam("tried"))
)


class Queue(NamedTuple):
    """A queue of a provider: of an account, for one model, or for all of them if that is empty."""

    account: str
    model: str


@dataclass(frozen=True, slots=True)
class QueueStanding:
    """A queue in which something waits: what it holds, and how many chunks of each run wait.

    `may_go` are the runs of those chunks for which there is room, and that no process holds.
    """

    queue: Queue
    provider: str
    taken: int
    limit: int | None
    runs: int
    waiting: dict[str, int]
    may_go: frozenset[str]


class Queues(Leases):
    """The part of the ledger about the queues of providers."""

    @writes
    def ask_room(
        self,
        connection: Connection,
        lease: Lease,
        chunk: Chunk,
        queue: Queue,
        amount: int,
        stated: int | None,
    ) -> QueueRoom:
        """Ask for room for a planned chunk that takes up `amount`; return whether it is let in.

        Else it has a place in the line from now on, which counts for as long as the lease is held.
        `stated` is the most that the queue holds by the settings.
        """
        self._check(connection, lease)
        self.lock(connection, f"queue of {queue.model} at {queue.account}")
        now = self.clock(connection)
        values = {"amount": amount, "stated": stated, "fence": lease.fence}
        before = connection.execute(_PLACE, {"of_chunk": chunk.id}).first()
        if before is None:
            connection.execute(_USELESS, {"at": queue.account})
            row = {"chunk_id": chunk.id, **queue._asdict(), **values, "since": now}
            connection.execute(insert(t.queue_places), row)
        else:
            # a part of it may fit where the whole did not
            too_little = (before.too_little or None) if amount >= before.amount else None
            moved = {"placed": chunk.id, **queue._asdict(), **values, "too_little": too_little}
            moved["since"] = min(before.since, now)  # a clock may have been ahead
            if before.fence != lease.fence:  # others may have had the room since it was let in
                moved["let_in_at"] = None
            connection.execute(_SET, moved)
        line = _line_of(connection, queue, now)
        room = line.room(chunk.id)
        if room.let_in:
            connection.execute(_SET, {"placed": chunk.id, "let_in_at": now, "kept_until": None})
            if line.outgrown:
                connection.execute(_NO_LIMIT, {"at": queue.account, "of_model": queue.model})
            elif line.is_tried_by(chunk.id):
                probe = {"at": queue.account, "of_model": queue.model, "by": chunk.id}
                connection.execute(_PROBE, probe)
        return room

    @reads
    def room_for(self, connection: Connection, chunk_id: str, queue: Queue) -> QueueRoom | None:
        """Return what `ask_room` would; None if the chunk has no place in the queue."""
        line = _line_of(connection, queue, self.clock(connection))
        return line.room(chunk_id) if line.has(chunk_id) else None

    @writes
    def leave_queue(self, connection: Connection, lease: Lease, chunk_id: str) -> None:
        """Give up the place of a chunk that is not sent; one that may have been sent keeps it."""
        connection.execute(_LEAVE, {"placed": chunk_id, "asked_with": lease.fence})

    @writes
    def refuse_room(
        self, connection: Connection, lease: Lease, chunk: Chunk, queue: Queue, told: int | None
    ) -> QueueRoom:
        """Record that the provider had no room for a chunk that was let in; it waits in line again.

        `told` is the most that the queue holds, if the provider said so. Return the queue without
        the chunk: if that has something `taken`, it is let in again only once some of it has ended.
        """
        self._check(connection, lease)
        self.lock(connection, f"queue of {queue.model} at {queue.account}")
        now = self.clock(connection)
        if connection.execute(_PLACE, {"of_chunk": chunk.id}).first() is None:
            # an older version sent it; how much it takes up is said when it asks
            row = {"chunk_id": chunk.id, **queue._asdict(), "amount": 0, "fence": lease.fence}
            connection.execute(insert(t.queue_places), {**row, "since": now})
        connection.execute(_SET, {"placed": chunk.id, "let_in_at": None})
        if told is not None:
            connection.execute(_NO_LIMIT, {"at": queue.account, "of_model": queue.model})
            row = {**queue._asdict(), "amount": told, "told_at": now, "probe": None}
            connection.execute(insert(t.queue_limits), row)
        line = _line_of(connection, queue, now)
        room = line.room(chunk.id)
        too_little = 0  # whatever the ledger knows of: others than its runs fill the queue
        if told is not None and room.taken:
            # its estimate was too low, or others than this ledger's runs have something there
            too_little = max(told - room.taken, 1)
        connection.execute(_SET, {"placed": chunk.id, "too_little": too_little})
        return room

    @writes
    def keep_places(self, connection: Connection, run_id: str, seconds: float) -> None:
        """Keep the places of a run's waiting chunks for a while, though no process holds it.

        Others than the ledger's runs may have left no room for a chunk. It is tried again after the
        time that is given first, and keeping its place meanwhile does not put that off.
        """
        now = self.clock(connection)
        resting = (t.queue_places.c.too_little == 0) & t.queue_places.c.kept_until.between(
            now, now + LONGEST_KEPT
        )
        waiting = update(t.queue_places).where(
            _waiting_of(run_id), ~func.coalesce(resting, false())
        )
        connection.execute(waiting.values(kept_until=now + int(seconds * 1e6)))

    @writes
    def unkeep_places(self, connection: Connection, run_id: str) -> None:
        """Let nobody heed a run's places but for those that its process waits in.

        The others are where they were in the line once they are asked for again.
        """
        waiting = update(t.queue_places).where(_waiting_of(run_id))
        connection.execute(waiting.values(kept_until=None))

    @writes
    def leave_queues(self, connection: Connection, run_id: str) -> None:
        """Give up the places of a run's waiting chunks: nobody can have it go on.

        If it does all the same, they wait behind all others.
        """
        connection.execute(delete(t.queue_places).where(_waiting_of(run_id)))

    @reads
    def standings(self, connection: Connection) -> list[QueueStanding]:
        """Return the queues in which chunks of open runs wait for room."""
        return standings(connection, self.clock(connection))

    @reads
    def holds(self, connection: Connection, queue: Queue) -> tuple[int, int | None]:
        """Return what a queue holds now, and the most that it does, if its provider told."""
        line = _line_of(connection, queue, self.clock(connection))
        return line.taken, line.told

    @reads
    def unwatched_in(self, connection: Connection, queue: Queue) -> list[str]:
        """Return the batches that a queue holds and whose runs no process has in hand."""
        now = self.clock(connection)
        rows = connection.execute(_PLACES_IN, queue._asdict())
        return [
            str(row.batch_id)
            for row in rows
            if row.batch_id is not None and is_in(row, now) and (row.lease_until or 0) <= now
        ]


def standings(connection: Connection, now: int) -> list[QueueStanding]:
    """See Queues; `now` is by the ledger's clock."""
    by_queue = dict[Queue, list["Row[Any]"]]()
    for row in connection.execute(_PLACES):
        by_queue.setdefault(Queue(row.account, row.model), []).append(row)
    found = list[QueueStanding]()
    for queue, rows in by_queue.items():
        wanting = [row for row in rows if row.let_in_at is None]
        wanting = [row for row in wanting if row.state == ChunkState.PLANNED]
        if not wanting:
            continue
        line, waiting = _line(connection, queue, rows, now), dict[str, int]()
        for row in wanting:
            waiting[row.run_id] = waiting.get(row.run_id, 0) + 1
        rooms = [(row, line.room(row.chunk_id)) for row in wanting]
        may_go = {
            row.run_id
            for row, room in rooms
            if room.let_in and not is_held(row, now) and not rests(row, now)
        }
        first, provider = rooms[0][1], str(wanting[0].provider)
        holds = first.taken, first.limit, first.runs
        found.append(QueueStanding(queue, provider, *holds, waiting, frozenset(may_go)))
    return found


def _waiting_of(run_id: str) -> ColumnElement[bool]:
    """Return what the places of a run's waiting chunks meet."""
    of_run = select(t.chunks.c.id).where(t.chunks.c.run_id == run_id)
    return t.queue_places.c.chunk_id.in_(of_run) & t.queue_places.c.let_in_at.is_(None)


def _line_of(connection: Connection, queue: Queue, now: int) -> Line:
    rows = connection.execute(_PLACES_IN, queue._asdict()).all()
    return _line(connection, queue, rows, now)


def _line(connection: Connection, queue: Queue, rows: Sequence[Row[Any]], now: int) -> Line:
    limit = connection.execute(_LIMIT, queue._asdict()).first()
    tried: Row[Any] | None = None
    if limit is not None and limit.probe is not None:
        tried = cast("Any", connection.execute(_TRIED, {"tried": limit.probe}).first())
    return Line(rows, limit, tried, now)
