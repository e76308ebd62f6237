"""Room in a provider's queue: asked for before a chunk is sent, and waited for in a line.

All runs of a ledger wait in one line (see `ledger/queues.py`), so that none sends what would be
refused, and none is overtaken for ever. The provider decides all the same: estimates may be wrong,
and others may use the account (see `queue_full.py`).
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from batchata_tasks.common.errors import BatchataError, TransientError
from batchata_tasks.common.text import pluralize
from batchata_tasks.execution.guard import split_chunk
from batchata_tasks.execution.look_pace import note_refusal
from batchata_tasks.ledger import Queue
from batchata_tasks.types.batch_life import LONGEST_LIFE
from batchata_tasks.types.ids import chunk_token

if TYPE_CHECKING:
    from batchata_tasks.execution.run_context import BatchContext
    from batchata_tasks.ledger import Chunk, QueueRoom
    from batchata_tasks.providers import QueueRule

KEPT = 180.0
"""Seconds for which a run keeps its places in lines after it let go of its dataset."""

_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 15.0  # seconds between reads of the ledger
_LOOKS_EVERY = 60.0  # seconds between looks at batches that nobody else looks at
_TOLD_EVERY = 600.0  # seconds between lines about a wait
_MARGIN = 10  # per cent that tokens may be more than is likely
_FAR_TOO_LARGE = 2  # times the queue: not by an estimate that may be wrong


@dataclass(frozen=True, slots=True)
class Turn:
    """What becomes of a chunk that asked for room.

    It is sent now if it `may_go`; or the `parts` are sent instead; or it `waits` in the line, and
    this process does not. Else the run is to stop.
    """

    may_go: bool = False
    parts: tuple[Chunk, ...] = ()
    waits: bool = False


def wait_for_turn(context: BatchContext, chunk: Chunk) -> Turn:
    """Wait until there is room for a planned chunk in the provider's queue.

    Raises:
        LeaseError, InterruptedRunError: the dataset went to another run, or this one is to end at
            once.
    """
    if (rule := context.provider.queue) is None:
        return Turn(may_go=True)
    turn = Turn()
    try:
        turn = _Waiting(context, chunk, rule).turn()
    finally:
        if turn == Turn():
            context.ledger.leave_queue(context.lease, chunk.id)
    return turn


def queue_of(context: BatchContext, chunk: Chunk) -> Queue:
    """Return the queue that a chunk goes to."""
    rule = context.provider.queue
    model = chunk.model if rule is not None and rule.per_model else ""
    return Queue(context.provider.account(context.ledger.id), model)


def amount_of(chunk: Chunk, rule: QueueRule) -> int:
    """Return what a chunk takes up in a queue: its requests, or the tokens that they may have."""
    if rule.counts == "requests":
        return chunk.rows
    return amount_of_tokens(chunk.bytes * 2 // 7 if chunk.tokens is None else chunk.tokens)


def amount_of_tokens(likely: int) -> int:
    """Return what requests take up in a queue of tokens that are likely to have so many."""
    return -(-likely * (100 + _MARGIN) // 100)


def is_far_too_large(amount: int, limit: int | None) -> bool:
    """Whether a chunk cannot be meant to be sent by itself: it is split before."""
    return limit is not None and amount > limit * _FAR_TOO_LARGE


class _Waiting:
    """A chunk's wait for room."""

    def __init__(self, context: BatchContext, chunk: Chunk, rule: QueueRule) -> None:
        self._context, self._chunk, self._rule = context, chunk, rule
        self._queue = queue_of(context, chunk)
        self._stated = context.run.queue_limits.of(chunk.provider, chunk.model)
        self._began = self._looked_at = time.monotonic()

    def turn(self) -> Turn:
        """Return what becomes of the chunk once that is known."""
        context, pause = self._context, _FIRST_PAUSE
        amount = amount_of(self._chunk, self._rule)
        letting_go, room = context.run.held.letting_go.after, self._ask(amount)
        while True:
            if is_far_too_large(amount, room.limit) and self._chunk.rows > 1:
                return Turn(parts=self._split(amount, room.limit or 1))
            if room.let_in:
                break
            if context.run.state.failed or context.stop_reason() is not None:
                return Turn()
            if time.monotonic() - self._began >= letting_go:
                context.ledger.keep_places(self._chunk.run_id, KEPT)
                return Turn(waits=True)
            self._tell(room)
            wait = min(context.settings.poll_interval or pause, context.seconds_left())
            context.sleep(min(wait, max(letting_go - (time.monotonic() - self._began), 0.0)))
            pause = min(pause * 1.25, _LONGEST_PAUSE)
            self._look_at_unwatched()
            seen = context.ledger.room_for(self._chunk.id, self._queue)
            room = self._ask(amount) if seen is None or seen.let_in else seen
        with context.run.state.lock:
            context.run.state.queue_told_at = None
        return Turn(may_go=True)

    def _ask(self, amount: int) -> QueueRoom:
        ledger, lease = self._context.ledger, self._context.lease
        return ledger.ask_room(lease, self._chunk, self._queue, amount, self._stated)

    def _split(self, amount: int, limit: int) -> tuple[Chunk, Chunk]:
        """Split off the first rows, as many as the queue holds; return both parts."""
        context, chunk = self._context, self._chunk
        bounds, sizes = context.run.columns_of(chunk)
        rows, total, weights = 0, 0, sizes
        if self._rule.counts == "requests":
            weights = [1] * chunk.rows
        most = limit * sum(weights) // amount
        for weight in weights[:-1]:
            total += weight
            if total > most:
                break
            rows += 1
        rows = max(rows, 1)
        context.log(
            f"the provider's queue holds {limit:,} {self._rule.counts}, so that "
            f"{pluralize(chunk.rows, 'request')} do not go at once: {rows:,} go first."
        )
        head = split_chunk(context.ledger, context.lease, chunk, rows, bounds, sizes)
        tail_id = chunk_token(chunk.run_id, chunk.round, head.stop, chunk.kind)
        return head, context.ledger.chunk(tail_id)

    def _tell(self, room: QueueRoom) -> None:
        """Say what is waited for, once for all chunks of the run, and again after a while."""
        state, now = self._context.run.state, time.monotonic()
        with state.lock:
            if state.queue_told_at is not None and now - state.queue_told_at < _TOLD_EVERY:
                return
            state.queue_told_at = now
        holds = held_in_words(room.taken, room.limit, self._rule.counts, room.runs)
        ahead = f"; {pluralize(room.ahead, 'batch goes', 'batches go')} first" if room.ahead else ""
        self._context.log(f"waiting for room in the provider's queue: {holds}{ahead}.")

    def _look_at_unwatched(self) -> None:
        """Look at batches in the queue that no process has in hand: they may have ended."""
        context, every = self._context, self._context.settings.poll_interval or _LOOKS_EVERY
        if time.monotonic() - self._looked_at < every:
            return
        self._looked_at = time.monotonic()
        wanted = set(context.ledger.unwatched_in(self._queue))
        if not wanted or context.ledger.looks_under(self._queue.account).paused > 0:
            return
        try:
            for look in context.provider.recent(time.time() - LONGEST_LIFE):
                if look.batch_id in wanted and look.ended:
                    context.ledger.record_look(look.batch_id, look.status, look.done, ended=True)
                wanted.discard(look.batch_id)
                if not wanted:
                    return
        except BatchataError as error:
            if isinstance(error, TransientError):
                note_refusal(context.ledger, self._queue.account, error)
            context.log(f"{error} It is asked again later.")


def held_in_words(taken: int, limit: int | None, counts: str, runs: int) -> str:
    """Return what a queue holds, in words: "1.2 M of 2 M tokens, enqueued by 3 runs"."""
    of = "" if limit is None else f" of {shortened(limit)}"
    return f"{shortened(taken)}{of} {counts} enqueued by {pluralize(runs, 'run')}"


def shortened(number: int) -> str:
    """Return a large number with its unit: 2 M, 1.2 M, 350 k, 999."""
    for size, unit in ((10**9, "G"), (10**6, "M"), (10**4, "k")):
        scale = 10**3 if unit == "k" else size
        if number >= size:
            return f"{number / scale:.1f}".removesuffix(".0") + f" {unit}"
    return f"{number:,}"
