"""Runs the chunks of a run concurrently, `max_parallel_batches` at a time, under the guard."""

from __future__ import annotations

import threading
import time
from contextvars import copy_context
from functools import partial
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING

from batchata_tasks.common.errors import (
    BatchataError,
    CredentialsError,
    HeldError,
    LeaseError,
    OtherAccountError,
    TerminalError,
)
from batchata_tasks.common.text import pluralize
from batchata_tasks.execution.bound_corrections import stop_if_bounds_outdated
from batchata_tasks.execution.guard import Verdict, guard
from batchata_tasks.execution.held_dataset import InterruptedRunError, SuspendedRunError
from batchata_tasks.execution.snapshot import awaited, awaited_in_words, others_money_in_words
from batchata_tasks.execution.unclear import hold
from batchata_tasks.ledger import Chunk, ChunkKind, ChunkState
from batchata_tasks.pipeline.one_chunk import send_and_land

if TYPE_CHECKING:
    from batchata_tasks.execution.run_context import RunContext
    from batchata_tasks.pipeline.one_chunk import ChunkSteps

_OTHERS_INTERVAL = 5.0  # seconds between looks at what other runs have in flight
_TICK = 0.2  # seconds between looks whether the run is left
_JOIN_SECONDS = 10.0  # that a run which is left waits for its calls under way


def run_chunks(context: RunContext, steps: ChunkSteps, chunks: list[Chunk]) -> bool:
    """Send chunks and land them, some at a time; return whether the cost limit stopped it.

    An error of one chunk ends the sending. What is at the provider by then is landed first, since
    it will be paid; then the error is raised.
    """
    scheduler = _Scheduler(context, steps)
    try:
        stopped = scheduler.run(_in_order(context, chunks))
    except BaseException:
        context.held.stop.set()
        scheduler.join()
        raise
    if scheduler.error is not None:
        # runs that share the budget need not do without this money meanwhile
        context.ledger.release_unsent(context.lease, context.run_id)
        raise scheduler.error
    return stopped


def _in_order(context: RunContext, chunks: list[Chunk]) -> list[Chunk]:
    """Return the chunks as a stack: in the order of their rows, but first those that hold money.

    A run that died may have reserved money for a chunk that comes after one it could not pay for.
    """
    funded = context.ledger.in_flight(context.run_id)

    def comes_later(chunk: Chunk) -> bool:
        return chunk.state == ChunkState.PLANNED and chunk.id not in funded

    return sorted(chunks, key=comes_later)[::-1]


def _guarded(context: RunContext, chunk: Chunk) -> tuple[Verdict, Chunk, list[Chunk]]:
    """Ask the guard; return its verdict, the next chunk, and what goes back on the stack."""
    planned_rows = context.plan().requests
    verdict, head = guard(
        context.ledger,
        context.lease,
        chunk,
        context.limits,
        planned_rows,
        context.columns_of,
        watched=context.held.letting_go.is_watched,
    )
    rest = _cut_off(context, chunk, head) if head.stop != chunk.stop else []
    if verdict in (Verdict.WAIT, Verdict.WAIT_FOR_OTHERS):
        rest.append(head)
    return verdict, head, rest


def _cut_off(context: RunContext, chunk: Chunk, head: Chunk) -> list[Chunk]:
    """Return the chunks, last rows first, of which `chunk` consists besides `head`."""
    planned = context.ledger.chunks(chunk.run_id, (ChunkState.PLANNED,))
    same_plan = [p for p in planned if (p.round, p.kind) == (chunk.round, chunk.kind)]
    return [p for p in reversed(same_plan) if head.stop <= p.start < chunk.stop]


class _Scheduler:
    """Runs each chunk in a thread.

    Plain threads: a pool accepts nothing more once the interpreter ends, while the interpreter
    waits for a run that goes on in a thread of its own.
    """

    def __init__(self, context: RunContext, steps: ChunkSteps) -> None:
        self._context = context
        self._steps = steps
        self._running: set[threading.Thread] = set()
        self._finished: SimpleQueue[tuple[threading.Thread, BaseException | None]] = SimpleQueue()
        self._waits_since: float | None = None  # for money of others, by `time.monotonic`
        self._lacks_money = False  # that others may return, and does not wait for it any longer
        self._told_of_no_results = False
        self.error: BatchataError | None = None

    def run(self, stack: list[Chunk]) -> bool:
        """Run a stack of chunks until all have ended; return whether the cost limit stopped it."""
        context, stopped = self._context, False
        while stack and self._wait_for_room():
            context.raise_if_left()
            chunk = stack.pop()
            verdict: Verdict | None = Verdict.SEND
            if chunk.state == ChunkState.PLANNED:
                verdict, chunk = self._judged(chunk, stack)
            if verdict is Verdict.SEND:
                self._start(chunk)
            elif verdict is Verdict.WAIT and not self._running:
                if context.state.waiting:  # they may return the money, and are not waited for here
                    break
                # nothing under way returns the money: rather stop than wait without end
                stack.pop()
                stopped = True
            elif verdict is Verdict.WAIT_FOR_OTHERS:
                break
            elif verdict is Verdict.ASIDE:
                stopped = True
        while self._running:
            self._wait_for_one()
        if self.error is None and (context.state.waiting or self._lacks_money):
            self._let_go()
        return stopped

    def _let_go(self) -> None:
        """Give back what is not sent; raise SuspendedRunError, which says what is waited for."""
        context = self._context
        words = awaited_in_words if context.state.waiting else others_money_in_words
        # other runs of the budget need not do without what is reserved for unsent chunks
        context.ledger.release_unsent(context.lease, context.run_id)
        raise SuspendedRunError(words(context), context.ledger.id, context.run_id)

    def _judged(self, chunk: Chunk, stack: list[Chunk]) -> tuple[Verdict | None, Chunk]:
        """Return the guard's verdict on a planned chunk, and the part of it that may be sent.

        The rest goes back on the stack. None if nothing more is sent, or that was waited for.
        """
        context = self._context
        stop_if_bounds_outdated(context)
        if self.error is not None or context.stop_reason() is not None:
            return None, chunk
        if context.state.no_results and chunk.kind == ChunkKind.BATCH:
            stack += self._await_results(chunk)
            return None, chunk
        verdict, chunk, rest = _guarded(context, chunk)
        stack += rest
        if verdict is Verdict.WAIT and self._running:
            context.waiting(
                "a batch under way to end: until then the limit leaves too little for the next one"
            )
            self._wait_for_one()
            return None, chunk
        if verdict is Verdict.WAIT_FOR_OTHERS and self._waited_for_others():
            return None, chunk
        return verdict, chunk

    def _await_results(self, chunk: Chunk) -> list[Chunk]:
        """Wait for a batch that may show that results can be had; without one leave the chunk."""
        if not self._told_of_no_results:
            self._told_of_no_results = True
            self._context.log(
                "results could not be had: this run sends nothing more until a batch of it lands."
            )
        if not self._running:
            return []
        self._wait_for_one()
        return [chunk]

    def join(self) -> None:
        """Wait for the threads to end, but not long: a call may never be answered."""
        until = time.monotonic() + _JOIN_SECONDS
        for thread in self._running:
            thread.join(max(until - time.monotonic(), 0))
        if any(thread.is_alive() for thread in self._running):
            self._context.held.adapters.left = True

    def _start(self, chunk: Chunk) -> None:
        """Run a chunk in a thread with this one's context variables (Prefect's flow run)."""
        self._waits_since = None
        if chunk.kind == ChunkKind.BATCH:
            self._context.number_of(chunk)  # here, since threads come in any order
        # a daemon, since it may wait for an answer that never comes when the program ends
        thread = threading.Thread(
            target=copy_context().run, args=(self._run_one, chunk), name="chunk", daemon=True
        )
        self._running.add(thread)
        thread.start()

    def _run_one(self, chunk: Chunk) -> None:
        error: BaseException | None = None
        try:
            self._send_and_land(chunk)
        except BaseException as raised:  # noqa: BLE001 - handed to the thread that waits
            error = raised
        self._finished.put((threading.current_thread(), error))

    def _send_and_land(self, chunk: Chunk) -> None:
        """Send and land a chunk, or the parts it was split into for lack of room, in turn."""
        context, stack = self._context, [chunk]
        while stack:
            part = stack.pop()
            try:
                stack += reversed(send_and_land(context, self._steps, part))
            except HeldError as error:
                hold(context.ledger, context.lease, context.folder, part.id)
                context.log(str(error))

    def _wait_for_room(self) -> bool:
        """Wait until another chunk may be sent; return False if the run does not wait for that."""
        run = self._context
        while len(self._running) + len(run.state.waiting) >= (
            1 if run.state.one_at_a_time else run.spec.max_parallel_batches
        ):
            if not self._running:
                return False
            self._wait_for_one()
        return True

    def _wait_for_one(self) -> None:
        """Wait for a chunk to end; keep its error, raise one that leaves no time for the rest."""
        thread, error = self._next_ended()
        self._running.discard(thread)
        if error is None:
            self._context.state.one_at_a_time = False
            return
        leaves_no_time = isinstance(error, LeaseError | InterruptedRunError)
        if leaves_no_time or not isinstance(error, BatchataError):
            raise error
        if self.error is None:
            self.error = self._as_midway(error)
            self._context.state.failed = True
            if self._running:
                others = pluralize(
                    len(self._running), "batch under way is", "batches under way are"
                )
                self._context.log(f"{error} Nothing more is sent; {others} landed first.")

    def _next_ended(self) -> tuple[threading.Thread, BaseException | None]:
        """Wait for a chunk to end, unless the run is left: its call may never be answered."""
        while True:
            try:
                return self._finished.get(timeout=_TICK)
            except Empty:
                self._context.raise_if_left()
                self._context.held.progress.waiting(partial(awaited, self._context))

    def _as_midway(self, error: BatchataError) -> BatchataError:
        """Return an error as it is halfway: a key that batches were sent with is no wrong input."""
        context = self._context
        if isinstance(error, OtherAccountError):
            return error  # of settings that are wrong, and named
        if isinstance(error, CredentialsError) and context.ledger.batches_of(context.run_id):
            return TerminalError(
                f"{error} What was sent goes on at the provider; the next run lands it."
            )
        return error

    def _waited_for_others(self) -> bool:
        """Wait a while for money that other runs of the budget have in flight; report it once.

        Returns whether it did: else it has waited for so long that it lets go instead.

        Others may wait for room behind places that this run kept while it was suspended, so nobody
        heeds these until it has the money; it is where it was in the line then.
        """
        context, now = self._context, time.monotonic()
        if self._waits_since is None:
            self._waits_since = now
            context.ledger.unkeep_places(context.run_id)
            context.waiting("what other runs of the same budget have in flight")
        left = self._waits_since + context.held.letting_go.after - now
        if left <= 0:
            self._lacks_money = True
            return False
        interval = context.settings.poll_interval or _OTHERS_INTERVAL
        context.sleep(min(interval, context.seconds_left(), left))
        return True
