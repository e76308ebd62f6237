"""Which files of a dataset's earlier runs are packed: those that hardly anybody asks for again.

That is all that belongs to batches which have landed, and the specs of runs that have ended.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from batchata_tasks.common.files import storage_errors
from batchata_tasks.ledger import ChunkState
from batchata_tasks.types.ids import TOKEN_CHARS

if TYPE_CHECKING:
    from pathlib import Path

    from batchata_tasks.execution.held_dataset import HeldDataset

FEWEST = 32  # files that are worth a pack
_LARGEST = 4 << 20  # bytes above which a file stays as it is: each merge writes its files once more


def pack_earlier_files(held: HeldDataset, run_id: str | None = None) -> None:
    """Pack the files of runs before this one, if they are many; without a run, those of all.

    Raises:
        StorageError: a pack is damaged, or the storage refused; nothing is lost.
        LeaseError: another process took the dataset over.
    """
    if held.ledger.open_run(held.lease.dataset_id) is not None:
        return
    with storage_errors("packing files of earlier runs"):
        found = (*_of_chunks(held, run_id), *_specs(held, run_id))
        files = [path for path in found if path.stat().st_size <= _LARGEST]
    if len(files) >= (1 if run_id is None else FEWEST):
        held.packing.pack(files)


def _of_chunks(held: HeldDataset, run_id: str | None) -> list[Path]:
    """Return the files of landed chunks that are not packed."""
    folder, ledger = held.folder, held.ledger
    places = (folder.intents, folder.commits, folder.requests, folder.responses)
    names = {path: path.name[:TOKEN_CHARS] for place in places for path in place.iterdir()}
    states = ledger.states_of(set(names.values()))
    own = {chunk.id for chunk in ledger.chunks(run_id or "")}
    return sorted(
        path
        for path, name in names.items()
        if states.get(name) == ChunkState.LANDED and name not in own
    )


def _specs(held: HeldDataset, run_id: str | None) -> list[Path]:
    """Return the specs, not packed, of runs of which no batch is waited for."""
    unfinished = held.ledger.unfinished_chunks(held.lease.dataset_id, "")
    needed = {run_id, *(chunk.run_id for chunk in unfinished)}
    return sorted(path for path in held.folder.specs.glob("*.json") if path.stem not in needed)
