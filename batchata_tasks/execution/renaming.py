"""Renaming columns in all files of a dataset: whatever dies half-way is finished by the next one.

The renames are written down first, in the ledger and in the folder. Each file is then written anew
under the new names, unless it has them already; at last it is noted that this is done. Columns that
exchange their names take several such steps, each of which is noted, since a file would not show
whether it was done.
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from batchata_tasks.common.errors import SpecError
from batchata_tasks.dataset.declared import rename_declared
from batchata_tasks.dataset.manifest import rename_in_manifest
from batchata_tasks.dataset.packs import kept_files
from batchata_tasks.dataset.parts import Dataset
from batchata_tasks.dataset.renames import Renames
from batchata_tasks.execution.land import emptying

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from batchata_tasks.dataset.folder import DatasetFolder
    from batchata_tasks.dataset.renames import Rename
    from batchata_tasks.execution.held_dataset import HeldDataset
    from batchata_tasks.ledger import Lease, Ledger

_SINCE = "renames_since"  # in the record of a run: all renames, those after it among them


def rename_columns(held: HeldDataset, renames: Sequence[Rename]) -> None:
    """Give columns of the dataset other names, one after the other, in all of its files."""
    known = Renames.read(held.folder)
    begun = Renames((*known.all, *renames), begun=len(renames))
    # first: if it dies and the folder is lost, rows come back under the new names all the same
    _note_in_ledger(held.ledger, held.lease, begun)
    begun.write(held.folder)
    finish_renaming(held)


def finish_renaming(held: HeldDataset) -> None:
    """Finish renames that were begun, if there are any."""
    renames = Renames.read(held.folder)
    while step := renames.next_step():
        _rename_in_files(held, step)
        renames = replace(renames, begun=renames.begun - len(step))
        if not renames.begun:  # the ledger may be older than a rename that died
            _note_in_ledger(held.ledger, held.lease, renames)
        held.require_lease()
        renames.write(held.folder)


def _rename_in_files(held: HeldDataset, names: Mapping[str, str]) -> None:
    """Write each file anew that has an old name of a column."""
    folder = held.folder
    held.ledger.check_lease(held.lease)  # right before files change
    rename_declared(folder, names)
    manifests = kept_files(folder.intents, "*.arrow")
    held.packing.unpack(manifests)
    for path in manifests:
        held.require_lease()
        rename_in_manifest(path, names)
    dataset = Dataset(
        folder.data, pa.schema([]), [], [], gate=held.require_lease, emptied=emptying(held)
    )
    dataset.tidy()
    dataset.rename(names)


def _note_in_ledger(ledger: Ledger, lease: Lease, renames: Renames) -> None:
    """Let the newest run's record tell all renames, in case that the folder is lost."""
    newest = next(iter(ledger.runs_of(lease.dataset_id, 1)), None)
    if newest is not None:
        record: dict[str, Any] = json.loads(newest.spec)
        record[_SINCE] = renames.to_json()
        ledger.set_spec(lease, newest.id, json.dumps(record))


def tell_renames(folder: DatasetFolder, ledger: Ledger, lease: Lease) -> None:
    """Let a ledger that was rebuilt from a folder know of the columns that were renamed there."""
    known = Renames.read(folder)
    if len(known) > len(renames_in_ledger(ledger, lease.dataset_id)):
        _note_in_ledger(ledger, lease, known)


def restore_renames(held: HeldDataset) -> None:
    """Do again what the dataset's folder knows nothing of.

    It was lost, or comes from an older copy. The newest run in the ledger knows all renames.
    """
    known = renames_in_ledger(held.ledger, held.lease.dataset_id)
    unknown = len(known) - len(Renames.read(held.folder))
    if unknown > 0:
        replace(known, begun=unknown).write(held.folder)
        finish_renaming(held)


def renames_in_ledger(ledger: Ledger, dataset_id: str) -> Renames:
    """Return all renames of a dataset of which its newest run's record tells."""
    newest = next(iter(ledger.runs_of(dataset_id, 1)), None)
    record: dict[str, Any] = {} if newest is None else json.loads(newest.spec)
    return Renames.from_json(record.get(_SINCE, record.get("renames", [])))


def require_one_name(folder: DatasetFolder, ledger: Ledger | None = None) -> None:
    """Refuse to read a dataset of which some files may have a column's old name.

    Raises:
        SpecError: with the remedy.
    """
    owner = folder.owner()
    if ledger is not None and owner is not None:
        known = renames_in_ledger(ledger, owner["dataset_id"])
        if len(known) > len(Renames.read(folder)):
            message = (
                "output: the ledger knows that columns were renamed, the last one to "
                f"{known.all[-1].new!r}, and {folder.root} does not (was it restored from a "
                "copy?); `batchata run SPEC` does it again first."
            )
            raise SpecError(message)
    if Renames.read(folder).begun:
        message = (
            f"output: a rename of columns was begun in {folder.root}, and has not ended; "
            "`batchata run SPEC`, or the same `batchata rename SPEC`, finishes it."
        )
        raise SpecError(message)
