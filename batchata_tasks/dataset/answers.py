"""Answer columns under another response model: each value that it can hold stays."""

from __future__ import annotations

import pyarrow as pa

from batchata_tasks.common.widening import UnfitError, converted


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
    return _one_by_one(array, to)


def _one_by_one(array: pa.Array, to: pa.DataType) -> pa.Array:
    """Convert what can be, half by half where not all can."""
    try:
        return converted(array, to)
    except UnfitError:
        if len(array) == 1:
            return pa.nulls(1, to)
    middle = len(array) // 2
    halves = [array.slice(0, middle), array.slice(middle, len(array) - middle)]
    return pa.concat_arrays([_one_by_one(half, to) for half in halves])


def misfits(array: pa.Array, to: pa.DataType) -> int:
    """Return how many values `fitted` makes null."""
    return fitted(array, to).null_count - array.null_count
