"""Values reach a template as plain Python, whatever unit or type Arrow has them in."""

from __future__ import annotations

import operator
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchata_tasks.common.conversion import value_at
from batchata_tasks.common.errors import SourceError
from batchata_tasks.planning.fingerprint import part
from batchata_tasks.planning.templates import RowCondition, RowTemplate, variables
from batchata_tasks.planning.values import Moment, python_values, shown

UNITS = ("s", "ms", "us", "ns")
SECOND = 1_700_000_000  # 2023-11-14 22:13:20 UTC
PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
OPERATORS = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "==": operator.eq,
    "!=": operator.ne,
}
COMPARED = {text: RowCondition(f"a {text} b", ["a", "b"]) for text in OPERATORS}


def where() -> str:
    return "row 1"


def value_of(kind: pa.DataType, value: Any) -> Any:
    batch = pa.RecordBatch.from_arrays([pa.array([value], kind)], ["t"])
    return python_values(batch, "t", range(1, 1 + 2))[0]


def rendered(text: str, value: object) -> str:
    row = {"t": value}
    return RowTemplate("prompt", text, ["t"]).render(variables(shown(row, row)), where)


@pytest.mark.parametrize("unit", UNITS)
@pytest.mark.parametrize("zone", [None, "UTC", "Europe/Berlin", "+05:30"])
def test_timestamps_of_every_unit_are_datetimes(unit: str, zone: str | None) -> None:
    """They print alike and have a datetime's attributes, with a zone and without."""
    value = value_of(pa.timestamp(unit, zone), SECOND * PER_SECOND[unit])
    expected = {
        None: "2023-11-14 22:13:20",
        "UTC": "2023-11-14 22:13:20+00:00",
        "Europe/Berlin": "2023-11-14 23:13:20+01:00",
        "+05:30": "2023-11-15 03:43:20+05:30",
    }[zone]
    text = "{{ t }}|{{ t.strftime('%Y-%m-%d') }}|{{ t.year }}|{{ t.date() }}|{{ t.isoformat() }}"
    day = expected[:10]
    iso = expected.replace(" ", "T")
    assert rendered(text, value) == f"{expected}|{day}|2023|{day}|{iso}"


@pytest.mark.parametrize("unit", UNITS)
def test_timestamps_within_values_are_datetimes(unit: str) -> None:
    """In lists and objects, too."""
    moment = SECOND * PER_SECOND[unit]
    kind = pa.timestamp(unit)
    deep = pa.struct([("at", kind), ("all", pa.list_(pa.struct([("at", kind)])))])
    value = value_of(deep, {"at": moment, "all": [{"at": moment}, {"at": None}]})
    text = (
        "{{ t.at.year }} {{ t.all[0].at.strftime('%d.%m.') }} "
        "{% for x in t.all if x.at is not none %}{{ x.at.hour }}{% endfor %}"
    )
    assert rendered(text, value) == "2023 14.11. 22"


@given(
    nanoseconds=st.integers(-(2**62), 2**62),
    zone=st.sampled_from([None, "UTC", "Europe/Berlin", "America/New_York"]),
)
def test_nanoseconds_print_as_they_always_did(nanoseconds: int, zone: str | None) -> None:
    """No digit of a timestamp is lost on its way into a prompt."""
    value = value_of(pa.timestamp("ns", zone), nanoseconds)
    assert rendered("{{ t }}", value) == str(value)
    assert rendered("{{ t.isoformat() }}", value) == value.isoformat()


@given(first=st.integers(0, 2000), second=st.integers(0, 2000))
def test_nanoseconds_compare_as_they_always_did(first: int, second: int) -> None:
    """`where` chooses the rows that it chose, also by what a datetime could not tell apart."""
    kind = pa.timestamp("ns")
    row = {"a": value_of(kind, first), "b": value_of(kind, second)}
    seen = shown(row, row)
    for text, compared in COMPARED.items():
        assert compared.holds(variables(seen), where) is bool(OPERATORS[text](row["a"], row["b"]))
    assert (hash(seen["a"]) == hash(seen["b"])) or row["a"] != row["b"]


def test_a_moment_is_a_datetime_in_all_else() -> None:
    """It compares with datetimes, and with nothing else; another precision is printed on demand."""
    at = Moment(2026, 11, 22, 9, 30, tzinfo=UTC)
    at.nanosecond = 5
    assert at > datetime(2026, 11, 22, 9, 30, tzinfo=UTC) < at
    assert at != datetime(2026, 11, 22, 9, 30, tzinfo=UTC)
    assert at.isoformat(timespec="seconds") == "2026-11-22T09:30:00+00:00"
    assert at != "2026-11-22"
    with pytest.raises(TypeError):
        assert at < "2026-11-22"  # pyright: ignore[reportOperatorIssue] - the point of the test
    assert str(at + timedelta(days=1)) == "2026-11-23 09:30:00+00:00"
    text = "datetime.datetime(2026, 11, 22, 9, 30, tzinfo=datetime.timezone.utc, nanosecond=5)"
    assert repr([at]) == f"[{text}]"  # as within a list that a template prints


def test_other_values_stay_as_they_are() -> None:
    """Numbers, texts, dates, times, decimals and bytes are handed on; only nulls change."""
    row: dict[str, Any] = {
        "a": 1,
        "b": 1.5,
        "c": "x",
        "d": date(2026, 1, 2),
        "e": time(1, 2),
        "f": Decimal("1.10"),
        "g": b"x",
        "h": datetime(2026, 1, 2, tzinfo=ZoneInfo("Europe/Berlin")),
        "i": [("k", 1)],
        "j": True,
        "k": pd.Timedelta(5, "ns"),
    }
    assert shown(row, row) == row
    assert {name: type(value) for name, value in shown(row, row).items()} == {
        name: type(value) for name, value in row.items()
    }
    assert shown({"a": None, "b": [None]}, ["a", "b"], null=None) == {"a": None, "b": [None]}


def test_nulls_and_nanoseconds_keep_their_fingerprint() -> None:
    """How templates see a value does not change its fingerprint, or all rows were sent again."""
    kind = pa.struct([("x", pa.string()), ("at", pa.timestamp("ns", "UTC"))])
    batch = pa.RecordBatch.from_pydict(
        {
            "n": pa.array([None], pa.int64()),
            "at": pa.array([SECOND * 10**9 + 1], pa.timestamp("ns")),
            "o": pa.array([{"x": None, "at": SECOND * 10**9}], kind),
        }
    )
    row = {name: python_values(batch, name, 1)[0] for name in batch.schema.names}
    assert part("input", row) == "7b7acd851c5f89710bab3f9e"


@pytest.mark.parametrize(
    ("values", "shown"),
    [
        (pa.array([316_516_204_800], pa.timestamp("s")), "12000-01-01 00:00:00"),
        (pa.array([[10**7]], pa.list_(pa.date32())), "[29349-01-26]"),
        (pa.array([1], pa.timestamp("s", "Mars/Olympus")), "1970-01-01 00:00:01Z"),
        (pa.array([2**62], pa.duration("s")), str(2**62)),
    ],
)
def test_errors_show_what_python_cannot_hold(values: pa.Array, shown: str) -> None:
    """A value that does not fit its column may be one that cannot be shown as others are."""
    assert value_at(values, 0) == shown


def test_a_year_beyond_python_is_named() -> None:
    """A timestamp that Python cannot hold is an error with its column and row."""
    batch = pa.RecordBatch.from_arrays([pa.array([0, 10**15], pa.timestamp("s"))], ["t"])
    told = (
        r"^source: the column 't' has in row 12 a value that cannot be used: it is beyond the "
        r"years 1 to 9999; fix it\.$"
    )
    with pytest.raises(SourceError, match=told):
        python_values(batch, "t", range(11, 11 + 2))
