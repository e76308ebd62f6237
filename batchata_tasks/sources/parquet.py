"""Parquet files."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq

from batchata_tasks.common.json_columns import is_json, texts_of
from batchata_tasks.sources.source import BATCH_ROWS, Block, Place, ReadOptions, errors_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from batchata_tasks.sources.files import File

MARK = b"PAR1"


class ParquetTable:
    """A Parquet file, as a Source."""

    def __init__(self, file: File, options: ReadOptions) -> None:
        del options  # the file says itself what its columns are
        self._file = file
        self.url = file.name

    @cached_property
    def _schema(self) -> pa.Schema:
        with errors_of(self.url), self._file.raw() as stream:
            schema = pq.read_schema(stream).remove_metadata()
        # a text that its writer called JSON is a text
        return pa.schema([f.with_type(pa.string()) if is_json(f.type) else f for f in schema])

    def names(self) -> list[str]:
        """See Source."""
        return self._schema.names

    def schema(self, columns: list[str]) -> pa.Schema:
        """See Source."""
        return pa.schema([self._schema.field(name) for name in columns])

    def batches(self, columns: list[str]) -> Iterator[Block]:
        """See Source."""
        first = 1
        with (
            errors_of(self.url),
            self._file.raw() as stream,
            # with its default, the reader holds all that it has read of the file
            pq.ParquetFile(stream, buffer_size=1 << 20, pre_buffer=False) as file,
        ):
            # a scanner would hold whole row groups, and writers put a million rows into one
            for batch in file.iter_batches(BATCH_ROWS, columns=columns, use_threads=False):
                arrays = [_as_text(batch.column(name)) for name in columns]
                rows = pa.RecordBatch.from_arrays(arrays, schema=self.schema(columns))
                yield Block(rows, Place(self.url, first))
                first += batch.num_rows


def _as_text(column: pa.Array) -> pa.Array:
    return texts_of(column) if is_json(column.type) else column
