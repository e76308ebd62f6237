"""Hashes of rows' values, by which a plan finds the rows whose carried columns changed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pandas as pd  # pyright: ignore[reportMissingTypeStubs]
import pyarrow as pa
import pyarrow.compute as pc

from batchata_tasks.common.canonical import canonical
from batchata_tasks.dataset.columns import kept

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

_pandas = cast("Any", pd)  # it has no types
_NULL = np.uint64(0x9E3779B97F4A7C15)  # instead of a value's hash; any number would do
_PRIME = np.uint64(0x100000001B3)
_INTEGERS = {32: pa.int32(), 64: pa.int64()}


def row_hashes(batch: pa.RecordBatch, columns: Iterable[pa.Field]) -> NDArray[np.uint64]:
    """Return 64 bits for each row over its values in some columns, in the types given.

    They are to be compared within one process: another version may hash otherwise. A column that
    the batch lacks is null. Hashes of two values are equal by chance in one of 10^19 cases.

    Raises:
        StorageError: a value does not fit into its type.
    """
    hashes = np.zeros(batch.num_rows, np.uint64)
    for field in columns:
        if field.name in batch.schema.names:
            column = kept(batch.column(field.name), field)
        else:
            column = pa.nulls(batch.num_rows, field.type)
        hashes = hashes * _PRIME ^ _hashed(column)
    return hashes


def _hashed(column: pa.Array) -> NDArray[np.uint64]:
    if column.null_count == len(column):
        return np.full(len(column), _NULL)
    values = _pandas.util.hash_array(_numbers_or_texts(column), categorize=False)
    if column.null_count:
        values = np.where(pc.is_null(column).to_numpy(zero_copy_only=False), _NULL, values)
    return values


def _numbers_or_texts(column: pa.Array) -> NDArray[Any]:
    """Return values as numbers if they have a fixed width, as texts otherwise."""
    types, kind = pa.types, column.type
    if isinstance(column, pa.ExtensionArray):
        return _numbers_or_texts(column.storage)
    if types.is_string(kind) or types.is_binary(kind):
        return column.fill_null("").to_numpy(zero_copy_only=False)
    if types.is_boolean(kind):
        return _numbers_or_texts(column.cast(pa.int32()))
    if types.is_integer(kind) or types.is_floating(kind):
        return column.fill_null(0).to_numpy(zero_copy_only=False)
    if types.is_temporal(kind):
        return _numbers_or_texts(column.view(_INTEGERS[kind.bit_width]))
    return np.array([canonical(value).decode() for value in column.to_pylist()], object)
