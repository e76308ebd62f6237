"""Marking or deleting rows that the source lacks by now.

A deletion is written down before it begins, and finished by whoever holds the dataset next: money
and rows agree again, whatever the source has by then.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from batchata_tasks.common.clock import now_us
from batchata_tasks.common.files import durable, storage_errors, sync_folder
from batchata_tasks.execution.changes import note_changes
from batchata_tasks.execution.forget import take_out

if TYPE_CHECKING:
    from collections.abc import Iterable

    from batchata_tasks.dataset.parts import Dataset
    from batchata_tasks.execution.held_dataset import HeldDataset
    from batchata_tasks.planning.missing import MissingRows
    from batchata_tasks.planning.table import PreparedTable

_DIGEST = 16  # bytes


def follow_source(held: HeldDataset, table: PreparedTable, missing: MissingRows) -> None:
    """Mark or delete the rows that are gone, as the spec says, and unmark those that are back."""
    dataset, terms = table.dataset, table.spec.missing
    if terms is None or not terms.delete:
        dataset.mark(missing.gone, missing.back, now_us())
        return
    dataset.mark({}, missing.back, now_us())
    if missing.gone:
        with durable(held.folder.deleting, gate=held.require_lease) as stream:
            for keys in missing.gone.values():
                stream.writelines(sorted(keys))
        _delete(held, dataset, missing.gone)


def finish_deletion(held: HeldDataset, dataset: Dataset) -> None:
    """Delete the rows that a dead run had begun to delete.

    Raises:
        SpecError: the dataset's key is another one.
    """
    if held.folder.deleting.exists():
        for schema in dataset.schemas().values():
            dataset.check_key(schema)
        _delete(held, dataset, dataset.parts())


def _delete(held: HeldDataset, dataset: Dataset, parts: Iterable[str]) -> None:
    path = held.folder.deleting
    with storage_errors(f"reading {path.name}"):
        stored = path.read_bytes()
    digests = {stored[at : at + _DIGEST] for at in range(0, len(stored), _DIGEST)}
    take_out(held, dataset, digests, list(parts))
    note_changes(held)
    held.require_lease()
    with storage_errors(f"deleting {path.name}"):
        path.unlink()
        sync_folder(path.parent)
