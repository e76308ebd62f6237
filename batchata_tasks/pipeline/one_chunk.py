"""The way of one chunk, from wherever it was left: chunk → submit → poll → collect → land.

Before it is sent it waits for room in the provider's queue; its money is reserved by then.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from batchata_tasks.execution.intent_files import withdraw
from batchata_tasks.execution.overdue import lacks_results
from batchata_tasks.execution.queue_full import make_room
from batchata_tasks.execution.queue_room import wait_for_turn
from batchata_tasks.execution.unclear import StillUnclearError, adopt
from batchata_tasks.ledger import Chunk, ChunkKind, ChunkState

if TYPE_CHECKING:
    from batchata_tasks.execution.run_context import RunContext
    from batchata_tasks.execution.run_ref import RunRef

Step = Callable[["RunRef", str], dict[str, Any]]
"""A step of a chunk, given the run's name and the chunk's id."""


@dataclass(frozen=True)
class ChunkSteps:
    """The steps that a chunk takes."""

    chunk: Step  # write its request file
    submit: Step
    poll: Step
    collect: Step  # and land its rows


def send_and_land(run: RunContext, steps: ChunkSteps, chunk: Chunk) -> list[Chunk]:
    """Take a chunk through its steps; return the chunks that are to be sent again instead, if any.

    Nothing is sent if the run is to stop, only lands what an earlier one sent, or waits for results
    of any batch.
    """
    sends = _may_send(run, chunk)
    if sends and chunk.kind == ChunkKind.BATCH and chunk.state == ChunkState.PLANNED:
        turn = wait_for_turn(run.for_chunk(chunk), chunk)
        if turn.waits:
            _let_wait(run, chunk)
        if not turn.may_go:
            return list(turn.parts)
    return _send_and_land(run, steps, chunk, sends=sends)


def _send_and_land(run: RunContext, steps: ChunkSteps, chunk: Chunk, *, sends: bool) -> list[Chunk]:
    """Take a chunk that has room at the provider through its steps; see `send_and_land`."""
    ref, is_batch = run.ref, chunk.kind == ChunkKind.BATCH
    if not _is_ready(run, steps, chunk, sends=sends):
        return []
    if is_batch and chunk.state != ChunkState.COLLECTED:
        if not _submit(run, steps, chunk):
            return []
        _report(run, chunk, "at the provider")
        polled = steps.poll(ref, chunk.id)
        if polled.get("waits"):
            _let_wait(run, chunk)
            return []
        if not polled["ended"]:
            run.state.no_results |= lacks_results(run.folder, chunk)
            _report(run, chunk, "overdue")
            return []
        if polled["no_room"] and sends:
            returned = run.ledger.chunk(chunk.id)
            turn = make_room(run.for_chunk(chunk), returned, polled.get("queue_limit"))
            if turn.waits:
                _let_wait(run, chunk)
            if not turn.may_go:
                return list(turn.parts)
    _land(run, steps, chunk)
    return []


def _submit(run: RunContext, steps: ChunkSteps, chunk: Chunk) -> bool:
    """Send a chunk, or look for its batch; return whether it is at the provider."""
    if chunk.state != ChunkState.SUBMITTED:
        unclear = chunk.state == ChunkState.UNCLEAR
        _report(run, chunk, "looked for at the provider" if unclear else "sending")
    is_there = False
    try:
        is_there = steps.submit(run.ref, chunk.id)["batch_id"] is not None
    finally:
        if not is_there:
            run.ledger.leave_queue(run.lease, chunk.id)
    return is_there


def _let_wait(run: RunContext, chunk: Chunk) -> None:
    """Note that this process waits no longer for a chunk."""
    with run.state.lock:
        run.state.waiting.add(chunk.id)


def _land(run: RunContext, steps: ChunkSteps, chunk: Chunk) -> None:
    """Land a chunk, and note whether results of a batch could be had."""
    _report(run, chunk, "landing")
    landed = steps.collect(run.ref, chunk.id)["outcomes"]
    if chunk.kind == ChunkKind.BATCH:
        run.state.no_results = not landed
    _report(run, chunk, "landed" if landed else "overdue")


def _may_send(run: RunContext, chunk: Chunk) -> bool:
    if not run.sends or (chunk.kind == ChunkKind.BATCH and run.state.no_results):
        return False
    # of one that is planned, `submit` asks at the last moment
    return chunk.state == ChunkState.PLANNED or run.stop_reason() is None


def _is_ready(run: RunContext, steps: ChunkSteps, chunk: Chunk, *, sends: bool) -> bool:
    """Whether a chunk goes on to be sent, or was sent before; its requests are written then."""
    planned = chunk.state == ChunkState.PLANNED
    if planned and not sends:
        return False
    if chunk.state == ChunkState.UNCLEAR and not sends:
        try:
            if not _was_accepted(run, chunk):
                return False
        except StillUnclearError:
            _let_wait(run, chunk)
            return False
    if planned or (sends and _lost_its_requests(run, chunk)):
        steps.chunk(run.ref, chunk.id)
    return True


def _was_accepted(run: RunContext, chunk: Chunk) -> bool:
    """Look up a create of unknown fate that is not wanted any more; withdraw it if absent.

    Raises:
        StillUnclearError: nobody knows yet, and a pass of `watch` waits for nothing.
    """
    # each process counts the time of the proof anew: one that let go would never have it
    longest = math.inf if run.held.letting_go.after else 0
    if adopt(run.for_chunk(chunk), chunk, longest) is not None:
        return True
    withdraw(run.folder, run.ledger, run.lease, chunk.id, absent=True)
    return False


def _lost_its_requests(run: RunContext, chunk: Chunk) -> bool:
    return chunk.state == ChunkState.UNCLEAR and not run.request_file(chunk).exists()


def _report(run: RunContext, chunk: Chunk, state: str) -> None:
    if chunk.kind == ChunkKind.BATCH:  # the others are rows that are not sent
        run.held.progress.chunk(run.number_of(chunk), chunk.rows, state)
