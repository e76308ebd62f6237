"""Parquet sources: a file, or a folder of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from batchata_tasks.sources.table import BATCH_ROWS, Source, filesystem_of

if TYPE_CHECKING:
    from collections.abc import Iterator


def open_parquet(url: str) -> Source:
    """Open a Parquet file, or a folder of them."""
    filesystem, path = filesystem_of(url)
    if not filesystem.exists(path):
        raise FileNotFoundError(url)
    if filesystem.isfile(path):
        with filesystem.open(path, "rb") as stream:
            schema = pq.read_schema(stream).remove_metadata()
        return Source(url, schema, lambda columns: _batches(filesystem, path, columns))
    return _open_folder(url, filesystem, path)


def _open_folder(url: str, filesystem: Any, path: str) -> Source:
    import pyarrow.dataset as pads  # noqa: PLC0415 - it imports pandas, a quarter of a second

    dataset = pads.dataset(path, filesystem=filesystem, format="parquet")

    def read(columns: list[str]) -> Iterator[pa.RecordBatch]:
        wanted = pa.schema([dataset.schema.field(name) for name in columns])
        for fragment in dataset.get_fragments():
            if _holds(fragment.physical_schema, wanted):
                yield from _batches(filesystem, fragment.path, columns)
            else:
                yield from fragment.to_batches(
                    schema=dataset.schema, columns=columns, batch_size=BATCH_ROWS
                )

    return Source(url, dataset.schema, read)


def _holds(schema: pa.Schema, wanted: pa.Schema) -> bool:
    """Whether a file has all columns, in the same types."""
    return all(
        field.name in schema.names and schema.field(field.name).type.equals(field.type)
        for field in wanted
    )


def _batches(filesystem: Any, path: str, columns: list[str]) -> Iterator[pa.RecordBatch]:
    # a scanner would hold whole row groups, and writers put a million rows into one
    with filesystem.open(path, "rb") as stream, pq.ParquetFile(stream, buffer_size=1 << 20) as file:
        for batch in file.iter_batches(BATCH_ROWS, columns=columns, use_threads=False):
            yield batch.select(columns)
