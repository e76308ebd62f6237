"""Values as earlier versions read them, of which the fingerprints of older rows are.

There an object had the fields of all rows' objects (null where its own line had none), a list one
type for all rows, and a number was a double if one row had one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from batchata_tasks.common.conversion import NOT_OF_ONE_TYPE, UnfitError, converted_or_null
from batchata_tasks.common.json_columns import python_list
from batchata_tasks.common.widening import joined

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


def legacy_values(
    rows: pa.RecordBatch, legacy: Mapping[str, pa.DataType]
) -> tuple[pa.RecordBatch, pa.Array]:
    """Return columns in their legacy types, and which rows have only values that these can hold.

    In the other rows a value that does not fit is null. Columns without a legacy type stay.
    """
    arrays, fits = list[pa.Array](), pa.array([True] * rows.num_rows)
    for name, column in zip(rows.schema.names, rows.columns, strict=True):
        array = converted_or_null(column, legacy.get(name, column.type))
        arrays.append(array)
        fits = pc.and_(fits, pc.or_(array.is_valid(), column.is_null()))
    return pa.RecordBatch.from_arrays(arrays, names=rows.schema.names), fits


def inferred_type(columns: Iterable[pa.Array]) -> pa.DataType:
    """Return the one type that earlier versions gave to a column of JSON, null if it has no value.

    Raises:
        UnfitError: there is none; its place is counted over all arrays.
    """
    kind, first = pa.null(), 0
    for column in columns:
        values = python_list(column)
        wide = _with_values(kind, values)
        if wide is None:
            place = _first_other(kind, values)
            raise UnfitError(first + place, values[place])
        kind, first = wide, first + len(values)
    return kind


def _with_values(kind: pa.DataType, values: list[Any]) -> pa.DataType | None:
    try:
        return joined(kind, pa.infer_type(values))
    except NOT_OF_ONE_TYPE:
        return None


def _first_other(kind: pa.DataType, values: list[Any]) -> int:
    """Return the place of the first value that is of no type together with those before it."""
    for place, value in enumerate(values):
        if (wide := _with_values(kind, [value])) is None:
            return place
        kind = wide
    return len(values) - 1
