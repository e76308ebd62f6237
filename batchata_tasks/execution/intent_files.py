"""The files of intents, which tell without the ledger what was sent, or may have been.

The ledger comes first when an intent is recorded, and last when it is withdrawn. So a file whose
chunk the ledger does not know, or takes for planned, shows that the ledger is older than the
dataset: somebody restored it from a backup, say. Nothing may be sent by such a ledger.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from batchata_tasks.common.errors import WrongLedgerError
from batchata_tasks.common.files import read_json, sync_folder, write_json
from batchata_tasks.common.text import pluralize
from batchata_tasks.ledger import ChunkState

if TYPE_CHECKING:
    from batchata_tasks.dataset.folder import DatasetFolder
    from batchata_tasks.execution.context import SubmitContext
    from batchata_tasks.ledger import Chunk, Intent, Lease, Ledger

# files of format 1 were written before the ledger knew of them, and stayed after a refusal
_FORMAT = 2


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
    noted = read_json(folder.intent(chunk_id)) or {}
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


def why_outdated(folder: DatasetFolder, ledger: Ledger) -> str | None:
    """Return how a ledger is older than the dataset, and the remedy; None if it is not."""
    if not (lacking := sent_without(folder, ledger)):
        return None
    return (
        f"output: the ledger is older than the dataset in {folder.root}: it does not know of "
        f"{pluralize(lacking, 'batch', 'batches')} that {'was' if lacking == 1 else 'were'} "
        "sent (was it restored from a backup?). Run `batchata status SPEC --rebuild`, which "
        "reads them in from the dataset's folder (for SPEC, a Batch names its results_dir)."
    )


def sent_without(folder: DatasetFolder, ledger: Ledger) -> int:
    """Return how many chunks were sent from a dataset although the ledger does not say so."""
    intents = {path.stem for path in folder.intents.glob("*.json")}
    commits = {path.stem for path in folder.commits.glob("*.json")}
    states = ledger.states_of(intents | commits)
    unknown = (intents | commits) - states.keys()
    planned = {name for name in intents if states.get(name) == ChunkState.PLANNED}
    return sum(_tells_of_sending(folder, name) for name in unknown) + sum(
        (read_json(folder.intent(name)) or {}).get("format", 1) >= _FORMAT for name in planned
    )


def _tells_of_sending(folder: DatasetFolder, chunk_id: str) -> bool:
    """Whether there is more than what was noted since the folder was lost."""
    noted = read_json(folder.intent(chunk_id)) or {}
    return "run_id" in noted or bool(read_json(folder.commit(chunk_id)))
