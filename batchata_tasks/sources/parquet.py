"""Parquet sources: a file, or a folder of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import fsspec  # pyright: ignore[reportMissingTypeStubs]
import pyarrow as pa
import pyarrow.parquet as pq

from batchata_tasks.sources.table import BATCH_ROWS, Source

if TYPE_CHECKING:
    from collections.abc import Iterator


def _parquet_batches(filesystem: Any, path: str, columns: list[str]) -> Iterator[pa.RecordBatch]:
    # a scanner would hold whole row groups, and writers put a million rows into one
    with filesystem.open(path, "rb") as stream, pq.ParquetFile(stream, buffer_size=1 << 20) as file:
        for batch in file.iter_batches(BATCH_ROWS, columns=columns, use_threads=False):
            yield batch.select(columns)


def _open_parquet_file(url: str, filesystem: Any, path: str) -> Source:
    with filesystem.open(path, "rb") as stream:
        schema = pq.read_schema(stream).remove_metadata()
    return Source(url, schema, lambda columns: _parquet_batches(filesystem, path, columns))


def open_parquet(url: str) -> Source:
    """Open a Parquet file, or a folder of them."""
    filesystem, path = fsspec.url_to_fs(url)  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
    if not filesystem.exists(path):  # pyright: ignore[reportUnknownMemberType]
        raise FileNotFoundError(url)
    if filesystem.isfile(path):  # pyright: ignore[reportUnknownMemberType]
        return _open_parquet_file(url, filesystem, str(path))  # pyright: ignore[reportUnknownArgumentType]
    import pyarrow.dataset as pads  # noqa: PLC0415 - it brings pandas along, a quarter of a second

    dataset = pads.dataset(path, filesystem=filesystem, format="parquet")

    def read(columns: list[str]) -> Iterator[pa.RecordBatch]:
        wanted = [dataset.schema.field(name) for name in columns]
        for fragment in dataset.get_fragments():
            found = fragment.physical_schema
            if all(
                f.name in found.names and found.field(f.name).type.equals(f.type) for f in wanted
            ):
                yield from _parquet_batches(filesystem, fragment.path, columns)
            else:
                yield from fragment.to_batches(
                    schema=dataset.schema, columns=columns, batch_size=BATCH_ROWS
                )

    return Source(url, dataset.schema, read)
