"""Rows that were forgotten, and answers that were read anew, as both ledger and folder know them.

The folder has `_batchata/changes.json`: by which response models answers were read anew, and how
many requests were forgotten. If it says less than the ledger, the folder comes from an older copy,
and what was done since is done again; if it says more, the ledger does.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING

from batchata_tasks.common.canonical import key_digest
from batchata_tasks.common.errors import StorageError
from batchata_tasks.common.files import read_json, write_json
from batchata_tasks.dataset.columns import keys_of
from batchata_tasks.dataset.manifest import manifest_batches
from batchata_tasks.dataset.packs import is_kept, kept_files, kept_json
from batchata_tasks.execution.forget import drop_texts
from batchata_tasks.execution.forgotten import forgotten_of
from batchata_tasks.types.ids import custom_id

if TYPE_CHECKING:
    from collections.abc import Container

    from batchata_tasks.dataset.folder import DatasetFolder
    from batchata_tasks.dataset.parts import Dataset
    from batchata_tasks.execution.held_dataset import HeldDataset


@dataclass(frozen=True)
class Changes:
    """What a dataset's folder knows: models by their parts of fingerprints, forgotten requests."""

    rereads: frozenset[str] = frozenset()
    forgotten: int = 0

    @classmethod
    def read(cls, folder: DatasetFolder) -> Changes:
        """Return what a folder knows.

        Raises:
            StorageError: its file is damaged.
        """
        if (record := read_json(folder.changes)) is None:
            return cls()
        try:
            return cls(frozenset(record["rereads"]), int(record["forgotten"]))
        except (KeyError, TypeError, ValueError) as error:
            message = f"{folder.changes} is damaged ({error!r}); delete it: it is made anew."
            raise StorageError(message) from error

    def write(self, held: HeldDataset) -> None:
        """Write the file, unless it says the same already."""
        if self != Changes.read(held.folder):
            held.require_lease()
            record = {"rereads": sorted(self.rereads), "forgotten": self.forgotten}
            write_json(held.folder.changes, {"format": 1, **record})


def note_changes(held: HeldDataset, *rereads: str) -> None:
    """Let the folder say what the ledger knows of forgotten rows, and of these models."""
    known = Changes.read(held.folder)
    number = held.ledger.forgotten_number(held.lease.dataset_id)
    Changes(known.rereads.union(rereads), number).write(held)


def read_no_more(held: HeldDataset) -> None:
    """Let the folder know of no model: rows came back in it as none but their own reads them.

    The ledger goes on knowing of them, so that a run reads the rows again.
    """
    known = Changes.read(held.folder)
    _tell_rereads(held, known)
    Changes(frozenset(), known.forgotten).write(held)


def agree_on_changes(held: HeldDataset, dataset: Dataset) -> None:
    """Let ledger and folder know the same of models and forgotten rows, if one of them is older.

    Rows that an older folder brought back are forgotten again, with their texts.

    Raises:
        SpecError: the dataset's key is another one.
    """
    known, ledger = Changes.read(held.folder), held.ledger
    _tell_rereads(held, known)
    number = ledger.forgotten_number(held.lease.dataset_id)
    if known.forgotten > number:
        _tell_ledger(held)
    elif known.forgotten < number:
        _forget_again(held, dataset)
    note_changes(held)


def _tell_rereads(held: HeldDataset, known: Changes) -> None:
    for part in sorted(known.rereads - held.ledger.rereads(held.lease.dataset_id)):
        held.ledger.note_reread(held.lease, part)


def _tell_ledger(held: HeldDataset) -> None:
    """Let the ledger know which rows the commits call forgotten, and what that changed."""
    for path in kept_files(held.folder.commits, "*.json"):
        commit = kept_json(path) or {}
        if new := set(forgotten_of(commit)) - held.ledger.forgotten(path.stem):
            amount = commit.get("superseded_picodollars", 0)
            held.ledger.note_forgotten(held.lease, new, superseded={path.stem: amount})


def _forget_again(held: HeldDataset, dataset: Dataset) -> None:
    """Take out what the ledger calls forgotten, and the commits do not."""
    by_chunk = dict[str, set[str]]()
    for chunk_id, names in held.ledger.forgotten_by_chunk(held.lease.dataset_id).items():
        if new := names.difference(forgotten_of(kept_json(held.folder.commit(chunk_id)) or {})):
            by_chunk[chunk_id] = new
    if not by_chunk:
        return
    held.ledger.check_lease(held.lease)  # right before files change
    _take_out(dataset, set(chain.from_iterable(by_chunk.values())))
    for chunk_id, names in by_chunk.items():
        path = held.folder.manifest(chunk_id)
        if not is_kept(path):
            continue
        batches = manifest_batches(path)
        ids = chain.from_iterable(batch.column("_row_id").to_pylist() for batch in batches)
        places = [i for i, row_id in enumerate(ids) if custom_id(chunk_id, row_id) in names]
        if places:
            drop_texts(held, chunk_id, places)


def _take_out(dataset: Dataset, names: Container[str]) -> None:
    """Take the rows of some requests out of the dataset; their money was counted before."""
    for part, schema in dataset.schemas().items():
        dataset.check_key(schema)
        gone = set[bytes]()
        for batch in dataset.part_rows(part, [*dataset.key, "_custom_id"]):
            requests, keys = batch.column("_custom_id").to_pylist(), keys_of(batch, dataset.key)
            gone |= {key_digest(k) for k, name in zip(keys, requests, strict=True) if name in names}
        if gone:
            dataset.supersede({part: gone})
