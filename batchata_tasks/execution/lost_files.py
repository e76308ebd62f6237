"""Writing anew what a rebuild of the ledger needs, after a dataset's folder was lost.

Rows come back from the provider, but what was sent, by which run and under which account, stands in
the ledger alone then. If that was lost as well, nobody could tell what was paid for.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from batchata_tasks.common.files import write_json
from batchata_tasks.dataset.packs import is_kept, kept_files, kept_json
from batchata_tasks.execution.intent_files import facts_of
from batchata_tasks.execution.overdue import given_up_record
from batchata_tasks.ledger import SET_ASIDE, UNFINISHED, ChunkKind, ChunkState

if TYPE_CHECKING:
    from batchata_tasks.dataset.folder import DatasetFolder
    from batchata_tasks.execution.held_dataset import HeldDataset
    from batchata_tasks.ledger import Chunk, Lease, Ledger, RunRow

_OPEN = (*UNFINISHED, *SET_ASIDE)
_SENT = (*_OPEN, ChunkState.LANDED, ChunkState.ABANDONED)


def write_anew(held: HeldDataset) -> None:
    """Write the intents, and the specs of their runs, of all chunks that were sent.

    What was noted since the folder was lost stays in the files. Of batches that were given up, the
    commits are written, too.
    """
    folder, ledger = held.folder, held.ledger
    noted = {path.stem for path in kept_files(folder.intents, "*.json")}
    chunks = [
        chunk
        for chunk in ledger.dataset_chunks(held.lease.dataset_id, _SENT)
        if chunk.kind == ChunkKind.BATCH
    ]
    lacking = [chunk for chunk in chunks if not _is_whole(folder, chunk, noted)]
    for run_id in {chunk.run_id: None for chunk in lacking}:
        if not is_kept(folder.spec_of(run_id)):
            write_spec(folder, ledger.run(run_id))
    for chunk in lacking:
        held.require_lease()
        path = folder.intent(chunk.id)
        facts = facts_of(ledger, chunk, ledger.intent(chunk.id)) | _set_aside(chunk)
        write_json(path, {**facts, **(kept_json(path) or {})})
        if chunk.state == ChunkState.ABANDONED and not is_kept(folder.commit(chunk.id)):
            spent = ledger.settled([chunk.id])
            record = given_up_record(ledger.id, held.lease.fence, chunk, spent)
            write_json(folder.commit(chunk.id), {**record, "state": "abandoned"})


def _is_whole(folder: DatasetFolder, chunk: Chunk, noted: set[str]) -> bool:
    """Whether the file of an intent says what was sent, and not only what was noted since."""
    if chunk.id not in noted:
        return False
    return chunk.state not in _OPEN or "run_id" in (kept_json(folder.intent(chunk.id)) or {})


def _set_aside(chunk: Chunk) -> dict[str, Any]:
    """Return what the file of an intent says of a chunk that is set aside, as its state says."""
    if chunk.state == ChunkState.HELD:
        return {"held": True}
    if chunk.state == ChunkState.OVERDUE:
        return {"overdue": True, "batch_id": chunk.batch_id}
    return {}


def write_spec(folder: DatasetFolder, run: RunRow) -> None:
    """Write the copy of a run's spec from which the run is known again."""
    record = {"format": 1, "name": run.name, "spec": run.spec, "rehearsal": run.rehearsal}
    write_json(folder.spec_of(run.id), record)


def commit_of_landed(held: HeldDataset, chunk_id: str) -> dict[str, Any] | None:
    """Return the commit of a chunk.

    If the file of a landed one is lost, it is written anew from the ledger. None if the chunk has
    not landed, or the ledger does not know it.
    """
    path, ledger = held.folder.commit(chunk_id), held.ledger
    if (commit := kept_json(path)) is not None:
        return commit
    landed = [c for c in ledger.existing_chunks([chunk_id]) if c.state == ChunkState.LANDED]
    if not landed:
        return None
    emptied = {chunk.id for chunk in ledger.emptied_chunks(held.lease.dataset_id)}
    note_money(held.folder, ledger, held.lease, landed[0], emptied=chunk_id in emptied)
    return kept_json(path)


def note_money(
    folder: DatasetFolder, ledger: Ledger, lease: Lease, chunk: Chunk, *, emptied: bool = True
) -> None:
    """Let the commit of a landed chunk say what the ledger settled; if there is none, make one.

    That one says that no row of the chunk is left if `emptied`.
    """
    path = folder.commit(chunk.id)
    amounts = {f"{name}_picodollars": n for name, n in ledger.amounts(chunk.id).items()}
    commit = kept_json(path)
    if commit is None:
        totals = ledger.outcomes(chunk.run_id, [chunk.id])
        made: dict[str, Any] = {
            **given_up_record(ledger.id, lease.fence, chunk, 0),
            "emptied": emptied,
            "outcomes": {outcome: max(total.rows, 0) for outcome, total in totals.items()},
            # a row that was sent again counts in its last round
            "retried": {outcome: max(-total.rows, 0) for outcome, total in totals.items()},
            "tallies": {outcome: asdict(total) for outcome, total in totals.items()},
        }
        commit = {**made, "state": "closed"}
    write_json(path, {**commit, **amounts})
