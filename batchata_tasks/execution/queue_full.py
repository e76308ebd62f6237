"""A full queue: what to do with a batch that the provider took and then did not let in.

OpenAI limits the tokens that wait in an account's queue, per model, and says so only after a
create: the batch fails, having run nothing. That is a wait, not an error. What the queue holds is
kept, if it was told, and the chunk waits in line again (see `queue_room.py`). If none of the
ledger's batches is there to wait for, the same file is sent again once another one of the account
has ended, or half of it if no other batch waits. A run that may let go of its dataset does so
meanwhile, and is resumed to try again.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from batchata_tasks.common.text import pluralize
from batchata_tasks.execution.cleanup import discard_returned
from batchata_tasks.execution.context import retry_transient
from batchata_tasks.execution.guard import split_chunk
from batchata_tasks.execution.intent_files import delete
from batchata_tasks.execution.queue_room import Turn, amount_of, is_far_too_large, queue_of
from batchata_tasks.execution.submit import wait_for_one
from batchata_tasks.ledger import ChunkState
from batchata_tasks.types.ids import chunk_token

if TYPE_CHECKING:
    from batchata_tasks.execution.run_context import BatchContext
    from batchata_tasks.ledger import Chunk


_TRIED_EVERY = 600.0
"""Seconds after which a run is resumed that let go, since others than its ledger fill a queue."""


def make_room(context: BatchContext, chunk: Chunk, told: int | None) -> Turn:
    """Wait for another batch to end, or split the chunk in two; return what is to be sent again.

    `told` is what the queue holds, if the provider said so. The first half keeps the chunk's place
    and name. A single request that does not fit into an empty queue is to go on as it is: it lands
    with the batch's error.
    """
    ledger = context.ledger
    if _waits_in_line(context, chunk, told):
        _return(context, chunk)
        return Turn(parts=(ledger.chunk(chunk.id),))
    open_batches = retry_transient(
        context, lambda: context.provider.open_batches(chunk.model), times=10
    )
    others = open_batches - {chunk.batch_id or ""}
    if not others and chunk.rows == 1:
        return Turn(may_go=True)
    _return(context, chunk)
    chunk = ledger.chunk(chunk.id)
    if others:
        context.log(
            "the provider's queue is full: waiting until one of the account's batches ends "
            f"({len(others):,} open)."
        )
        if wait_for_one(context, others, chunk.model, _patience(context)):
            return Turn(parts=(chunk,))
        ledger.keep_places(chunk.run_id, _TRIED_EVERY)
        return Turn(waits=True)
    context.log(
        "the provider's queue has no room for "
        f"{pluralize(chunk.rows, 'request')} at once: sending them in halves."
    )
    bounds, sizes = context.run.columns_of(chunk)
    head = split_chunk(ledger, context.lease, chunk, chunk.rows // 2, bounds, sizes)
    tail_id = chunk_token(chunk.run_id, chunk.round, head.stop, chunk.kind)
    return Turn(parts=(head, ledger.chunk(tail_id)))


def _patience(context: BatchContext) -> float:
    """Return for how many seconds this process waits for batches of others.

    Who is not in the line has no place by which `watch` would know to resume it.
    """
    return math.inf if context.provider.queue is None else context.run.held.letting_go.after


def _waits_in_line(context: BatchContext, chunk: Chunk, told: int | None) -> bool:
    """Note that the queue is full; return whether it is enough to ask for room again."""
    if (rule := context.provider.queue) is None:
        return False
    amount = amount_of(chunk, rule)
    if is_far_too_large(amount // chunk.rows, told):
        told = None  # no queue is meant to hold less than a request, so that is a mistake
    room = context.ledger.refuse_room(context.lease, chunk, queue_of(context, chunk), told)
    if told is None:
        return False
    return bool(room.taken) or (chunk.rows > 1 and is_far_too_large(amount, told))


def _return(context: BatchContext, chunk: Chunk) -> None:
    """Take a chunk back that the provider did not let in, so that it can be sent again."""
    if chunk.state == ChunkState.SUBMITTED:
        discard_returned(context, chunk)
        delete(context.folder, chunk.id)
        context.ledger.return_chunk(context.lease, chunk.id)
