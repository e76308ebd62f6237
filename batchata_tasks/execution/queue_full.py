"""A full queue: what to do with a batch that the provider took and then did not let in.

OpenAI limits the tokens that wait in an account's queue, per model, and says so only after a
create: the batch fails, having run nothing. That is a wait, not an error. The same file is sent
again once another batch has ended, or half of it if no other batch waits.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from batchata_tasks.common.text import pluralize
from batchata_tasks.execution.cleanup import discard_returned
from batchata_tasks.execution.context import retry_transient
from batchata_tasks.execution.guard import split_chunk
from batchata_tasks.execution.intent_files import delete
from batchata_tasks.execution.submit import wait_for_one
from batchata_tasks.ledger import ChunkState
from batchata_tasks.types.ids import chunk_token

if TYPE_CHECKING:
    from batchata_tasks.execution.run_context import BatchContext
    from batchata_tasks.ledger import Chunk


def make_room(context: BatchContext, chunk: Chunk) -> list[Chunk]:
    """Wait for another batch to end, or split the chunk in two; return what is to be sent again.

    The first half keeps the chunk's place and name. Returns nothing for a single request that does
    not fit into an empty queue: it lands with the batch's error.
    """
    ledger = context.ledger
    open_batches = retry_transient(
        context, lambda: context.provider.open_batches(chunk.model), times=10
    )
    others = open_batches - {chunk.batch_id or ""}
    if not others and chunk.rows == 1:
        return []
    if chunk.state == ChunkState.SUBMITTED:
        discard_returned(context, chunk)
        delete(context.folder, chunk.id)
        ledger.return_chunk(context.lease, chunk.id)
    chunk = ledger.chunk(chunk.id)
    if others:
        context.log(
            "the provider's queue is full: waiting until one of the account's batches ends "
            f"({len(others):,} open)."
        )
        wait_for_one(context, others, chunk.model)
        return [chunk]
    context.log(
        "the provider's queue has no room for "
        f"{pluralize(chunk.rows, 'request')} at once: sending them in halves."
    )
    bounds, sizes = context.run.columns_of(chunk)
    head = split_chunk(ledger, context.lease, chunk, chunk.rows // 2, bounds, sizes)
    tail_id = chunk_token(chunk.run_id, chunk.round, head.stop, chunk.kind)
    return [head, ledger.chunk(tail_id)]
