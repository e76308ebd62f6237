"""What rows had before the attempt that replaces them, and keep: answers, retired columns.

An answer was paid for, so an attempt that brought none leaves it. A column that left the spec's
`columns` has no value in the manifest, so rows that are sent again keep what they had.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pyarrow as pa

from batchata_tasks.common.canonical import key_digest
from batchata_tasks.dataset.columns import conformed, keys_of
from batchata_tasks.planning.fingerprint import is_rehearsed

if TYPE_CHECKING:
    from collections.abc import Iterator

    from batchata_tasks.dataset.parts import Dataset


SAID = ("_response", "_citations")
_READ = (*SAID, "_status", "_fingerprint", "_enriched_at")


class EarlierAnswers:
    """Reads them from the parts that a chunk replaces, when the first one is asked for.

    They stay as Arrow has them: as Python's objects, those of a large batch that did not run would
    take gigabytes. `own` is the chunk's own part: a landing that died may have taken rows out of
    the older ones.
    """

    def __init__(self, dataset: Dataset, manifest: pa.Table, own: str) -> None:
        self._dataset = dataset
        self._manifest = manifest
        self._own = own
        self._is_read = False
        self._digests = list[bytes]()
        self._batches = list[pa.RecordBatch]()
        self._places = dict[bytes, tuple[int, int]]()  # batch, and row of it

    def __call__(self, position: int) -> dict[str, Any]:
        """Return the columns of an earlier answer to the row at a position, if it had one.

        They are what it said, its `_status` and `_fingerprint`, and when it landed.
        """
        if not self._is_read:
            self._read()
        if (place := self._places.get(self._digests[position])) is None:
            return {}
        number, row = place
        return {name: self._batches[number].column(name)[row].as_py() for name in _READ}

    def _read(self) -> None:
        self._digests = [key_digest(key) for key in keys_of(self._manifest, self._dataset.key)]
        wanted, columns = set(self._digests), [*_READ]
        # a made-up answer is kept by rehearsals alone
        is_rehearsal = any(map(is_rehearsed, self._manifest["_fingerprint"].to_pylist()))
        for digests, batch in _replaced(self._dataset, self._manifest, self._own, columns):
            answered = batch.column("_response").is_valid().to_pylist()
            prints = batch.column("_fingerprint").to_pylist()
            at = [
                i
                for i, digest in enumerate(digests)
                if digest in wanted
                and answered[i]
                and is_rehearsed(prints[i] or "") == is_rehearsal
            ]
            number = len(self._batches)
            self._batches.append(batch.select(columns).take(pa.array(at, pa.int64())))
            self._places |= {digests[i]: (number, row) for row, i in enumerate(at)}
        self._is_read = True


def _replaced(
    dataset: Dataset, manifest: pa.Table, own: str, columns: list[str]
) -> Iterator[tuple[list[bytes], pa.RecordBatch]]:
    """Yield (keys as digests, rows) of the parts that a manifest replaces, then of its own part."""
    replaced: list[str | None] = manifest["_replaces"].to_pylist()
    parts = [*filter(None, dict.fromkeys(replaced)), own]
    for part in dict.fromkeys(filter(None, map(dataset.holder, parts))):
        for batch in dataset.part_rows(part, [*dataset.key, *columns]):
            yield [key_digest(one) for one in keys_of(batch, dataset.key)], batch


class RetiredValues:
    """The values that a chunk's rows have in columns which the spec no longer names."""

    def __init__(self, dataset: Dataset, manifest: pa.Table, own: str, columns: pa.Schema) -> None:
        self.names = columns.names
        self._digests = list[bytes]()
        self._places = dict[bytes, int]()
        self._rows = pa.Table.from_batches([], columns)
        if columns.names and manifest.num_rows:
            self._digests = [key_digest(key) for key in keys_of(manifest, dataset.key)]
            self._rows = self._read(dataset, manifest, own, columns)

    def _read(self, dataset: Dataset, manifest: pa.Table, own: str, columns: pa.Schema) -> pa.Table:
        wanted, batches, rows = set(self._digests), list[pa.RecordBatch](), 0
        for digests, batch in _replaced(dataset, manifest, own, columns.names):
            at = [i for i, digest in enumerate(digests) if digest in wanted]
            batches.append(conformed(batch, columns).take(pa.array(at, pa.int64())))
            self._places |= {digests[i]: rows + n for n, i in enumerate(at)}
            rows += len(at)
        return pa.Table.from_batches(batches, columns).combine_chunks()

    def of(self, name: str, positions: list[int]) -> pa.Array:
        """Return a column's values for the rows at these positions of the chunk."""
        column, kind = self._rows.column(name), self._rows.schema.field(name).type
        if not column.num_chunks:
            return pa.nulls(len(positions), kind)
        places = [self._places.get(self._digests[position]) for position in positions]
        return column.chunk(0).take(pa.array(places, pa.int64()))
