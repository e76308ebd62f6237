from collections.abc import Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, Literal, Self

from . import DataType, RecordBatch, Schema, Table

class ReadOptions:
    use_threads: bool
    column_names: Sequence[str]
    autogenerate_column_names: bool
    def __init__(self, *, block_size: int, encoding: str = "utf8") -> None: ...

class ParseOptions:
    def __init__(
        self,
        *,
        delimiter: str = ",",
        quote_char: str | Literal[False] = '"',
        newlines_in_values: bool = False,
    ) -> None: ...

class ConvertOptions:
    def __init__(
        self,
        *,
        column_types: Mapping[str, DataType] | None = None,
        include_columns: Sequence[str] | None = None,
        strings_can_be_null: bool = False,
        null_values: Sequence[str] | None = None,
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
def read_csv(
    input_file: Any,
    read_options: ReadOptions | None = None,
    parse_options: ParseOptions | None = None,
    convert_options: ConvertOptions | None = None,
) -> Table: ...
def write_csv(data: Table, output_file: Any) -> None: ...
