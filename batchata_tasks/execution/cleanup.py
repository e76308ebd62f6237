"""Deletes files at the provider: requests of settled chunks, and results if the spec says so.

Nothing depends on it: a failure to delete is reported and never stops a run, and providers delete
such files by themselves after a month.

An upload is deleted by its id as soon as nothing can use it any more. Two kinds of them are left
over: what a process uploaded right before it died, and what could not be deleted. These alone are
looked for by their names at the end of a run; not all servers list files.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from batchata_tasks.common.errors import BatchataError, TransientError
from batchata_tasks.dataset.packs import kept_json
from batchata_tasks.ledger import Chunk, ChunkState
from batchata_tasks.types.outcome import Outcome

if TYPE_CHECKING:
    from collections.abc import Iterable

    from batchata_tasks.execution.run_context import BatchContext, RunContext
    from batchata_tasks.providers import BatchLook

# seconds by which clocks may differ; only names of ours are deleted, so a wide window is harmless
_CLOCKS_DIFFER = 86400.0


def discard(context: BatchContext, chunk: Chunk, look: BatchLook) -> None:
    """Delete the provider's files of a landed chunk.

    Results that lack a line stay, for whoever looks into that.
    """
    provider, file_id = context.provider, context.ledger.intent(chunk.id).input_file_id
    if file_id is not None:
        _discard_upload(context, file_id)
    commit = kept_json(context.folder.commit(chunk.id)) or {}
    if not context.run.spec.delete_results or commit.get("outcomes", {}).get(Outcome.MISSING):
        return
    try:
        provider.discard_results(look)
    except BatchataError as error:
        context.log(
            f"{error} The results of batch {look.batch_id} stay at the provider until it deletes "
            "them."
        )


def discard_unused(context: BatchContext, chunk: Chunk, file_ids: Iterable[str]) -> None:
    """Delete those of a chunk's uploads that no create uses, for certain."""
    used = None
    # the ledger decides: while a chunk is planned, no create of it can have been accepted
    if context.ledger.chunk(chunk.id).state != ChunkState.PLANNED:
        used = context.ledger.intent(chunk.id).input_file_id
    for file_id in file_ids:
        if file_id != used:
            _discard_upload(context, file_id)


def discard_returned(context: BatchContext, chunk: Chunk) -> None:
    """Delete the upload of a batch that ran nothing, and whose requests are uploaded again."""
    if (file_id := context.ledger.intent(chunk.id).input_file_id) is not None:
        _discard_upload(context, file_id)


def _discard_upload(context: BatchContext, file_id: str) -> None:
    try:
        context.provider.discard_upload(file_id)
    except BatchataError as error:
        context.run.state.uploads_left = True
        context.log(f"{error} The request file {file_id} stays at the provider for now.")


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
    """Delete what is left over of the uploads of this run's chunks, if anything may be.

    An upload whose create never came to be is found only by its name, which is the chunk's.
    """
    if not (run.continued or run.state.uploads_left):
        return
    began = run.begun.started_at / 1e6
    chunks = run.ledger.chunks(run.run_id, (ChunkState.LANDED, ChunkState.DROPPED))
    names = {f"{chunk.id}.jsonl" for chunk in chunks}
    for chunk in {chunk.provider: chunk for chunk in chunks}.values():
        try:
            provider = run.for_chunk(chunk).provider
            listed = provider.uploads(began - _CLOCKS_DIFFER)
            # the whole list first: the next page is asked for by the last file of this one
            for file_id in [file_id for file_id, name in listed if name in names]:
                provider.discard_upload(file_id)
        except BatchataError as error:
            run.log(
                f"{error} Request files that were uploaded and not used may stay at the provider "
                "until it deletes them."
            )
