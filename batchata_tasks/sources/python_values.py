"""Columns of Python's values, as drivers of databases and frames of objects have them.

Values of one kind make a column of their type. Objects and lists of several kinds are JSON, as they
are in JSON lines. What is neither is refused, with the row: nothing is turned into text in silence.
"""

from __future__ import annotations

from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from typing import TYPE_CHECKING, Any, cast
from uuid import UUID

import pyarrow as pa

from batchata_tasks.common.conversion import NOT_OF_ONE_TYPE
from batchata_tasks.common.json_columns import JSON, json_array

if TYPE_CHECKING:
    from collections.abc import Sequence

_NULL = type(None)
_MOMENT = pa.timestamp("us", tz="UTC")
# None: Arrow finds the type by the values, as many digits as a decimal has, say
_TYPES: dict[frozenset[Any], pa.DataType | None] = {
    frozenset(): pa.null(),
    frozenset({str}): pa.string(),
    frozenset({bool}): pa.bool_(),
    frozenset({int}): pa.int64(),
    frozenset({float}): pa.float64(),
    frozenset({int, float}): pa.float64(),
    frozenset({Decimal}): None,
    frozenset({int, Decimal}): None,
    frozenset({date}): pa.date32(),
    frozenset({datetime}): pa.timestamp("us"),
    frozenset({"moment"}): _MOMENT,
    frozenset({time}): pa.time64("us"),
    frozenset({timedelta}): pa.duration("us"),
    frozenset({bytes}): pa.binary(),
}
_EXACT = 2**53  # a double holds every integer up to here


class OddValueError(Exception):
    """A value that makes no column with those before it: its place (from 0), itself, and why."""

    def __init__(self, place: int, value: object, problem: str) -> None:
        super().__init__(f"the value at {place} {problem}: {value!r:.80}")
        self.place, self.value, self.problem = place, value, problem


def column_of(values: Sequence[object]) -> pa.Array:
    """Return values as a column.

    Raises:
        OddValueError: the first value that no column holds, or not this one.
    """
    plain = [_plain(value) for value in values]
    kinds = {_kind(value) for value in plain} - {_NULL}
    if kinds and kinds <= {dict, list}:
        return _nested(plain, kinds)
    if frozenset(kinds) not in _TYPES:
        raise _first_odd(plain)
    kind = _TYPES[frozenset(kinds)]
    if kinds == {int, float}:
        _refuse_inexact(plain)
    try:
        return pa.array(plain, kind)
    except NOT_OF_ONE_TYPE as error:
        raise _unfit(plain, kind) from error


def _plain(value: Any) -> object:
    """Return what stands for a value: a text for a UUID, Python's number for one of NumPy."""
    match value:
        case UUID():
            return str(value)
        case Enum():
            return _plain(value.value)
        case bytearray() | memoryview():
            return bytes(cast("bytearray", value))
        case tuple() | set() | frozenset():
            return list(cast("tuple[object, ...]", value))
        case _ if type(value).__module__ == "numpy":
            return value.tolist()
        case _:
            return value


def _kind(value: object) -> Any:
    """Return the kind of a value: its own class, or the nearest that is known."""
    if isinstance(value, datetime):
        return datetime if value.tzinfo is None else "moment"
    if isinstance(value, time) and value.tzinfo is not None:
        return object
    kind = type(value)
    if frozenset({kind}) in _TYPES or kind in (_NULL, dict, list):
        return kind
    bases = (bool, int, float, str, bytes, Decimal, timedelta, date, time, dict, list)
    return next((one for one in bases if isinstance(value, one)), object)


def _nested(values: list[object], kinds: set[Any]) -> pa.Array:
    """Return lists of one kind of values as a column of lists, and all else as JSON."""
    if kinds == {list}:
        lists = [cast("list[object]", one) for one in values if one is not None]
        inner = {_kind(item) for one in lists for item in one} - {_NULL}
        kind = _TYPES.get(frozenset(inner))
        if kind is not None and inner != {int, float}:
            try:
                return pa.array(values, pa.list_(kind))
            except NOT_OF_ONE_TYPE as error:
                raise _unfit(values, pa.list_(kind)) from error
    try:
        return json_array(values)
    except (ValueError, RecursionError) as error:
        raise _unfit(values, JSON) from error


def _unfit(values: list[object], kind: pa.DataType | None) -> OddValueError:
    """Return the error for the first of some values that a type does not hold."""
    for place, value in enumerate(values):
        try:
            _ = json_array([value]) if kind is JSON else pa.array([value], kind)
        except NOT_OF_ONE_TYPE as error:
            reason = " ".join(str(error).split())[:120]
            return OddValueError(place, value, f"fits no column ({reason})")
    return OddValueError(0, values[0], "makes no column with the others")


def _first_odd(values: list[object]) -> OddValueError:
    """Return the error for the first value that makes no column with those before it."""
    kinds = set[Any]()
    for place, value in enumerate(values):
        kind = _kind(value)
        if kind is object:
            zone = " with a time zone" if isinstance(value, time) else ""
            return OddValueError(place, value, f"is of the type {type(value).__name__}{zone}")
        if kind is not _NULL:
            kinds.add(kind)
        if not (kinds <= {dict, list} or frozenset(kinds) in _TYPES):
            problem = f"is of the type {type(value).__name__}, and others before it are not"
            return OddValueError(place, value, problem)
    message = "every value makes a column with the others"
    raise AssertionError(message)


def _refuse_inexact(values: list[object]) -> None:
    for place, value in enumerate(values):
        if isinstance(value, int) and abs(value) > _EXACT:
            problem = "is an integer that no float holds, and the column has floats"
            raise OddValueError(place, value, problem)
