"""Deletes files at the provider: requests of settled chunks, and results if the spec says so.

Nothing depends on it: a failure to delete is reported and never stops a run, and providers delete
such files by themselves after a month.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from batchata_tasks.common.errors import BatchataError, TransientError
from batchata_tasks.ledger import Chunk, ChunkState

if TYPE_CHECKING:
    from batchata_tasks.execution.run_context import BatchContext, RunContext
    from batchata_tasks.providers import BatchLook

# seconds by which clocks may differ; only names of ours are deleted, so a wide window is harmless
_CLOCKS_DIFFER = 86400.0


def discard(context: BatchContext, chunk: Chunk, look: BatchLook) -> None:
    """Delete the provider's files of a landed chunk."""
    provider, file_id = context.provider, context.ledger.intent(chunk.id).input_file_id
    try:
        if file_id is not None:
            provider.discard_upload(file_id)
        if context.run.spec.delete_results:
            provider.discard_results(look)
    except BatchataError as error:
        context.log(
            f"{error} Files of batch {look.batch_id} stay at the provider until it deletes them."
        )


def discard_left_results(run: RunContext) -> None:
    """Delete the results of chunks that landed before the run died."""
    if not run.continued or not run.spec.delete_results:
        return
    for chunk in run.ledger.chunks(run.run_id, (ChunkState.LANDED,)):
        if chunk.batch_id is not None:
            context = run.for_chunk(chunk)
            with suppress(TransientError):  # it is gone already
                discard(context, chunk, context.provider.look(chunk.batch_id))


def discard_uploads(run: RunContext) -> None:
    """Delete the uploads of this run's chunks that need them no more.

    An upload whose create never came to be is found only by its name, which is the chunk's.
    """
    began = run.begun.started_at / 1e6
    chunks = run.ledger.chunks(run.run_id, (ChunkState.LANDED, ChunkState.DROPPED))
    names = {f"{chunk.id}.jsonl" for chunk in chunks}
    for chunk in {chunk.provider: chunk for chunk in chunks}.values():
        try:
            provider = run.for_chunk(chunk).provider
            for file_id, name in provider.uploads(began - _CLOCKS_DIFFER):
                if name in names:
                    provider.discard_upload(file_id)
        except BatchataError as error:
            run.log(
                f"{error} Uploaded request files may stay at the provider until it deletes them."
            )
