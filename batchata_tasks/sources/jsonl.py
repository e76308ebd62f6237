"""Tables of JSON objects, one a line."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, cast

import pyarrow as pa

from batchata_tasks.common.errors import SourceError
from batchata_tasks.common.text import is_unicode, printable
from batchata_tasks.sources.table import BATCH_ROWS, Source, bytes_of

if TYPE_CHECKING:
    from collections.abc import Iterator


_INT64 = 2**63


def open_jsonl(url: str) -> Source:
    """Open a JSONL file. It is read once for the columns: a later line may widen their types."""
    kinds: dict[str, pa.DataType] = {}
    for start, rows in _json_blocks(url):
        for name in dict.fromkeys(key for row in rows for key in row):
            try:
                kind = pa.infer_type([row.get(name) for row in rows])
                pair = [pa.schema([(name, kinds.get(name, pa.null()))]), pa.schema([(name, kind)])]
                kinds[name] = pa.unify_schemas(pair, promote_options="permissive").field(0).type
            except (pa.ArrowException, OverflowError, UnicodeEncodeError) as error:
                raise _no_column(url, name, rows, start, error) from error
    schema = pa.schema(
        [(name, pa.string() if pa.types.is_null(kind) else kind) for name, kind in kinds.items()]
    )

    def read(columns: list[str]) -> Iterator[pa.RecordBatch]:
        wanted = pa.schema([schema.field(name) for name in columns])
        for start, rows in _json_blocks(url):
            arrays = [_json_column(url, field, rows, start) for field in wanted]
            yield pa.RecordBatch.from_arrays(arrays, schema=wanted)

    return Source(url, schema, read)


def _json_column(url: str, field: pa.Field, rows: list[dict[str, Any]], start: int) -> pa.Array:
    try:
        return pa.array([row.get(field.name) for row in rows], type=field.type)
    except (pa.ArrowException, OverflowError, UnicodeEncodeError) as error:
        raise _no_column(url, field.name, rows, start, error) from error


def _no_column(
    url: str, name: str, rows: list[dict[str, Any]], start: int, error: Exception
) -> SourceError:
    """Return the error for values that make no column; `start` is the number of the first row."""
    column = f"the column {printable(name)!r}"
    for number, row in enumerate(rows, start):
        # the name first, as it has to be a text, too
        problem = _unusable([name, row[name]]) if name in row else None
        if problem is not None:
            return SourceError(f"source: {url}: {column} has in row {number} {problem}.")
    return SourceError(
        f"source: {url}: {column} has values of several types, from row {start} on: {error}"
    )


def _unusable(value: object) -> str | None:
    """Return what no column can hold of a value, with the remedy; None if it is fine."""
    match value:
        case str() if not is_unicode(value):
            return f"a text with half of a surrogate pair ({value!a:.60}); fix it"
        case int() if not -_INT64 <= value < _INT64:
            return f"an integer beyond 64 bits ({value!s:.60}); write it as a text, in quotes"
        case list():
            parts = cast("list[object]", value)
        case dict():
            pairs = cast("dict[str, object]", value)
            parts = [*pairs, *pairs.values()]
        case _:
            parts = []
    return next((problem for part in parts if (problem := _unusable(part)) is not None), None)


def _json_blocks(url: str) -> Iterator[tuple[int, list[dict[str, Any]]]]:
    """Yield blocks as (number of the first row, rows); lines end at newline bytes alone.

    Blank lines are no rows.
    """
    block: list[dict[str, Any]] = []
    first = 1
    with bytes_of(url) as stream:
        for number, line in enumerate(stream, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)  # not orjson, which rounds integers of more than 64 bits
            except (ValueError, RecursionError) as error:
                message = f"source: {url} line {number} is not valid JSON: {error}"
                raise SourceError(message) from None
            if not isinstance(row, dict):
                message = f"source: {url} line {number} is not a JSON object."
                raise SourceError(message)
            block.append(row)  # pyright: ignore[reportUnknownArgumentType]
            if len(block) == BATCH_ROWS:
                yield first, block
                first, block = first + BATCH_ROWS, []
    if block:
        yield first, block
