"""Cleaning up at the provider: request files once their chunk is settled, results where the spec asks for it.

Nothing depends on it: a failure to delete is told and never stops a run, and providers delete such
files by themselves after a month.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from batchata_tasks.common.errors import BatchataError, TransientError
from batchata_tasks.ledger import Chunk, ChunkState

if TYPE_CHECKING:
    from batchata_tasks.execution.run_context import BatchContext, RunContext
    from batchata_tasks.providers import BatchLook

_CLOCKS_DIFFER = (
    86400.0  # seconds; only names that are ours are deleted, so a wide window costs nothing
)


def discard(context: BatchContext, chunk: Chunk, look: BatchLook) -> None:
    """Delete what the provider keeps of a landed chunk."""
    provider, file_id = context.provider, context.ledger.intent(chunk.id).input_file_id
    try:
        if file_id is not None:
            provider.discard_upload(file_id)
        if context.spec.delete_results:
            provider.discard_results(look)
    except BatchataError as error:
        context.log(
            f"{error} Files of batch {look.batch_id} stay at the provider until it deletes them."
        )


def discard_left_results(context: RunContext) -> None:
    """Delete the results of chunks that landed before the run died, and so perhaps before this was done."""
    if context.continued and context.spec.delete_results:
        for chunk in context.ledger.chunks(context.run_id, (ChunkState.LANDED,)):
            if chunk.batch_id is not None:
                with suppress(TransientError):  # it is gone already
                    discard(
                        context.for_chunk(chunk),
                        chunk,
                        context.for_chunk(chunk).provider.look(chunk.batch_id),
                    )


def discard_uploads(context: RunContext) -> None:
    """Delete uploads that belong to a chunk of this run which needs them no more.

    An upload whose create never came to be is known to nobody but by its name, which is the chunk's.
    """
    run = context.ledger.run(context.run_id)
    chunks = context.ledger.chunks(context.run_id, (ChunkState.LANDED, ChunkState.DROPPED))
    done = {f"{chunk.id}.jsonl" for chunk in chunks}
    for chunk in {chunk.provider: chunk for chunk in chunks}.values():
        try:
            provider = context.for_chunk(chunk).provider
            for file_id, name in provider.uploads(run.started_at / 1e6 - _CLOCKS_DIFFER):
                if name in done:
                    provider.discard_upload(file_id)
        except BatchataError as error:
            context.log(
                f"{error} Uploaded request files may stay at the provider until it deletes them."
            )
