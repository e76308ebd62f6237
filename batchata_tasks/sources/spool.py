"""Rows that were read once, kept aside: they can be read again, and are the same each time.

A query gives other rows, or the same in another order, whenever it is asked again. A plan reads its
source several times, so the rows of a query are kept in a temporary file from the first reading on.
"""

from __future__ import annotations

import io
import os
import tempfile
import weakref
from typing import TYPE_CHECKING

import pyarrow as pa

from batchata_tasks.common.arrow_types import plain
from batchata_tasks.common.files import storage_errors
from batchata_tasks.common.widening import joined
from batchata_tasks.sources.source import BATCH_ROWS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

_BLOCK_BYTES = 1 << 25  # of a block: some rows hold whole documents
_COMPRESSED = pa.ipc.IpcWriteOptions(compression="lz4", use_threads=False)


class Spool:
    """Blocks of rows in a file that has no name, so that nothing is left whatever happens.

    Only the user can read it. Blocks may differ in the types of their columns.
    """

    def __init__(self, batches: Iterable[pa.RecordBatch]) -> None:
        with storage_errors("keeping the rows of the source aside"):
            self._file, path = tempfile.mkstemp(prefix="batchata-rows-")
            weakref.finalize(self, os.close, self._file)
            os.unlink(path)  # noqa: PTH108 - a text
        self._blocks: list[tuple[int, int, int]] = []  # rows, and where they begin and end
        self.types: dict[str, list[pa.DataType]] = {}  # of each column, in the order they came
        waiting, size = list[pa.RecordBatch](), 0
        for batch in batches:
            if waiting and not waiting[0].schema.equals(batch.schema):
                self._write(waiting)
                waiting, size = [], 0
            waiting.append(batch)
            size += batch.nbytes
            if size >= _BLOCK_BYTES or sum(one.num_rows for one in waiting) >= BATCH_ROWS:
                self._write(waiting)
                waiting, size = [], 0
        self._write(waiting)

    def _write(self, batches: list[pa.RecordBatch]) -> None:
        if not batches:
            return
        batch = pa.concat_batches(batches)
        for field in batch.schema:
            types = self.types.setdefault(field.name, [])
            if not any(kind.equals(field.type) for kind in types):
                types.append(field.type)
        stream = io.BytesIO()
        with pa.ipc.new_stream(stream, batch.schema, options=_COMPRESSED) as writer:
            writer.write_batch(batch)
        start = self._blocks[-1][2] if self._blocks else 0
        with storage_errors("keeping the rows of the source aside"):
            content = memoryview(stream.getbuffer())
            while content:
                content = content[os.write(self._file, content) :]
        self._blocks.append((batch.num_rows, start, start + stream.tell()))

    def joined(
        self,
        column: str,
        join: Callable[[pa.DataType, pa.DataType], pa.DataType | None] = joined,
    ) -> pa.DataType | None:
        """Return the type that holds a column's values of all blocks; None if there is none."""
        kind: pa.DataType | None = pa.null()
        for other in self.types[column]:
            if kind is not None:
                kind = join(kind, plain(other))
        return kind

    def batches(self, columns: list[str]) -> Iterator[pa.RecordBatch]:
        """Yield the rows in order, with just these columns, in the types in which they came."""
        for rows, start, end in self._blocks:
            with storage_errors("reading the rows of the source that were kept aside"):
                content = os.pread(self._file, end - start, start)
            with pa.ipc.open_stream(pa.py_buffer(content)) as reader:
                batch = reader.read_next_batch().select(columns)
            for first in range(0, rows, BATCH_ROWS):
                yield batch.slice(first, BATCH_ROWS)
