"""Tables as streams of Arrow record batches: Parquet, CSV and JSONL, local or by fsspec URL.

CSV cells are strings unless the spec's `types` says otherwise; JSONL and Parquet keep their types.
Rows are numbered from 1 in the order of the source, the header of a CSV file not counted.
"""

from __future__ import annotations

import re
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import fsspec  # pyright: ignore[reportMissingTypeStubs]
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq

from batchata_tasks.errors import SourceError
from batchata_tasks.source import BATCH_ROWS, Source, bytes_of, errors_of, plain_type
from batchata_tasks.sources_jsonl import open_jsonl

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Mapping

_BLOCK_BYTES = 1 << 24  # a CSV row may not be longer; 16 MB is above what a model takes
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


def open_source(url: str, types: Mapping[str, str]) -> Source:
    """Open a table by its ending: .parquet or a folder, .csv, .jsonl or .ndjson (also .gz).

    Raises:
        SourceError: it is not there, not readable, or of an unknown kind.
    """
    kind = _kind(url)
    if types and kind != "csv":
        message = f"types: only CSV columns can be given types, and {url} is not a CSV file; remove `types`."
        raise SourceError(message)
    with errors_of(url):
        match kind:
            case "csv":
                source = _open_csv(url, types)
            case "jsonl":
                source = open_jsonl(url)
            case _:
                source = _open_parquet(url)
    names = source.schema.names
    source = replace(source, schema=pa.schema([pa.field(f.name, plain_type(f.type)) for f in source.schema]))
    if doubled := sorted({name for name in names if names.count(name) > 1}):
        message = f"source: {url} has two columns named {doubled[0]!r}; rename one."
        raise SourceError(message)
    return source


def _kind(url: str) -> str:
    suffixes = [s.lower() for s in PurePosixPath(url).suffixes if s.lower() not in (".gz", ".gzip")]
    match suffixes[-1:]:
        case [".csv"]:
            return "csv"
        case [".jsonl"] | [".ndjson"]:
            return "jsonl"
        case [".parquet"] | [".pq"]:
            return "parquet"
        case _ if "://" not in url and Path(url).is_dir():
            return "parquet"
        case _ if "://" not in url and not Path(url).exists():
            message = f"source: there is no file {url} (paths are relative to the folder you run in)."
            raise SourceError(message)
        case _:
            message = f"source: cannot tell what {url} is; name a .parquet, .csv or .jsonl file (also .gz), or a folder of Parquet files."
            raise SourceError(message)


def _open_csv(url: str, types: Mapping[str, str]) -> Source:
    block = pacsv.ReadOptions(block_size=_BLOCK_BYTES)
    multiline = pacsv.ParseOptions(newlines_in_values=True)
    with bytes_of(url) as stream, pacsv.open_csv(stream, read_options=block, parse_options=multiline) as reader:
        names = reader.schema.names
    if missing := sorted(set(types) - set(names)):
        message = f"types: the source has no column {missing[0]!r}; it has: {', '.join(names)}."
        raise SourceError(message)
    schema = pa.schema([pa.field(name, _CSV_TYPES[types.get(name, "str")]) for name in names])

    def read(columns: list[str]) -> Iterator[pa.RecordBatch]:
        convert = pacsv.ConvertOptions(
            # Arrow reads times with a zone or without, not both: text, and converted below
            column_types={f.name: pa.string() if f.type.equals(_DATETIME) else f.type for f in schema},
            include_columns=columns,
            strings_can_be_null=False,
            null_values=[""],  # "NA" in a typed column is an error to be told, not a guess
        )
        with _misfits_of(url, names, types), bytes_of(url) as stream, pacsv.open_csv(
            stream, read_options=block, parse_options=multiline, convert_options=convert
        ) as reader:
            for batch in reader:
                yield _with_datetimes(batch, schema)

    return Source(url, schema, read)


@contextmanager
def _misfits_of(url: str, names: list[str], types: Mapping[str, str]) -> Generator[None, None, None]:
    """Name the column whose type does not fit, which the reader knows by its number alone."""
    try:
        yield
    except pa.ArrowInvalid as error:
        if (found := re.search(r"CSV column #(\d+): (.*)", str(error))) is None:
            raise
        name = names[int(found[1])]
        message = f"source: {url} cannot be read: column {name!r}: {found[2]}"
        if name in types:
            message += f"; mend the cell, or change {types[name]} in `types`."
        raise SourceError(message) from error


def _with_datetimes(batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    """Read ISO 8601 texts of datetime columns; those without a zone are UTC, empty ones null."""
    for i, name in enumerate(batch.schema.names):
        field = schema.field(name)
        if field.type.equals(_DATETIME):
            moments = [datetime.fromisoformat(text) if text else None for text in batch.column(i).to_pylist()]
            zoned = [m.replace(tzinfo=UTC) if m and m.tzinfo is None else m for m in moments]
            batch = batch.set_column(i, field, pa.array(zoned, type=_DATETIME))
    return batch


def _parquet_batches(filesystem: Any, path: str, columns: list[str]) -> Iterator[pa.RecordBatch]:
    # a scanner would hold whole row groups, and writers put a million rows into one
    with filesystem.open(path, "rb") as stream, pq.ParquetFile(stream, buffer_size=1 << 20) as file:
        for batch in file.iter_batches(BATCH_ROWS, columns=columns, use_threads=False):
            yield batch.select(columns)


def _open_parquet_file(url: str, filesystem: Any, path: str) -> Source:
    with filesystem.open(path, "rb") as stream:
        schema = pq.read_schema(stream).remove_metadata()
    return Source(url, schema, lambda columns: _parquet_batches(filesystem, path, columns))


def _open_parquet(url: str) -> Source:
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
            if all(f.name in found.names and found.field(f.name).type.equals(f.type) for f in wanted):
                yield from _parquet_batches(filesystem, fragment.path, columns)
            else:
                yield from fragment.to_batches(schema=dataset.schema, columns=columns, batch_size=BATCH_ROWS)

    return Source(url, dataset.schema, read)
