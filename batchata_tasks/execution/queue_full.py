"""Room: what to do with a batch that the provider took and then did not let in, its queue being full.

OpenAI bounds the tokens that wait in an account's queue, per model, and tells only after a create:
the batch fails, having run nothing. That is a wait, not an error. The same file is sent again when
another batch has ended; where nothing else waits, half of it is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from batchata_tasks.common.text import pluralize
from batchata_tasks.execution.context import retry_transient
from batchata_tasks.execution.guard import cut
from batchata_tasks.execution.submit import wait_for_one
from batchata_tasks.ledger import ChunkState
from batchata_tasks.types.ids import chunk_token

if TYPE_CHECKING:
    from batchata_tasks.execution.run_context import BatchContext
    from batchata_tasks.ledger import Chunk


def make_room(context: BatchContext, chunk: Chunk) -> list[Chunk]:
    """Return the chunk as it is to be sent again, in halves perhaps, once there may be room for it.

    The first keeps its place and its name. None are returned for a single request that no empty
    queue has room for: it is landed as what it is.
    """
    others = retry_transient(
        context, lambda: context.provider.open_batches(chunk.model), times=10
    ) - {chunk.batch_id or ""}
    if not others and chunk.rows == 1:
        return []
    if chunk.state == ChunkState.SUBMITTED:
        context.ledger.return_chunk(context.lease, chunk.id)
    chunk = context.ledger.chunk(chunk.id)
    if others:
        context.log(
            f"the provider's queue is full: waiting until one of the account's batches ends ({len(others):,} open)."
        )
        wait_for_one(context, others, chunk.model)
        return [chunk]
    context.log(
        f"the provider's queue has no room for {pluralize(chunk.rows, 'request')} at once: sending them in halves."
    )
    head = cut(context.ledger, context.lease, chunk, chunk.rows // 2, *context.columns_of(chunk))
    return [
        head,
        context.ledger.chunk(chunk_token(chunk.run_id, chunk.round, head.stop, chunk.kind)),
    ]
