"""Merging small parts, so that a dataset of a thousand nights stays in tens of files.

Parts are sorted into tiers by the size of their files, each eight times as large as the one before.
Once a tier is full its parts are merged into one, which belongs to the next: so each row is
rewritten once a tier, and each night by itself costs next to nothing. Large parts are left alone.

The merged part appears by one rename, then the files that it took over are deleted. A reader in
between sees rows twice. If the run dies there, the next one deletes them (`Dataset.tidy`).
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from batchata_tasks.common.canonical import key_digest
from batchata_tasks.common.files import storage_errors, sync_folder
from batchata_tasks.dataset.columns import keys_of
from batchata_tasks.dataset.part_files import (
    READ_ROWS,
    TakenOver,
    merged_part,
    opened_part,
    part_errors,
    row_groups,
    taken_over,
    versioned,
)
from batchata_tasks.dataset.stored_json import from_parquet, schema_of_part

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Iterator, Mapping
    from pathlib import Path

    from batchata_tasks.dataset.parts import Dataset

FULL = 8  # parts of a tier
_HEAD = 8  # bytes of a key's digest that are compared first
_SMALLEST = 64 << 10  # bytes below which parts are of the first tier
_LARGEST = 32 << 20  # bytes from which they are left alone: taking a row out rewrites a whole part


def merge_full_tiers(dataset: Dataset, unfinished: Container[str] = ()) -> None:
    """Merge parts until no tier is full.

    The parts named in `unfinished` are left alone: a landing is to write them again.

    Raises:
        StorageError: a part is damaged, or the storage refused; no row is lost.
    """
    with storage_errors("merging parts"):
        while paths := _next(dataset, unfinished):
            _merge(dataset, paths)


def merge_all(dataset: Dataset, unfinished: Container[str] = ()) -> int:
    """Merge parts that have the same columns into as few as the size of a large part allows.

    The parts named in `unfinished` are left alone. Return how many parts are left.

    Raises:
        StorageError: a part is damaged, or the storage refused; no row is lost.
    """
    with storage_errors("merging parts"):
        alike = defaultdict[bytes, list["Path"]](list)  # by their columns
        for part, path in dataset.parts().items():
            if part not in unfinished and path.stat().st_size < _LARGEST:
                with part_errors(part):
                    alike[bytes(_columns(path).serialize())].append(path)
        for paths in alike.values():
            for group in in_groups(paths):
                if len(group) > 1:
                    _merge(dataset, group)
    return len(dataset.parts())


def in_groups(paths: Iterable[Path]) -> Iterator[list[Path]]:
    """Yield files in groups that together have about the size of a large part."""
    group, size = list["Path"](), 0
    for path in paths:
        group.append(path)
        size += path.stat().st_size
        if size >= _LARGEST:
            yield group
            group, size = [], 0
    if group:
        yield group


def full_tiers(sizes: Mapping[str, int]) -> list[list[str]]:
    """Return the parts of each full tier, the smallest first, given the bytes of each part."""
    tiers = defaultdict[int, list[str]](list)
    for part, size in sizes.items():
        if size < _LARGEST:
            tiers[_tier(size)].append(part)
    return [parts for _, parts in sorted(tiers.items()) if len(parts) >= FULL]


def _tier(size: int) -> int:
    tier = 0
    while size >= _SMALLEST:
        size, tier = size // FULL, tier + 1
    return tier


def _next(dataset: Dataset, unfinished: Container[str]) -> list[Path]:
    """Return the files to merge next: those of the first full tier that have the same columns."""
    paths = {part: path for part, path in dataset.parts().items() if part not in unfinished}
    sizes = {part: path.stat().st_size for part, path in paths.items()}
    for parts in full_tiers(sizes):
        alike = defaultdict[bytes, list["Path"]](list)  # by their columns
        for part in parts:
            with part_errors(part):
                alike[bytes(_columns(paths[part]).serialize())].append(paths[part])
        if len(most := max(alike.values(), key=len)) >= FULL:
            return most
    return []


def _columns(path: Path) -> pa.Schema:
    return schema_of_part(pq.read_schema(path))


def _merge(dataset: Dataset, paths: list[Path]) -> None:
    """Write the rows of some files, as they are, into one, and delete the files."""
    files = tuple(path.name for path in paths)
    parts = tuple(
        name for path in paths for name in (versioned(path.name)[0], *taken_over(path).parts)
    )
    older = _older(dataset, paths)
    target = dataset.data / merged_part(files)
    with dataset.part_file(target, _columns(paths[0]), TakenOver(files, parts)) as writer:
        for block in row_groups(_rows(paths, older)):
            writer.write_batch(block)
    for path in paths:
        dataset.gate()
        path.unlink(missing_ok=True)
    sync_folder(dataset.data)


def _rows(paths: list[Path], but: set[int]) -> Iterator[pa.RecordBatch]:
    """Yield the rows of some files, one after the other, without those at the given places."""
    first = 0
    for batch in _read(paths, None):
        here = range(first, first + batch.num_rows)
        keep = [place not in but for place in here] if but else []
        yield batch.filter(pa.array(keep)) if but and not all(keep) else batch
        first += batch.num_rows


def _read(paths: list[Path], columns: list[str] | None) -> Iterator[pa.RecordBatch]:
    for path in paths:
        with opened_part(path) as file:
            yield from map(from_parquet, file.iter_batches(READ_ROWS, columns=columns))


def _older(dataset: Dataset, paths: list[Path]) -> set[int]:
    """Return the places of rows whose key has a newer row in the files.

    There is none, unless a process that lost its hold on the dataset brought rows back. If they
    came into one file, no plan would notice.
    """
    heads = [np.zeros(0, np.uint64)]
    for batch in _read(paths, dataset.key):
        digests = b"".join(key_digest(key)[:_HEAD] for key in keys_of(batch, dataset.key))
        heads.append(np.frombuffer(digests, np.uint64))
    values, counts = np.unique(np.concatenate(heads), return_counts=True)
    doubtful = {value.tobytes() for value in values[counts > 1]}
    rows = defaultdict[bytes, list[tuple[int, int]]](list)  # (moment, place) of each
    place = 0
    for batch in _read(paths, [*dataset.key, "_enriched_at"]) if doubtful else ():
        moments = batch.column("_enriched_at").cast(pa.int64()).to_pylist()
        for key, moment in zip(keys_of(batch, dataset.key), moments, strict=True):
            if (digest := key_digest(key))[:_HEAD] in doubtful:
                rows[digest].append((moment, place))
            place += 1
    return {place for same in rows.values() for _, place in sorted(same)[:-1]}
