from collections.abc import Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, Self

from . import DataType, RecordBatch, Schema

class ReadOptions:
    def __init__(self, *, block_size: int) -> None: ...

class ParseOptions:
    def __init__(self, *, newlines_in_values: bool = False) -> None: ...

class ConvertOptions:
    def __init__(
        self,
        *,
        column_types: Mapping[str, DataType],
        include_columns: Sequence[str],
        strings_can_be_null: bool,
        null_values: Sequence[str],
    ) -> None: ...

class CSVStreamingReader:
    schema: Schema
    def __iter__(self) -> Iterator[RecordBatch]: ...
    def __enter__(self) -> Self: ...
    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...

def open_csv(
    source: Any,
    *,
    read_options: ReadOptions | None = None,
    parse_options: ParseOptions | None = None,
    convert_options: ConvertOptions | None = None,
) -> CSVStreamingReader: ...
