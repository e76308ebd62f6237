"""The line at a provider's queue, as the rows of its places tell it: what is in, and who may go."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from batchata_tasks.ledger.values import ChunkState
from batchata_tasks.types.batch_life import LONGEST_LIFE

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from sqlalchemy import Row

IN_DOUBT = (ChunkState.UNCLEAR, ChunkState.HELD)
"""States of a chunk that the provider may hold."""

LONGEST_KEPT = 900_000_000
"""Microseconds; longer than any place is kept."""

# accounts are given larger queues as they are used, and nobody tells: it is tried once a day
_BELIEVED = 86_400_000_000


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


class Line:
    """The places of a queue, those that have waited longest first."""

    def __init__(
        self, rows: Sequence[Row[Any]], told: Row[Any] | None, tried: Row[Any] | None, now: int
    ) -> None:
        self._now = now
        self._rows = {row.chunk_id: row for row in rows}
        self._inside = {row.chunk_id: row for row in rows if is_in(row, now)}
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


def is_held(row: Row[Any], now: int) -> bool:
    """Whether the process that asked for a place is alive."""
    return row.fence == row.held_with and (row.lease_until or 0) > now


def is_in(row: Row[Any], now: int) -> bool:
    """Whether a chunk takes up room at the provider, or is about to."""
    if row.let_in_at is None:
        return False
    if row.state == ChunkState.PLANNED:
        return is_held(row, now)
    is_young = abs(now - row.let_in_at) < int(LONGEST_LIFE * 1e6)
    return is_young and (row.state in IN_DOUBT or row.ended_at is None)


def _waits(row: Row[Any], now: int) -> bool:
    """Whether others heed a chunk's place in the line."""
    if row.let_in_at is not None or row.state != ChunkState.PLANNED:
        return False
    return is_held(row, now) or _is_kept(row, now)


def rests(row: Row[Any], now: int) -> bool:
    """Whether a chunk is not to be tried yet: others than the ledger's runs fill the queue."""
    return row.too_little == 0 and _is_kept(row, now)


def _is_kept(row: Row[Any], now: int) -> bool:
    """Whether a place counts without a process; not if a clock was ahead when it was kept."""
    return now < (row.kept_until or 0) <= now + LONGEST_KEPT


def _ran(tried: Row[Any]) -> bool:
    """Whether a batch was let into the queue: then the provider counts its requests."""
    if tried.state in (ChunkState.COLLECTED, ChunkState.LANDED):
        return True
    return tried.state == ChunkState.SUBMITTED and tried.requests_done is not None
