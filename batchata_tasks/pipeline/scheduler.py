"""Lanes: the chunks of a run on their way to the provider and home, some at a time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextvars import copy_context
from dataclasses import dataclass
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

from batchata_tasks.common.errors import BatchataError, CredentialsError, HeldError, LeaseError, TerminalError
from batchata_tasks.common.text import counted
from batchata_tasks.execution.bound_corrections import heed_corrections
from batchata_tasks.execution.guard import Verdict, guard
from batchata_tasks.execution.queue_full import make_room
from batchata_tasks.execution.run_context import InterruptedRunError
from batchata_tasks.execution.unclear import adopt, hold
from batchata_tasks.ledger import LANDED, PLANNED, SUBMITTED, UNCLEAR, Chunk

if TYPE_CHECKING:
    from batchata_tasks.execution.run_context import Session

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


def bring_home(session: Session, steps: ChunkSteps, chunks: list[Chunk]) -> bool:
    """Bring chunks to the provider and home, some at a time; True when the cost limit stopped it.

    An error of one ends the sending. What is at the provider by then is landed first, since it
    will be paid; then the error is raised.
    """
    lanes, stopped = _Lanes(session, steps), False
    try:
        queue = _in_order(session, chunks)
        while queue:
            lanes.make_room()
            chunk = queue.pop()
            verdict = Verdict.SEND
            if chunk.state == PLANNED:
                heed_corrections(session)
                if lanes.error is not None or session.stop_reason() is not None:
                    continue
                verdict, chunk, rest = _guarded(session, chunk)
                queue += rest
            if verdict is Verdict.SEND:
                lanes.start(chunk)
            elif verdict is Verdict.WAIT and lanes.busy:
                session.waiting("a batch under way to end: until then the limit leaves too little for the next one")
                lanes.wait_for_one()
            elif verdict is Verdict.WAIT_FOR_OTHERS:
                lanes.wait_for_others()
            else:
                stopped = True
                if verdict is Verdict.WAIT:  # for money that nothing under way brings back: rather stop than wait without end
                    queue.pop()
        lanes.wait_for_all()
    except BaseException:
        session.site.stop.set()
        lanes.join()
        raise
    if lanes.error is not None:
        session.ledger.release_unsent(session.lease, session.run_id)  # others of the budget need not do without it meanwhile
        raise lanes.error
    return stopped


def _in_order(session: Session, chunks: list[Chunk]) -> list[Chunk]:
    """Return the chunks, the next one last: in the order of their rows, but first those that hold money.

    A run that died may have set money aside for a chunk behind one that it could not pay for.
    """
    holding = session.ledger.in_flight(session.run_id)
    return sorted(chunks, key=lambda chunk: chunk.state == PLANNED and chunk.id not in holding)[::-1]


def _guarded(session: Session, chunk: Chunk) -> tuple[Verdict, Chunk, list[Chunk]]:
    """Ask the guard; return (verdict, the chunk that is next, what goes back to the queue)."""
    planned = session.plan().requests
    verdict, head = guard(session.ledger, session.lease, chunk, session.limits, planned, session.columns_of)
    rest: list[Chunk] = []
    if head.stop != chunk.stop:  # it was cut, perhaps more than once
        planned_ones = session.ledger.chunks(chunk.run_id, (PLANNED,))
        rest = [one for one in planned_ones if (one.round, one.kind) == (chunk.round, chunk.kind) and head.stop <= one.start < chunk.stop]
    rest.reverse()
    return verdict, head, rest if verdict in (Verdict.SEND, Verdict.ASIDE) else [*rest, head]


class _Lanes:
    """Chunks on their way, at most `max_parallel_batches` at a time, each in a thread.

    Plain threads: a pool takes nothing more once the interpreter ends, which waits for a run that
    goes on in a thread of its own.
    """

    def __init__(self, session: Session, steps: ChunkSteps) -> None:
        self._session, self._steps = session, steps
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
        if chunk.kind == "batch":
            self._session.number_of(chunk)  # here, since threads come in any order
        # a daemon: one that waits for an answer that never comes does not keep a program from ending
        thread = threading.Thread(target=copy_context().run, args=(self._run, chunk), name="chunk", daemon=True)
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
        while len(self._running) >= self._session.spec.max_parallel_batches:
            self.wait_for_one()

    def wait_for_one(self) -> None:
        """Wait for a chunk to arrive; the first error is kept, one that leaves no time is raised."""
        thread, error = self._arrived.get()
        self._running.discard(thread)
        if error is None:
            return
        if not isinstance(error, BatchataError) or isinstance(error, (LeaseError, InterruptedRunError)):
            raise error
        if self.error is None:
            self.error = self._midway(error)
            if self._running:
                left = counted(len(self._running), "batch under way is", "batches under way are")
                self._session.say(f"{error} Nothing more is sent; {left} landed first.")

    def wait_for_others(self) -> None:
        """Wait a while for what other runs of the same budget have in flight; people are told once."""
        if not self._told:
            self._session.waiting("what other runs of the same budget have in flight")
        self._told = True
        self._session.sleep(min(self._session.settings.poll_interval or _LOOK, self._session.seconds_left()))

    def _midway(self, error: BatchataError) -> BatchataError:
        """Tell a key that is refused half-way from wrong input: something was sent under it."""
        if isinstance(error, CredentialsError) and self._session.ledger.batches_of(self._session.run_id):
            return TerminalError(f"{error} What was sent goes on at the provider; the next run lands it.")
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
                hold(self._session.ledger, self._session.lease, self._session.folder, now.id)
                self._session.say(str(error))

    def _once(self, chunk: Chunk) -> list[Chunk]:
        """Take a chunk through its steps; return what is to be sent again instead."""
        session, run_id, steps = self._session, self._session.run_id, self._steps
        sends = session.sends and session.stop_reason() is None
        if chunk.state == PLANNED and not sends:
            return []
        lost = chunk.state == UNCLEAR and sends and not session.request_file(chunk).exists()
        if chunk.state == PLANNED or lost:
            steps.chunk(run_id, chunk.id)
        if chunk.state == UNCLEAR and not sends and adopt(session.at(chunk), chunk) is None:
            session.ledger.withdraw_intent(session.lease, chunk.id)
            return []  # it never was accepted, and nobody wants it any more
        if chunk.kind == "batch" and chunk.state in (PLANNED, UNCLEAR, SUBMITTED):
            if chunk.state != SUBMITTED:
                self._tell(chunk, "sending" if chunk.state == PLANNED else "looked for at the provider")
            if steps.submit(run_id, chunk.id)["batch_id"] is None:
                return []
            self._tell(chunk, "at the provider")
            no_room = steps.poll(run_id, chunk.id)["no_room"]
            if no_room and sends and (again := make_room(session.at(chunk), session.ledger.chunk(chunk.id))):
                return again
        if chunk.state != LANDED:
            self._tell(chunk, "landing")
            steps.collect(run_id, chunk.id)
        self._tell(chunk, "landed")
        return []

    def _tell(self, chunk: Chunk, state: str) -> None:
        if chunk.kind != "batch":  # rows that are not sent
            return
        self._session.site.progress.chunk(self._session.number_of(chunk), chunk.rows, state)
