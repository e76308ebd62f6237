from collections.abc import Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, Self

from . import RecordBatch, Schema, Table

class RowGroupMetaData:
    num_rows: int

class FileMetaData:
    metadata: dict[bytes, bytes] | None
    def row_group(self, i: int) -> RowGroupMetaData: ...

class ParquetFile:
    schema_arrow: Schema
    metadata: FileMetaData
    num_row_groups: int
    def __init__(self, source: Any, *, buffer_size: int = 0, pre_buffer: bool = True) -> None: ...
    def iter_batches(
        self, batch_size: int, columns: Sequence[str] | None = None, use_threads: bool = True
    ) -> Iterator[RecordBatch]: ...
    def read(self, columns: Sequence[str] | None = None) -> Table: ...
    def read_row_group(self, i: int, columns: Sequence[str] | None = None) -> Table: ...
    def __enter__(self) -> Self: ...
    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...

class ParquetWriter:
    def __init__(
        self,
        where: Any,
        schema: Schema,
        *,
        compression: str = ...,
        use_dictionary: bool | list[str] = ...,
    ) -> None: ...
    def write_batch(self, batch: RecordBatch) -> None: ...
    def add_key_value_metadata(self, key_value_metadata: Mapping[str, str]) -> None: ...
    def __enter__(self) -> Self: ...
    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...

def read_metadata(where: Any) -> FileMetaData: ...
def read_schema(where: Any) -> Schema: ...
