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
from batchata_tasks.ledger.store import reads, writes
from batchata_tasks.ledger.values import Chunk, ChunkState, Lease
from batchata_tasks.types.batch_life import LONGEST_LIFE

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from sqlalchemy import ColumnElement, Connection, Row

_HOUR = 3_600_000_000
# accounts are given larger queues as they are used, and nobody tells: it is tried once a day
_BELIEVED = 24 * _HOUR
_KEPT = 900_000_000  # longer than any place is kept
_SENT = (ChunkState.SUBMITTED, ChunkState.OVERDUE, ChunkState.ABANDONED)
_IN_DOUBT = (ChunkState.UNCLEAR, ChunkState.HELD)
_OF_USE = (ChunkState.PLANNED, *_IN_DOUBT, *_SENT)

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
class QueueRoom:
    """A queue as a chunk finds it that asks for room.

    It holds `taken` of `limit` (None: unknown), by that many `runs`; `ahead` are the chunks that
    have waited longer. `let_in` says whether there is room for it.
    """

    let_in: bool
    taken: int
    limit: int | None
    runs: int
    ahead: int


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
        rests = (t.queue_places.c.too_little == 0) & t.queue_places.c.kept_until.between(
            now, now + _KEPT
        )
        waiting = update(t.queue_places).where(_waiting_of(run_id), ~func.coalesce(rests, false()))
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
            if row.batch_id is not None and _is_in(row, now) and (row.lease_until or 0) <= now
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
            if room.let_in and not _is_held(row, now) and not _rests(row, now)
        }
        first, provider = rooms[0][1], str(wanting[0].provider)
        holds = first.taken, first.limit, first.runs
        found.append(QueueStanding(queue, provider, *holds, waiting, frozenset(may_go)))
    return found


def _waiting_of(run_id: str) -> ColumnElement[bool]:
    """Return what the places of a run's waiting chunks meet."""
    of_run = select(t.chunks.c.id).where(t.chunks.c.run_id == run_id)
    return t.queue_places.c.chunk_id.in_(of_run) & t.queue_places.c.let_in_at.is_(None)


def _line_of(connection: Connection, queue: Queue, now: int) -> _Line:
    rows = connection.execute(_PLACES_IN, queue._asdict()).all()
    return _line(connection, queue, rows, now)


def _line(connection: Connection, queue: Queue, rows: Sequence[Row[Any]], now: int) -> _Line:
    limit = connection.execute(_LIMIT, queue._asdict()).first()
    tried: Row[Any] | None = None
    if limit is not None and limit.probe is not None:
        tried = cast("Any", connection.execute(_TRIED, {"tried": limit.probe}).first())
    return _Line(rows, limit, tried, now)


class _Line:
    """The places of a queue, those that have waited longest first."""

    def __init__(
        self, rows: Sequence[Row[Any]], told: Row[Any] | None, tried: Row[Any] | None, now: int
    ) -> None:
        self._now = now
        self._rows = {row.chunk_id: row for row in rows}
        self._inside = {row.chunk_id: row for row in rows if _is_in(row, now)}
        self._waiting = [row for row in rows if _waits(row, now)]
        self._told = told
        # told in the future: by a clock that was ahead, nobody knows when
        self._is_old = told is not None and abs(now - told.told_at) > _BELIEVED
        # a batch beyond the limit that began to run shows that it has grown
        self.outgrown = self._is_old and tried is not None and _ran(tried)

    @property
    def taken(self) -> int:
        """What the queue holds."""
        return sum(row.amount for row in self._inside.values())

    @property
    def told(self) -> int | None:
        """The most that it holds as its provider told."""
        return None if self._told is None or self.outgrown else int(self._told.amount)

    def has(self, chunk_id: str) -> bool:
        """Whether a chunk has a place."""
        return chunk_id in self._rows

    def room(self, chunk_id: str) -> QueueRoom:
        """Return how a chunk finds the queue that has a place in it."""
        own = self._rows[chunk_id]
        inside = [row for name, row in self._inside.items() if name != chunk_id]
        taken, is_tried = sum(row.amount for row in inside), self.is_tried_by(chunk_id)
        ahead = [row for row in self._waiting if self._goes_before(row, own)]
        # what is tried counts for nothing meanwhile, lest the chunk be split by it before it goes
        limit = own.stated if is_tried else self._limit_for(own)
        let_in = (
            chunk_id in self._inside
            or is_tried
            or limit is None
            or self._fits(own, taken, ahead, limit)
        )
        runs = len({row.run_id for row in inside})
        return QueueRoom(let_in, taken, limit, runs, len(ahead))

    def is_tried_by(self, chunk_id: str) -> bool:
        """Whether a chunk goes beyond a limit that was told long ago, to see whether it holds."""
        own = self._rows[chunk_id]
        if self._told is None or not self._is_old or self.outgrown:
            return False
        if self._told.probe in self._inside and self._told.probe != chunk_id:
            return False
        if own.stated is not None and own.stated <= self._told.amount:
            return False
        ahead = [row for row in self._waiting if self._goes_before(row, own)]
        taken = sum(row.amount for name, row in self._inside.items() if name != chunk_id)
        fits_stated = own.stated is None or self._fits(own, taken, ahead, own.stated)
        return fits_stated and not ahead and taken + _amount(own) > self._told.amount

    def _limit_for(self, own: Row[Any]) -> int | None:
        """Return the most that the queue holds, as far as it is known."""
        return min((one for one in (own.stated, self.told) if one is not None), default=None)

    def _goes_before(self, row: Row[Any], own: Row[Any]) -> bool:
        if (row.since, row.chunk_id) >= (own.since, own.chunk_id):
            return False
        # a place that a run kept while it was suspended, and has not asked for again since
        return row.run_id != own.run_id or row.fence == own.fence

    @staticmethod
    def _fits(own: Row[Any], taken: int, ahead: Iterable[Row[Any]], limit: int) -> bool:
        wanted = [_amount(row) for row in ahead]
        if not wanted and not taken:
            return True  # by itself it is sent even if it seems too large: the provider decides
        return taken + sum(wanted) + _amount(own) <= limit


def _amount(row: Row[Any]) -> int:
    """Return what a waiting chunk needs: more than the room in which there was none for it."""
    return int(row.amount if row.too_little is None else max(row.amount, row.too_little + 1))


def _is_held(row: Row[Any], now: int) -> bool:
    """Whether the process that asked for a place is alive."""
    return row.fence == row.held_with and (row.lease_until or 0) > now


def _is_in(row: Row[Any], now: int) -> bool:
    """Whether a chunk takes up room at the provider, or is about to."""
    if row.let_in_at is None:
        return False
    if row.state == ChunkState.PLANNED:
        return _is_held(row, now)
    is_young = abs(now - row.let_in_at) < int(LONGEST_LIFE * 1e6)
    return is_young and (row.state in _IN_DOUBT or row.ended_at is None)


def _waits(row: Row[Any], now: int) -> bool:
    """Whether others heed a chunk's place in the line."""
    if row.let_in_at is not None or row.state != ChunkState.PLANNED:
        return False
    return _is_held(row, now) or _is_kept(row, now)


def _rests(row: Row[Any], now: int) -> bool:
    """Whether a chunk is not to be tried yet: others than the ledger's runs fill the queue."""
    return row.too_little == 0 and _is_kept(row, now)


def _is_kept(row: Row[Any], now: int) -> bool:
    """Whether a place counts without a process; not if a clock was ahead when it was kept."""
    return now < (row.kept_until or 0) <= now + _KEPT


def _ran(tried: Row[Any]) -> bool:
    """Whether a batch was let into the queue: then the provider counts its requests."""
    if tried.state in (ChunkState.COLLECTED, ChunkState.LANDED):
        return True
    return tried.state == ChunkState.SUBMITTED and tried.requests_done is not None
