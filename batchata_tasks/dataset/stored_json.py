"""JSON columns in the parts: texts of JSON, which every reader of Parquet shows as such.

A mark in the column's metadata tells them from other texts. Parquet's own type for JSON is not
used, since readers show it in ways of their own. So a column that has it comes of a version that
took such a source column for a text, and is one.
"""

from __future__ import annotations

import pyarrow as pa

from batchata_tasks.common.json_columns import JSON, is_json, json_of, texts_of

_MARK = {b"batchata:type": b"json"}


def parquet_schema(schema: pa.Schema) -> pa.Schema:
    """Return a schema as a part is written with."""
    return pa.schema([_written(field) for field in schema])


def _written(field: pa.Field) -> pa.Field:
    return pa.field(field.name, pa.string(), metadata=_MARK) if is_json(field.type) else field


def to_parquet(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Return rows as a part holds them."""
    if not any(is_json(field.type) for field in batch.schema):
        return batch
    arrays = [texts_of(column) if is_json(column.type) else column for column in batch.columns]
    return pa.RecordBatch.from_arrays(arrays, schema=parquet_schema(batch.schema))


def schema_of_part(stored: pa.Schema) -> pa.Schema:
    """Return the columns of a part whose file has this schema."""
    return pa.schema([_read(field) for field in stored])


def _read(field: pa.Field) -> pa.Field:
    if is_json(field.type):
        return field.with_type(pa.string())
    if (field.metadata or {}).items() >= _MARK.items():
        return pa.field(field.name, JSON)
    return field


def from_parquet(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Return rows that were read from a part."""
    schema = schema_of_part(batch.schema)
    if schema.equals(batch.schema):
        return batch
    arrays = list[pa.Array]()
    for column, field in zip(batch.columns, schema, strict=True):
        texts = texts_of(column) if is_json(column.type) else column
        arrays.append(json_of(texts) if is_json(field.type) else texts)
    return pa.RecordBatch.from_arrays(arrays, schema=schema)
