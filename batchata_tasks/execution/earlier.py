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

    `own` is the chunk's own part: a landing that died may have taken rows out of the older ones.
    """

    def __init__(self, dataset: Dataset, manifest: pa.Table, own: str) -> None:
        self._dataset = dataset
        self._manifest = manifest
        self._own = own
        self._said: dict[bytes, dict[str, Any]] | None = None
        self._digests = list[bytes]()

    def __call__(self, position: int) -> dict[str, Any]:
        """Return the columns of an earlier answer to the row at a position, if it had one.

        They are what it said, its `_status` and `_fingerprint`, and when it landed.
        """
        if self._said is None:
            keys = keys_of(self._manifest, self._dataset.key)
            self._digests = [key_digest(key) for key in keys]
            self._said = self._read(set(self._digests))
        return self._said.get(self._digests[position], {})

    def _read(self, wanted: set[bytes]) -> dict[bytes, dict[str, Any]]:
        said = dict[bytes, dict[str, Any]]()
        columns: list[str] = [*_READ]
        # a made-up answer is kept by rehearsals alone
        is_rehearsal = any(map(is_rehearsed, self._manifest["_fingerprint"].to_pylist()))
        for digests, batch in _replaced(self._dataset, self._manifest, self._own, columns):
            for digest, row in zip(digests, batch.select(columns).to_pylist(), strict=True):
                made_up = is_rehearsed(row["_fingerprint"] or "")
                if digest in wanted and row["_response"] is not None and made_up == is_rehearsal:
                    said[digest] = row
        return said


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
