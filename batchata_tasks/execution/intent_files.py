"""The files of intents, which tell without the ledger what was sent, or may have been.

The ledger comes first when an intent is recorded, and last when it is withdrawn. So a file whose
chunk the ledger does not know, or takes for planned, or of a later create than the ledger's, shows
that the ledger is older than the dataset: somebody restored it from a backup, say. So does a chunk
that landed, or was taken back, where the ledger says that it was not. Nothing may be sent by such a
ledger: it would send again, or take answers that are gone at the provider by now for missing.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

from batchata_tasks.common.errors import WrongLedgerError
from batchata_tasks.common.files import sync_folder, write_json
from batchata_tasks.common.text import pluralize
from batchata_tasks.dataset.folder import DatasetFolder
from batchata_tasks.dataset.packs import kept_json
from batchata_tasks.ledger import SET_ASIDE, ChunkState

if TYPE_CHECKING:
    from batchata_tasks.execution.context import SubmitContext
    from batchata_tasks.ledger import Chunk, Intent, Lease, Ledger

# files of format 1 were written before the ledger knew of them, and stayed after a refusal
_FORMAT = 2
_MAY_GO_ON = (ChunkState.PLANNED, ChunkState.UNCLEAR, ChunkState.SUBMITTED, *SET_ASIDE)


def write_intent(context: SubmitContext, chunk: Chunk, intent: Intent) -> None:
    """Write a recorded intent beside the dataset; its rows stand in the chunk's manifest."""
    facts = facts_of(context.ledger, chunk, intent)
    context.require_lease()  # a process that was stopped must not hide its successor's intent
    write_json(context.folder.intent(chunk.id), facts)


def facts_of(ledger: Ledger, chunk: Chunk, intent: Intent) -> dict[str, Any]:
    """Return what the file of an intent says, from which a lost ledger can be rebuilt."""
    return {
        "format": _FORMAT,
        "token": chunk.id,
        "ledger_id": ledger.id,
        "run_id": chunk.run_id,
        "rehearsal": ledger.run(chunk.run_id).rehearsal,  # null of a run of an older version
        "round": chunk.round,
        "provider": chunk.provider,
        "endpoint": chunk.endpoint,
        "model": chunk.model,
        "account": intent.account,
        "requests": intent.requests,
        "bound_picodollars": chunk.bound,
        "expected_picodollars": chunk.expected,
        "budget": ledger.budget_of(chunk.id),
        "input_file_id": intent.input_file_id,
        "fence": intent.fence,
        "sent_at_us": intent.sent_at,
        "mark_us": intent.mark,
        "scope": intent.scope,
        "resends": chunk.resends,
        "rows": f"{chunk.id}.arrow",
        "start": chunk.start,
        "bytes": chunk.bytes,
    }


def withdraw(
    folder: DatasetFolder,
    ledger: Ledger,
    lease: Lease,
    chunk_id: str,
    intent: Intent | None = None,
    *,
    absent: bool = False,
) -> None:
    """Withdraw an intent of which nothing was accepted; see `Ledger.withdraw_intent`."""
    noted = kept_json(folder.intent(chunk_id)) or {}
    if intent is None or noted.get("fence") == intent.fence:  # else a successor's
        delete(folder, chunk_id)
    ledger.withdraw_intent(lease, chunk_id, intent, absent=absent)


def delete(folder: DatasetFolder, chunk_id: str) -> None:
    """Delete the file of an intent, before the ledger takes its chunk for planned again."""
    path = folder.intent(chunk_id)
    if path.exists():
        path.unlink(missing_ok=True)
        sync_folder(path.parent)


def require_current(folder: DatasetFolder, ledger: Ledger) -> None:
    """Refuse a ledger that is older than the dataset.

    Raises:
        WrongLedgerError: with the remedy.
    """
    if (reason := why_outdated(folder, ledger)) is not None:
        raise WrongLedgerError(reason)


def require_current_budgets(ledger: Ledger) -> None:
    """Refuse a ledger that is older than any of its datasets that are on this machine.

    What was spent since the backup is in no sum of it, so no budget would hold.

    Raises:
        WrongLedgerError: with the remedy.
    """
    for url in ledger.dataset_urls():
        folder = DatasetFolder.at_url(url)
        with suppress(PermissionError):  # of a colleague's
            if (folder.owner() or {}).get("ledger_id") == ledger.id:
                require_current(folder, ledger)


def why_outdated(folder: DatasetFolder, ledger: Ledger) -> str | None:
    """Return how a ledger is older than the dataset, and the remedy; None if it is not."""
    if not (lacking := sent_without(folder, ledger)):
        return None
    were, them = ("was", "it") if lacking == 1 else ("were", "them")
    return (
        f"output: the ledger is older than the dataset in {folder.root}: it does not know of "
        f"{pluralize(lacking, 'batch', 'batches')} that {were} sent, or what became of {them} "
        f"since (was it restored from a backup?). Run `batchata status {folder.word} "
        "--rebuild`, which reads that in from the dataset's folder."
    )


def sent_without(folder: DatasetFolder, ledger: Ledger) -> int:
    """Return how many chunks were sent, or went on, without the ledger saying so."""
    names = {path.stem for path in folder.noted_files()}
    states = ledger.states_of(names)
    return sum(_went_on(folder, ledger, name, states.get(name)) for name in names)


def _went_on(folder: DatasetFolder, ledger: Ledger, chunk_id: str, state: str | None) -> bool:
    """Whether a dataset's folder tells more of a chunk than a ledger that gives it this state."""
    if state not in (None, ChunkState.ABANDONED, *_MAY_GO_ON):
        return False
    noted = kept_json(folder.intent(chunk_id)) or {}
    commit = kept_json(folder.commit(chunk_id)) or {}
    # a run may be at work on another dataset: the ledger is read last, since it is written first
    state = ledger.states_of([chunk_id]).get(chunk_id)
    if state is None:
        # there is more than what was noted since the folder was lost
        return "run_id" in noted or bool(commit)
    if state == ChunkState.ABANDONED:
        return noted.get("taken_back") is True and commit.get("state") != "abandoned"
    # a commit is closed after the ledger knows the results; that of an overdue batch comes first
    has_landed = state != ChunkState.OVERDUE and commit.get("state") == "closed"
    return state in _MAY_GO_ON and (
        has_landed or _is_of_later_create(ledger, chunk_id, state, noted)
    )


def _is_of_later_create(ledger: Ledger, chunk_id: str, state: str, noted: dict[str, Any]) -> bool:
    """Whether the file of an intent was written for a create that the ledger does not know."""
    if noted.get("format", 1) < _FORMAT or not {"fence", "sent_at_us"} <= noted.keys():
        return False
    if state == ChunkState.PLANNED:
        return True
    intent = ledger.intent(chunk_id)
    return (noted["fence"], noted["sent_at_us"]) > (intent.fence, intent.sent_at)
