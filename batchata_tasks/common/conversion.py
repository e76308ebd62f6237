"""Converts the values of a column to another type, or names the first that it cannot hold.

Nothing is rounded, cut, or dropped.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from batchata_tasks.common.arrow_types import is_list
from batchata_tasks.common.json_columns import is_json, json_array, python_list
from batchata_tasks.common.widening import kind_of

if TYPE_CHECKING:
    from collections.abc import Callable

NOT_OF_ONE_TYPE = (pa.ArrowException, ValueError, OverflowError, RecursionError)
_EXACT = 2**53  # a double holds every integer up to here
_MOST_DIGITS = 76  # of a decimal in 256 bits


class UnfitError(Exception):
    """A value that a type cannot hold: its place (from 0) and the value."""

    def __init__(self, place: int, value: object) -> None:
        super().__init__(f"the value at {place} does not fit: {value!r}")
        self.place = place
        self.value = value


_CONVERTIBLE = frozenset(
    {
        ("integer", "float"),
        ("float", "integer"),
        ("integer", "decimal"),
        ("decimal", "integer"),
        ("integer", "text"),
        ("float", "text"),
        ("decimal", "text"),
        ("truth", "text"),
        ("date", "text"),
    }
)


def converted(array: pa.Array, to: pa.DataType) -> pa.Array:  # noqa: PLR0911 - a table
    """Return the same values in another type.

    Raises:
        UnfitError: the first value that it cannot hold.
    """
    types = pa.types
    if array.type == to:
        return array
    if array.null_count == len(array):
        return pa.nulls(len(array), to)
    if types.is_dictionary(array.type):
        return converted(array.dictionary_decode(), to)
    if types.is_run_end_encoded(array.type):
        return converted(pc.run_end_decode(array), to)
    if is_json(array.type) or is_json(to):
        return _json(array, to)
    if is_list(array.type) and types.is_list(to):
        return _list(array, to)
    if types.is_struct(array.type) and types.is_struct(to):
        return _struct(array, to)
    if types.is_map(array.type) and types.is_map(to):
        return _map(array, to)
    kinds = kind_of(array.type), kind_of(to)
    nested = types.is_nested(array.type) or types.is_nested(to)
    if nested or (kinds[0] != kinds[1] and kinds not in _CONVERTIBLE):
        raise _unfit(array, pc.is_valid(array))
    return _leaf(array, to)


def converted_or_null(array: pa.Array, to: pa.DataType) -> pa.Array:
    """Return the values in another type, and null for each that it cannot hold."""
    try:
        return converted(array, to)
    except UnfitError:
        if len(array) == 1:
            return pa.nulls(1, to)
    middle = len(array) // 2
    halves = [array.slice(0, middle), array.slice(middle, len(array) - middle)]
    return pa.concat_arrays([converted_or_null(half, to) for half in halves])


def _json(array: pa.Array, to: pa.DataType) -> pa.Array:
    """Convert lists and objects to JSON, or back."""
    if not (_is_nested(array.type) and _is_nested(to)):
        raise _unfit(array, pc.is_valid(array))
    values = python_list(array)
    if is_json(to):
        return _each_or_unfit(values, json_array)
    # the type is found by values, as of any source; what it lacks to the other one is null
    array = _each_or_unfit(values, pa.array)
    try:
        return converted(array, to)
    except UnfitError as error:
        raise UnfitError(error.place, values[error.place]) from error


def _is_nested(kind: pa.DataType) -> bool:
    return is_json(kind) or is_list(kind) or pa.types.is_struct(kind)


def _each_or_unfit(values: list[Any], made: Callable[[list[Any]], pa.Array]) -> pa.Array:
    """Return an array of values; raise UnfitError for the first that is in none, or not in this."""
    try:
        return made(values)
    except NOT_OF_ONE_TYPE as error:
        if len(values) == 1:
            raise UnfitError(0, values[0]) from error
    fitting, first_unfit = 0, len(values)
    while first_unfit - fitting > 1:
        middle = (fitting + first_unfit) // 2
        try:
            made(values[:middle])
        except NOT_OF_ONE_TYPE:
            first_unfit = middle
        else:
            fitting = middle
    raise UnfitError(first_unfit - 1, values[first_unfit - 1])


def _unfit(array: pa.Array, fails: pa.Array | pa.ChunkedArray) -> UnfitError:
    place = pc.index(fails, pa.scalar(value=True)).as_py()
    return UnfitError(place, value_at(array, place))


def value_at(array: pa.Array, place: int) -> object:
    """Return a value for people; one that Python cannot hold as Arrow writes it."""
    one = array.slice(place, 1)
    try:
        return python_list(one)[0]
    except (ValueError, OverflowError, KeyError):  # KeyError: for an unknown time zone
        return one.to_string(skip_new_lines=True).removeprefix("[").removesuffix("]")


def _within(array: pa.Array, offsets: pa.Array, error: UnfitError) -> UnfitError:
    """Return the row of a list that has an unfit item."""
    rows = pc.sum(pc.less_equal(offsets, error.place)).as_py() - 1
    return UnfitError(rows, value_at(array, rows))


def _offsets(array: pa.Array) -> pa.Array:
    """Return where the items of each list begin among those of all, and the end."""
    lengths = pc.fill_null(pc.list_value_length(array).cast(pa.int64()), 0)
    return pa.concat_arrays([pa.array([0], pa.int64()), pc.cumulative_sum(lengths)])


def _list(array: pa.Array, to: pa.DataType) -> pa.ListArray:
    offsets = _offsets(array)
    try:
        items = converted(array.flatten(), to.value_type)
    except UnfitError as error:
        raise _within(array, offsets, error) from error
    return pa.ListArray.from_arrays(offsets.cast(pa.int32()), items, to, mask=array.is_null())


def _map(array: pa.Array, to: pa.DataType) -> pa.Array:
    try:
        lists = _list(array.cast(pa.list_(_entry(array.type))), pa.list_(_entry(to)))
    except UnfitError as error:
        raise UnfitError(error.place, value_at(array, error.place)) from error
    keys, items = lists.values.flatten()
    return pa.MapArray.from_arrays(lists.offsets, keys, items, to, mask=lists.is_null())


def _entry(kind: pa.DataType) -> pa.DataType:
    """Return the struct that each entry of a map is."""
    return pa.struct([pa.field("key", kind.key_type), pa.field("value", kind.item_type)])


def _struct(array: pa.Array, to: pa.DataType) -> pa.Array:
    names = [field.name for field in array.type]
    children: dict[str, pa.Array] = dict(zip(names, array.flatten(), strict=True))
    for name in children.keys() - {field.name for field in to}:
        if children[name].null_count < len(array):
            raise _unfit(array, pc.is_valid(children[name]))
    arrays = list[pa.Array]()
    for field in to:
        child = children.get(field.name)
        try:
            arrays.append(
                pa.nulls(len(array), field.type) if child is None else converted(child, field.type)
            )
        except UnfitError as error:
            raise UnfitError(error.place, value_at(array, error.place)) from error
    return pa.StructArray.from_arrays(arrays, fields=list(to), mask=array.is_null())


def _leaf(array: pa.Array, to: pa.DataType) -> pa.Array:
    """Convert values that hold no others."""
    if pa.types.is_timestamp(array.type) and (array.type.tz is None) != (to.tz is None):
        raise _unfit(array, pc.is_valid(array))
    if pa.types.is_floating(array.type) and pa.types.is_integer(to):
        # beyond, a double that looks like an integer may stand for another one
        inexact = pc.greater(pc.abs(array), pa.scalar(_EXACT, pa.float64()))
        if pc.any(inexact).as_py():
            raise _unfit(array, inexact)
    try:
        return _cast(array, to)
    except pa.ArrowException:
        place = _first_unfit(array, to)
        raise UnfitError(place, value_at(array, place)) from None


def _cast(array: pa.Array, to: pa.DataType) -> pa.Array:
    if pa.types.is_integer(array.type) and pa.types.is_decimal(to):
        array = array.cast(pa.decimal256(_MOST_DIGITS, max(to.scale, 0)))  # wide enough for all
    return array.cast(to)


def _first_unfit(array: pa.Array, to: pa.DataType) -> int:
    """Return the place of the first value that a cast refuses; there is one."""
    start, stop = 0, len(array)
    while stop - start > 1:
        middle = (start + stop) // 2
        try:
            _cast(array.slice(start, middle - start), to)
        except pa.ArrowException:
            stop = middle
        else:
            start = middle
    return start
