"""CSV sources."""

from __future__ import annotations

import re
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.csv as pacsv
from fsspec.implementations.local import (  # pyright: ignore[reportMissingTypeStubs]
    LocalFileSystem,
)

from batchata_tasks.common.errors import SourceError
from batchata_tasks.sources.table import Source, bytes_of, filesystem_of

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Mapping

_BLOCK_BYTES = 1 << 24  # the longest CSV row; 16 MB is more than a model takes
_DATETIME = pa.timestamp("us", tz="UTC")
_CSV_TYPES: dict[str, pa.DataType] = {
    "str": pa.string(),
    "int": pa.int64(),
    "float": pa.float64(),
    "bool": pa.bool_(),
    "date": pa.date32(),
    "datetime": _DATETIME,
    "decimal": pa.decimal128(38, 9),
}


def open_csv(url: str, types: Mapping[str, str]) -> Source:
    """Open a CSV file; columns that `types` does not name are strings."""
    block = pacsv.ReadOptions(block_size=_BLOCK_BYTES)
    multiline = pacsv.ParseOptions(newlines_in_values=True)
    with (
        _opened(url) as stream,
        pacsv.open_csv(stream, read_options=block, parse_options=multiline) as reader,
    ):
        names = reader.schema.names
    if missing := sorted(set(types) - set(names)):
        message = f"types: the source has no column {missing[0]!r}; it has: {', '.join(names)}."
        raise SourceError(message)
    schema = pa.schema([pa.field(name, _CSV_TYPES[types.get(name, "str")]) for name in names])

    def read(columns: list[str]) -> Iterator[pa.RecordBatch]:
        convert = pacsv.ConvertOptions(
            # Arrow reads times with a zone or without, not both: they are converted from text
            column_types={
                f.name: pa.string() if f.type.equals(_DATETIME) else f.type for f in schema
            },
            include_columns=columns,
            strings_can_be_null=False,
            null_values=[""],  # "NA" in a typed column is an error, and is not guessed to be null
        )
        with (
            _named_column(url, names, types),
            _opened(url) as stream,
            pacsv.open_csv(
                stream, read_options=block, parse_options=multiline, convert_options=convert
            ) as reader,
        ):
            for batch in reader:
                yield _with_datetimes(batch, schema)

    return Source(url, schema, read)


@contextmanager
def _opened(url: str) -> Generator[Any, None, None]:
    """Open a CSV file for Arrow, which reads ahead in threads of its own.

    Local files are read without Python: a thread that is still about to call a Python stream when
    the program ends would abort it.
    """
    filesystem, path = filesystem_of(url)
    if not isinstance(filesystem, LocalFileSystem) or not path.endswith((".csv", ".csv.gz")):
        with bytes_of(url) as stream:
            yield stream
    elif path.endswith(".gz"):
        with pa.OSFile(path) as file, pa.CompressedInputStream(file, "gzip") as stream:
            yield stream
    else:
        with pa.OSFile(path) as file:
            yield file


@contextmanager
def _named_column(
    url: str, names: list[str], types: Mapping[str, str]
) -> Generator[None, None, None]:
    """Name the column whose type does not fit: the reader gives its number only."""
    try:
        yield
    except pa.ArrowInvalid as error:
        match = re.search(r"CSV column #(\d+): (.*)", str(error))
        if match is None:
            raise
        name = names[int(match[1])]
        message = f"source: {url} cannot be read: column {name!r}: {match[2]}"
        if name in types:
            message += f"; fix the cell, or change {types[name]} in `types`."
        raise SourceError(message) from error


def _with_datetimes(batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    """Read ISO 8601 texts of datetime columns; those without a zone are UTC, empty ones null."""
    for i, name in enumerate(batch.schema.names):
        field = schema.field(name)
        if field.type.equals(_DATETIME):
            texts = batch.column(i).to_pylist()
            moments = [datetime.fromisoformat(text) if text else None for text in texts]
            zoned = [m.replace(tzinfo=UTC) if m and m.tzinfo is None else m for m in moments]
            batch = batch.set_column(i, field, pa.array(zoned, type=_DATETIME))
    return batch
