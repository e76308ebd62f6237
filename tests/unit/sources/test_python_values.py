"""Python's values as columns: kept exactly, or refused with their place."""

from __future__ import annotations

from collections import Counter, OrderedDict
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import Enum
from typing import Any
from uuid import UUID

import numpy as np
import pyarrow as pa
import pytest

from batchata_tasks.common.json_columns import JSON, python_list
from batchata_tasks.sources.python_values import OddValueError, column_of

NAIVE = datetime(2026, 11, 22, 9, 30, 0, 123456)  # noqa: DTZ001
UUID_TEXT = "b0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"


class Color(Enum):
    """An enumeration."""

    RED = "red"


@pytest.mark.parametrize(
    ("values", "kind", "read"),
    [
        ([], pa.null(), []),
        ([None, None], pa.null(), [None, None]),
        (["a", None], pa.string(), ["a", None]),
        ([1, None, -(2**63)], pa.int64(), [1, None, -(2**63)]),
        ([True, False], pa.bool_(), [True, False]),
        ([1.5, float("inf")], pa.float64(), [1.5, float("inf")]),
        ([1, 2.5], pa.float64(), [1.0, 2.5]),
        ([Decimal("1.50"), Decimal(-3)], pa.decimal128(3, 2), [Decimal("1.50"), Decimal("-3.00")]),
        ([Decimal("9" * 60)], pa.decimal256(60, 0), [Decimal("9" * 60)]),
        ([b"a", bytearray(b"b"), memoryview(b"c")], pa.binary(), [b"a", b"b", b"c"]),
        ([date(1, 1, 1)], pa.date32(), [date(1, 1, 1)]),
        ([NAIVE], pa.timestamp("us"), [NAIVE]),
        (
            [datetime(2026, 1, 1, 1, tzinfo=timezone(timedelta(hours=1)))],
            pa.timestamp("us", "UTC"),
            [datetime(2026, 1, 1, tzinfo=UTC)],
        ),
        ([time(9, 30, 0, 1)], pa.time64("us"), [time(9, 30, 0, 1)]),
        (
            [timedelta(days=1, microseconds=1)],
            pa.duration("us"),
            [timedelta(days=1, microseconds=1)],
        ),
        ([UUID(UUID_TEXT)], pa.string(), [UUID_TEXT]),
        ([Color.RED], pa.string(), ["red"]),
        ([["a"], None, []], pa.list_(pa.string()), [["a"], None, []]),
        ([(1, None)], pa.list_(pa.int64()), [[1, None]]),
        ([np.int32(7), np.int64(8)], pa.int64(), [7, 8]),
        ([np.array([1.5])], pa.list_(pa.float64()), [[1.5]]),
        ([{"a": 1}, None, {"b": [{}]}], JSON, [{"a": 1}, None, {"b": [{}]}]),
        ([{"a": 1}, [1, "x"]], JSON, [{"a": 1}, [1, "x"]]),
        ([[1, 2.5]], JSON, [[1, 2.5]]),
        ([OrderedDict(a=1)], JSON, [{"a": 1}]),
    ],
)
def test_a_column_of_values(values: list[Any], kind: pa.DataType, read: list[Any]) -> None:
    """Its type follows from the values alone, and they come back."""
    column = column_of(values)
    assert column.type.equals(kind)
    assert python_list(column) == read


@pytest.mark.parametrize(
    ("values", "place", "problem"),
    [
        (["a", 1], 1, "is of the type int, and others before it are not"),
        ([1, True], 1, "is of the type bool"),
        ([None, "a", ["a"]], 2, "is of the type list"),
        ([NAIVE, NAIVE.replace(tzinfo=UTC)], 1, "is of the type datetime"),
        ([NAIVE, NAIVE.date()], 1, "is of the type date"),
        ([object()], 0, "is of the type object"),
        ([1j], 0, "is of the type complex"),
        ([time(9, tzinfo=UTC)], 0, "is of the type time with a time zone"),
        ([1, 2**63], 1, "fits no column"),
        ([0.5, 2**53 + 1], 1, "is an integer that no float holds"),
        ([Decimal(1), Decimal("NaN")], 1, "fits no column"),
        ([Decimal("9" * 80)], 0, "fits no column"),
        (["a", "\ud800"], 1, "fits no column"),
        ([{"a": 1}, {"a": NAIVE}], 1, "fits no column"),
        ([{"a": float("nan")}], 0, "fits no column"),
        ([{"a": 2**64}], 0, "fits no column"),
        ([[1], [object()]], 1, "fits no column"),
        ([{1: "a"}], 0, "fits no column"),
    ],
)
def test_an_odd_value_is_named(values: list[Any], place: int, problem: str) -> None:
    """Nothing is rounded, cut, or turned into text."""
    with pytest.raises(OddValueError) as caught:
        column_of(values)
    assert caught.value.place == place
    assert problem in caught.value.problem


def test_counts_are_objects() -> None:
    """Kinds derived from those that are known count as these."""
    assert python_list(column_of([Counter("aab")])) == [{"a": 2, "b": 1}]
