"""Answer columns under another response model: each value that it can hold stays."""

from __future__ import annotations

import pyarrow as pa

from batchata_tasks.common.conversion import converted_or_null


def fitted(array: pa.Array, to: pa.DataType) -> pa.Array:
    """Return the values that a type can hold, and null for the others.

    Of an object the fields that the type lacks go; `_response` keeps the raw answer.
    """
    if array.type == to:
        return array
    if pa.types.is_struct(array.type) and pa.types.is_struct(to):
        children = dict(zip([field.name for field in array.type], array.flatten(), strict=True))
        arrays = [
            fitted(children[field.name], field.type)
            if field.name in children
            else pa.nulls(len(array), field.type)
            for field in to
        ]
        return pa.StructArray.from_arrays(arrays, fields=list(to), mask=array.is_null())
    return converted_or_null(array, to)


def misfits(array: pa.Array, to: pa.DataType) -> int:
    """Return how many values `fitted` makes null."""
    return fitted(array, to).null_count - array.null_count
