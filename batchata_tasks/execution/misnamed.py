"""Batches that are not found under the id that the answer to their create named.

A gateway may answer with the id of a job of its own, say, while its list shows the batch itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from batchata_tasks.common.errors import TerminalError, TransientError
from batchata_tasks.common.files import write_json
from batchata_tasks.dataset.packs import kept_json
from batchata_tasks.execution.candidates import is_of, may_be_as_old, owned_of
from batchata_tasks.execution.overdue import note_intent

if TYPE_CHECKING:
    from collections.abc import Sequence

    from batchata_tasks.dataset.folder import DatasetFolder
    from batchata_tasks.execution.context import SubmitContext
    from batchata_tasks.ledger import Chunk, Intent, Lease, Ledger
    from batchata_tasks.providers import BatchLook


class NotShownError(TransientError):
    """A batch that nothing shows any more, and that nobody can say is gone."""


class RefusedLookError(TerminalError):
    """A batch that alone may not be looked at: the same key is allowed to list batches."""


class NeverSeenError(NotShownError):
    """The answer to a create named a batch that nothing has shown ever since."""


class PerhapsListedError(NeverSeenError):
    """A batch that runs may be the one: its results will tell."""


def find_misnamed(
    context: SubmitContext, batch_id: str, looks: Sequence[BatchLook]
) -> BatchLook | None:
    """Return the listed batch that is of the create which named `batch_id`; None if none is.

    The ledger has it under its own id from now on.

    Raises:
        PerhapsListedError: one that has not ended may be it.
    """
    ledger = context.ledger
    if (chunk := ledger.chunk_of_batch(batch_id)) is None:
        return None
    intent = ledger.intent(chunk.id)
    known = ledger.known_batches(look.batch_id for look in looks)
    strays = [look for look in looks if look.batch_id not in known]
    named = next((look for look in strays if is_of(look, intent)), None)
    look = named or _by_results(context, batch_id, strays, intent)
    if look is not None:
        rename(ledger, context.lease, context.folder, chunk, look.batch_id)
        context.log(f"the create was answered with {batch_id}; the batch is {look.batch_id}.")
    return look


def rename(
    ledger: Ledger, lease: Lease, folder: DatasetFolder, chunk: Chunk, batch_id: str
) -> None:
    """Record the own id of a chunk's batch, in the dataset's files too where they name one."""
    ledger.rename_batch(lease, chunk.id, chunk.batch_id or "", batch_id)
    if "batch_id" in (kept_json(folder.intent(chunk.id)) or {}):
        note_intent(folder, chunk.id, batch_id=batch_id)
    path = folder.commit(chunk.id)  # of one that was abandoned
    if (record := kept_json(path)) is not None:
        write_json(path, {**record, "batch_id": batch_id})


def _by_results(
    context: SubmitContext, batch_id: str, looks: Sequence[BatchLook], intent: Intent
) -> BatchLook | None:
    is_exact = context.provider.is_exact
    candidates = [
        look
        for look in looks
        if (look.requests in (None, intent.requests) or not is_exact)
        and may_be_as_old(look, intent, clocks_are_right=is_exact)
    ]
    found, owned = owned_of(context, candidates, intent)
    if found is not None:
        return found
    running = next(
        (look.batch_id for look in candidates if owned[look.batch_id] is None and not look.ended),
        None,
    )
    if running is not None:
        message = (
            f"batch {batch_id} was never seen since its create was answered; it may be listed as "
            f"{running}, which has not ended."
        )
        raise PerhapsListedError(message)
    return None
