"""Arrow types without what only a writer chose: encodings, views, offsets of 64 bits."""

from __future__ import annotations

import io
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq


def plain(kind: pa.DataType) -> pa.DataType:  # noqa: PLR0911 - a table of types
    """Return the type of the same values as every engine knows it, at each depth.

    Writers vary in dictionaries, run ends, views, 64-bit offsets, lists of a fixed size and narrow
    decimals from file to file. Names of list items and metadata of fields go as well.
    """
    types = pa.types
    if types.is_dictionary(kind) or types.is_run_end_encoded(kind):
        return plain(kind.value_type)
    if types.is_large_string(kind) or types.is_string_view(kind):
        return pa.string()
    if types.is_large_binary(kind) or types.is_binary_view(kind):
        return pa.binary()
    if is_list(kind):
        return pa.list_(plain(kind.value_type))
    if types.is_struct(kind):
        return pa.struct([pa.field(field.name, plain(field.type)) for field in kind])
    if types.is_map(kind):
        return pa.map_(plain(kind.key_type), plain(kind.item_type))
    if types.is_decimal32(kind) or types.is_decimal64(kind):
        return pa.decimal128(kind.precision, kind.scale)
    return kind


def is_list(kind: pa.DataType) -> bool:
    """Whether a type is one of the lists, whatever its layout."""
    types = pa.types
    return (
        types.is_list(kind)
        or types.is_large_list(kind)
        or types.is_fixed_size_list(kind)
        or types.is_list_view(kind)
        or types.is_large_list_view(kind)
    )


def as_stored(schema: pa.Schema) -> pa.Schema:
    """Return a schema as Parquet gives it back: seconds become milliseconds there, say.

    Raises:
        pa.ArrowException: Parquet cannot hold one of the columns.
    """
    stream = io.BytesIO()
    nulls = [pa.nulls(1, field.type) for field in schema]
    with pq.ParquetWriter(stream, schema) as writer:
        # some types are refused only with the first row
        writer.write_batch(pa.RecordBatch.from_arrays(nulls, schema=schema))
    try:
        return pq.read_schema(stream).remove_metadata()
    except OSError as error:  # readers refuse more than 100 levels
        raise pa.ArrowInvalid(str(error)) from error


def shared_values(column: pa.Array) -> list[Any]:
    """Return a column in Python values; equal values are one object.

    Columns of few values take less time and memory so than by `to_pylist`.
    """
    encoded = column.dictionary_encode()
    values: list[Any] = [*encoded.dictionary.to_pylist(), None]
    return [values[place] for place in encoded.indices.fill_null(len(values) - 1).to_pylist()]
