"""Tables of JSON objects, one a line."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from batchata_tasks.common.errors import SourceError
from batchata_tasks.sources.table import BATCH_ROWS, Source, bytes_of

if TYPE_CHECKING:
    from collections.abc import Iterator


def open_jsonl(url: str) -> Source:
    """Open a JSONL file. It is read once for the columns: a later line may widen their types."""
    kinds: dict[str, pa.DataType] = {}
    for start, rows in _json_blocks(url):
        for name in dict.fromkeys(key for row in rows for key in row):
            try:
                kind = pa.infer_type([row.get(name) for row in rows])
                pair = [pa.schema([(name, kinds.get(name, pa.null()))]), pa.schema([(name, kind)])]
                kinds[name] = pa.unify_schemas(pair, promote_options="permissive").field(0).type
            except (pa.ArrowException, OverflowError) as error:
                message = (
                    f"source: {url}: the column {name!r} has values of several types, "
                    f"or too large ones, from row {start} on: {error}"
                )
                raise SourceError(message) from error
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
    except pa.ArrowException as error:
        message = (
            f"source: {url}: the column {field.name!r} has values of several types, "
            f"from row {start} on: {error}"
        )
        raise SourceError(message) from error


def _json_blocks(url: str) -> Iterator[tuple[int, list[dict[str, Any]]]]:
    """Yield blocks as (number of the first row, rows); lines end at newline bytes alone."""
    block: list[dict[str, Any]] = []
    number = 0
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
                yield number - BATCH_ROWS + 1, block
                block = []
    if block:
        yield number - len(block) + 1, block
