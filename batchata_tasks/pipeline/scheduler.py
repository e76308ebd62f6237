"""Lanes: the chunks of a run on their way to the provider and home, some at a time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextvars import copy_context
from dataclasses import dataclass
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

from batchata_tasks.common.errors import (
    BatchataError,
    CredentialsError,
    HeldError,
    LeaseError,
    TerminalError,
)
from batchata_tasks.common.text import pluralize
from batchata_tasks.execution.bound_corrections import stop_if_bounds_outdated
from batchata_tasks.execution.guard import Verdict, guard
from batchata_tasks.execution.queue_full import make_room
from batchata_tasks.execution.run_context import InterruptedRunError
from batchata_tasks.execution.unclear import adopt, hold
from batchata_tasks.ledger import Chunk, ChunkKind, ChunkState

if TYPE_CHECKING:
    from batchata_tasks.execution.run_context import RunContext

Step = Callable[[str, str], dict[str, Any]]
_LOOK = 5.0  # seconds between looks at what other runs have in flight
_PATIENCE = 10.0  # seconds that a run which is left waits for calls under way


@dataclass(frozen=True)
class ChunkSteps:
    """The steps that a chunk takes, each by the ids of its run and of itself."""

    chunk: Step
    submit: Step
    poll: Step
    collect: Step


def run_chunks(context: RunContext, steps: ChunkSteps, chunks: list[Chunk]) -> bool:
    """Bring chunks to the provider and home, some at a time; True when the cost limit stopped it.

    An error of one ends the sending. What is at the provider by then is landed first, since it
    will be paid; then the error is raised.
    """
    lanes, stopped = _Scheduler(context, steps), False
    try:
        queue = _in_order(context, chunks)
        while queue:
            lanes.make_room()
            chunk = queue.pop()
            verdict = Verdict.SEND
            if chunk.state == ChunkState.PLANNED:
                stop_if_bounds_outdated(context)
                if lanes.error is not None or context.stop_reason() is not None:
                    continue
                verdict, chunk, rest = _guarded(context, chunk)
                queue += rest
            if verdict is Verdict.SEND:
                lanes.start(chunk)
            elif verdict is Verdict.WAIT and lanes.busy:
                context.waiting(
                    "a batch under way to end: until then the limit leaves too little for the next one"
                )
                lanes.wait_for_one()
            elif verdict is Verdict.WAIT_FOR_OTHERS:
                lanes.wait_for_others()
            else:
                stopped = True
                if (
                    verdict is Verdict.WAIT
                ):  # for money that nothing under way brings back: rather stop than wait without end
                    queue.pop()
        lanes.wait_for_all()
    except BaseException:
        context.held.stop.set()
        lanes.join()
        raise
    if lanes.error is not None:
        context.ledger.release_unsent(
            context.lease, context.run_id
        )  # others of the budget need not do without it meanwhile
        raise lanes.error
    return stopped


def _in_order(context: RunContext, chunks: list[Chunk]) -> list[Chunk]:
    """Return the chunks, the next one last: in the order of their rows, but first those that hold money.

    A run that died may have set money aside for a chunk behind one that it could not pay for.
    """
    holding = context.ledger.in_flight(context.run_id)
    return sorted(
        chunks, key=lambda chunk: chunk.state == ChunkState.PLANNED and chunk.id not in holding
    )[::-1]


def _guarded(context: RunContext, chunk: Chunk) -> tuple[Verdict, Chunk, list[Chunk]]:
    """Ask the guard; return (verdict, the chunk that is next, what goes back to the queue)."""
    planned = context.plan().requests
    verdict, head = guard(
        context.ledger, context.lease, chunk, context.limits, planned, context.columns_of
    )
    rest: list[Chunk] = []
    if head.stop != chunk.stop:  # it was cut, perhaps more than once
        planned_ones = context.ledger.chunks(chunk.run_id, (ChunkState.PLANNED,))
        rest = [
            one
            for one in planned_ones
            if (one.round, one.kind) == (chunk.round, chunk.kind)
            and head.stop <= one.start < chunk.stop
        ]
    rest.reverse()
    return verdict, head, rest if verdict in (Verdict.SEND, Verdict.ASIDE) else [*rest, head]


class _Scheduler:
    """Chunks on their way, at most `max_parallel_batches` at a time, each in a thread.

    Plain threads: a pool takes nothing more once the interpreter ends, which waits for a run that
    goes on in a thread of its own.
    """

    def __init__(self, context: RunContext, steps: ChunkSteps) -> None:
        self._context, self._steps = context, steps
        self._running: set[threading.Thread] = set()
        self._arrived: SimpleQueue[tuple[threading.Thread, BaseException | None]] = SimpleQueue()
        self._told = False  # that other runs are waited for
        self.error: BatchataError | None = None

    @property
    def busy(self) -> bool:
        """Whether a chunk is on its way."""
        return bool(self._running)

    def start(self, chunk: Chunk) -> None:
        """Send a chunk on its way in a thread that sees this one's context (Prefect's flow run)."""
        self._told = False
        if chunk.kind == ChunkKind.BATCH:
            self._context.number_of(chunk)  # here, since threads come in any order
        # a daemon: one that waits for an answer that never comes does not keep a program from ending
        thread = threading.Thread(
            target=copy_context().run, args=(self._run, chunk), name="chunk", daemon=True
        )
        self._running.add(thread)
        thread.start()

    def _run(self, chunk: Chunk) -> None:
        error: BaseException | None = None
        try:
            self._travel(chunk)
        except BaseException as raised:  # noqa: BLE001 - handed to the thread that waits
            error = raised
        self._arrived.put((threading.current_thread(), error))

    def join(self) -> None:
        """Wait for the threads, whatever becomes of their chunks, but not long: a call may never be answered."""
        until = time.monotonic() + _PATIENCE
        for thread in self._running:
            thread.join(max(until - time.monotonic(), 0))

    def make_room(self) -> None:
        """Wait until another chunk may start."""
        while len(self._running) >= self._context.spec.max_parallel_batches:
            self.wait_for_one()

    def wait_for_one(self) -> None:
        """Wait for a chunk to arrive; the first error is kept, one that leaves no time is raised."""
        thread, error = self._arrived.get()
        self._running.discard(thread)
        if error is None:
            return
        if not isinstance(error, BatchataError) or isinstance(
            error, (LeaseError, InterruptedRunError)
        ):
            raise error
        if self.error is None:
            self.error = self._midway(error)
            if self._running:
                left = pluralize(len(self._running), "batch under way is", "batches under way are")
                self._context.log(f"{error} Nothing more is sent; {left} landed first.")

    def wait_for_others(self) -> None:
        """Wait a while for what other runs of the same budget have in flight; people are told once."""
        if not self._told:
            self._context.waiting("what other runs of the same budget have in flight")
        self._told = True
        self._context.sleep(
            min(self._context.settings.poll_interval or _LOOK, self._context.seconds_left())
        )

    def _midway(self, error: BatchataError) -> BatchataError:
        """Tell a key that is refused half-way from wrong input: something was sent under it."""
        if isinstance(error, CredentialsError) and self._context.ledger.batches_of(
            self._context.run_id
        ):
            return TerminalError(
                f"{error} What was sent goes on at the provider; the next run lands it."
            )
        return error

    def wait_for_all(self) -> None:
        """Wait for every chunk to arrive."""
        while self._running:
            self.wait_for_one()

    def _travel(self, chunk: Chunk) -> None:
        """Bring a chunk home; one that was cut for want of room at the provider comes in its parts, in turn."""
        ahead = [chunk]
        while ahead:
            now = ahead.pop()
            try:
                ahead += reversed(self._once(now))
            except HeldError as error:
                hold(self._context.ledger, self._context.lease, self._context.folder, now.id)
                self._context.log(str(error))

    def _once(self, chunk: Chunk) -> list[Chunk]:
        """Take a chunk through its steps; return what is to be sent again instead."""
        context, run_id, steps = self._context, self._context.run_id, self._steps
        sends = context.sends and context.stop_reason() is None
        if chunk.state == ChunkState.PLANNED and not sends:
            return []
        lost = (
            chunk.state == ChunkState.UNCLEAR and sends and not context.request_file(chunk).exists()
        )
        if chunk.state == ChunkState.PLANNED or lost:
            steps.chunk(run_id, chunk.id)
        if (
            chunk.state == ChunkState.UNCLEAR
            and not sends
            and adopt(context.for_chunk(chunk), chunk) is None
        ):
            context.ledger.withdraw_intent(context.lease, chunk.id)
            return []  # it never was accepted, and nobody wants it any more
        if chunk.kind == ChunkKind.BATCH and chunk.state in (
            ChunkState.PLANNED,
            ChunkState.UNCLEAR,
            ChunkState.SUBMITTED,
        ):
            if chunk.state != ChunkState.SUBMITTED:
                self._tell(
                    chunk,
                    "sending"
                    if chunk.state == ChunkState.PLANNED
                    else "looked for at the provider",
                )
            if steps.submit(run_id, chunk.id)["batch_id"] is None:
                return []
            self._tell(chunk, "at the provider")
            no_room = steps.poll(run_id, chunk.id)["no_room"]
            if (
                no_room
                and sends
                and (again := make_room(context.for_chunk(chunk), context.ledger.chunk(chunk.id)))
            ):
                return again
        if chunk.state != ChunkState.LANDED:
            self._tell(chunk, "landing")
            steps.collect(run_id, chunk.id)
        self._tell(chunk, "landed")
        return []

    def _tell(self, chunk: Chunk, state: str) -> None:
        if chunk.kind != ChunkKind.BATCH:  # rows that are not sent
            return
        self._context.held.progress.chunk(self._context.number_of(chunk), chunk.rows, state)
