"""Landing chunks again whose parts are gone, while their manifests and results are there."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from batchata_tasks.common.canonical import key_digests
from batchata_tasks.dataset.columns import keys_of, replaced_keys
from batchata_tasks.dataset.manifest import read_chunk_manifest
from batchata_tasks.dataset.packs import is_kept
from batchata_tasks.dataset.part_files import is_merged, part_of_chunk
from batchata_tasks.execution.changes import read_no_more
from batchata_tasks.execution.forgotten import forgotten_names
from batchata_tasks.execution.land import emptying, land_again
from batchata_tasks.execution.run_context import restored_context
from batchata_tasks.types.ids import custom_id

if TYPE_CHECKING:
    import pyarrow as pa

    from batchata_tasks.execution.held_dataset import HeldDataset
    from batchata_tasks.ledger import Chunk


def land_lost_parts(held: HeldDataset, chunks: list[Chunk]) -> list[Chunk]:
    """Write the parts of landed chunks anew, without rows that were superseded since.

    Returns the chunks whose parts cannot be written, since their results are gone.
    """
    if not chunks:
        return []
    superseded, not_landed = _Superseded(held), list["Chunk"]()
    for chunk in chunks:
        own = superseded.keys(chunk)
        gone = {key for key in own if superseded.has(chunk, key)} | superseded.taken_out(chunk)
        if gone == own:  # the last rows went while they were in a merged part
            emptying(held)([chunk.id])
            continue
        if not is_kept(held.folder.commit(chunk.id)):  # it tells which models read its rows since
            read_no_more(held)
        context = restored_context(held, held.ledger.run(chunk.run_id)).for_chunk(chunk)
        if not land_again(context, chunk, gone):
            not_landed.append(chunk)
    return not_landed


class _Superseded:
    """The keys (digests) that landed chunks took out of older parts.

    If a manifest names a merged part, what that had taken over was lost with it. But whatever
    earlier chunks had of the key was replaced.
    """

    def __init__(self, held: HeldDataset) -> None:
        self._held = held
        self._spec_keys = dict[str, list[str]]()  # by run
        ledger, dataset_id = held.ledger, held.lease.dataset_id
        self._places = {name: place for place, name in enumerate(ledger.order_of(dataset_id))}
        self._by_part = defaultdict[str, set[bytes]](set)
        self._from_merged = dict[bytes, int]()  # the place of the last chunk that did it
        for chunk in (*ledger.landed_chunks(dataset_id), *ledger.emptied_chunks(dataset_id)):
            if is_kept(held.folder.manifest(chunk.id)):
                self._add(chunk)

    def _add(self, chunk: Chunk) -> None:
        place, manifest = self._places[chunk.id], self._manifest(chunk)
        for part, keys in replaced_keys(manifest, self._spec_key(chunk)).items():
            if is_merged(part):
                last = self._from_merged
                last |= {key: max(place, last.get(key, place)) for key in keys}
            else:
                self._by_part[part] |= keys

    def has(self, chunk: Chunk, key: bytes) -> bool:
        """Whether a later chunk took this key out of what a chunk landed."""
        taken_at = self._from_merged.get(key, -1)
        return key in self._by_part[part_of_chunk(chunk.id)] or taken_at > self._places[chunk.id]

    def keys(self, chunk: Chunk) -> set[bytes]:
        """Return the keys of a chunk's rows, but for those that stayed in older parts."""
        left = self._manifest(chunk)["_batchata_left"].to_pylist()
        pairs = zip(self._keys_in_order(chunk), left, strict=True)
        return {key for key, end in pairs if end is None}

    def taken_out(self, chunk: Chunk) -> set[bytes]:
        """Return the keys of a chunk's rows that were deleted since."""
        names = forgotten_names(self._held.folder, self._held.ledger, chunk.id)
        if not names:
            return set()
        row_ids = self._manifest(chunk)["_row_id"].to_pylist()
        pairs = zip(row_ids, self._keys_in_order(chunk), strict=True)
        gone = set(names)
        return {key for row_id, key in pairs if custom_id(chunk.id, row_id) in gone}

    def _keys_in_order(self, chunk: Chunk) -> list[bytes]:
        return key_digests(keys_of(self._manifest(chunk), self._spec_key(chunk)))

    def _manifest(self, chunk: Chunk) -> pa.Table:
        return read_chunk_manifest(self._held.folder.manifest(chunk.id))

    def _spec_key(self, chunk: Chunk) -> list[str]:
        if chunk.run_id not in self._spec_keys:
            run = restored_context(self._held, self._held.ledger.run(chunk.run_id))
            self._spec_keys[chunk.run_id] = run.spec.key
        return self._spec_keys[chunk.run_id]
