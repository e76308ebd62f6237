"""Every type that a source can have: kept exactly, or refused before anything is sent."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batchata_tasks.common.errors import InputError, SpecError
from batchata_tasks.common.settings import Settings
from batchata_tasks.operations.forget import forget
from batchata_tasks.reports.one_row import one_row
from batchata_tasks.reports.source_row import SourceRow
from tests.support.nights import Nights

if TYPE_CHECKING:
    from pathlib import Path

    from batchata_tasks.emulator import Emulator

MORNING = datetime(2026, 11, 22, 9, 30, 0, 123000)  # noqa: DTZ001
ZONED = datetime(2026, 11, 22, 9, 30, tzinfo=UTC)
NANOS = 1_700_000_000_123_456_789
# of each type: two values, and what a prompt says of the first
SAMPLES: dict[str, tuple[pa.DataType, list[Any], str]] = {
    **{
        str(kind): (kind, [7, 2 ** (kind.bit_width - 1) - 1], "7")
        for make in (
            pa.int8,
            pa.int16,
            pa.int32,
            pa.int64,
            pa.uint8,
            pa.uint16,
            pa.uint32,
            pa.uint64,
        )
        for kind in [make()]
    },
    "float": (pa.float32(), [0.5, -2.0], "0.5"),
    "double": (pa.float64(), [0.1, 1e300], "0.1"),
    "bool": (pa.bool_(), [True, False], "True"),
    "string": (pa.string(), ["01067", "é\u2028x"], "01067"),
    "large_string": (pa.large_string(), ["01067", ""], "01067"),
    "string_view": (pa.string_view(), ["01067", "a longer text than twelve bytes"], "01067"),
    "binary": (pa.binary(), [b"ab", b"\0"], "b'ab'"),
    "large_binary": (pa.large_binary(), [b"ab", b"\0"], "b'ab'"),
    "fixed_binary": (pa.binary(2), [b"ab", b"\0\0"], "b'ab'"),
    "date32": (pa.date32(), [date(2026, 11, 22), date(1, 1, 1)], "2026-11-22"),
    "date64": (pa.date64(), [date(2026, 11, 22), date(1969, 1, 1)], "2026-11-22"),
    "time32": (pa.time32("ms"), [time(9, 30), time(0, 0, 0, 1000)], "09:30:00"),
    "time64": (pa.time64("us"), [time(9, 30), time(0, 0, 0, 1)], "09:30:00"),
    "timestamp-s": (pa.timestamp("s"), [MORNING.replace(microsecond=0)] * 2, "2026-11-22 09:30:00"),
    "timestamp-ms": (pa.timestamp("ms"), [MORNING, MORNING], "2026-11-22 09:30:00.123000"),
    "timestamp-us": (pa.timestamp("us"), [MORNING, MORNING], "2026-11-22 09:30:00.123000"),
    "timestamp-ns": (pa.timestamp("ns"), [NANOS, NANOS + 1], "2023-11-14 22:13:20.123456789"),
    "timestamp-tz": (pa.timestamp("us", "UTC"), [ZONED, ZONED], "2026-11-22 09:30:00+00:00"),
    "duration": (pa.duration("us"), [timedelta(seconds=90), timedelta(0)], "0:01:30"),
    "decimal32": (pa.decimal32(5, 2), [Decimal("1.50"), Decimal("-3.25")], "1.50"),
    "decimal64": (pa.decimal64(12, 2), [Decimal("1.50"), Decimal("-3.25")], "1.50"),
    "decimal128": (pa.decimal128(38, 9), [Decimal("1.5"), Decimal("1e-9")], "1.500000000"),
    "decimal256": (pa.decimal256(50, 1), [Decimal("1.5"), Decimal("9" * 40)], "1.5"),
    "dictionary": (pa.dictionary(pa.int8(), pa.string()), ["x", "y"], "x"),
    "list": (pa.list_(pa.int16()), [[1, None], []], "[1, None]"),
    "large_list": (pa.large_list(pa.string()), [["a"], None], "['a']"),
    "fixed_list": (pa.list_(pa.int8(), 2), [[1, 2], [3, 4]], "[1, 2]"),
    "list_of_view": (pa.list_(pa.string_view()), [["a"], []], "['a']"),
    "struct": (pa.struct({"a": pa.int8(), "b": pa.string()}), [{"a": 1, "b": None}, None], "{'a'"),
    "list_of_struct": (pa.list_(pa.struct({"a": pa.int64()})), [[{"a": 1}], []], "[{'a': 1}]"),
    "map": (pa.map_(pa.string(), pa.int64()), [[("k", 1)], []], "[('k', 1)]"),
    "null": (pa.null(), [None, None], ""),
}
NO_KEYS = ("null", "large_list", "struct")  # their second value is a null, which no key is
# how a key of a type is written, if it is not as Python prints it
NAMED: dict[str, list[str]] = {
    "binary": ["ab", '{"$bytes": "AA=="}'],
    "large_binary": ["ab", '{"$bytes": "AA=="}'],
    "fixed_binary": ["ab", '{"$bytes": "AAA="}'],
    "list": ["[1, null]", "[]"],
    "fixed_list": ["[1, 2]", "[3, 4]"],
    "list_of_view": ['["a"]', "[]"],
    "list_of_struct": ['[{"a": 1}]', "[]"],
    "map": ['{"k": 1}', "{}"],
}
LINES: dict[str, tuple[list[Any], str]] = {
    "text": (["01067", "\u2028"], "01067"),
    "integer": ([7, -(2**63)], "7"),
    "float": ([0.1, 1e300], "0.1"),
    "truth": ([True, False], "True"),
    "texts": ([["a"], []], "['a']"),
    "numbers": ([[1, 2.5], []], "[1, 2.5]"),
    "object": ([{"b": 1, "a": [{}]}, {}], "{'b': 1, 'a': [{}]}"),
}
CELLS: dict[str, tuple[str | None, list[str], list[Any], str]] = {
    "text": (None, ["01067", "NA"], ["01067", "NA"], "01067"),
    "int": ("int", ["7", "-3"], [7, -3], "7"),
    "float": ("float", ["0.1", "1e300"], [0.1, 1e300], "0.1"),
    "bool": ("bool", ["true", "false"], [True, False], "True"),
    "date": (
        "date",
        ["2026-11-22", "0001-01-01"],
        [date(2026, 11, 22), date(1, 1, 1)],
        "2026-11-22",
    ),
    "datetime": (
        "datetime",
        ["2026-11-22T09:30:00Z", "2026-11-22 10:30:00+01:00"],
        [ZONED, ZONED],
        "2026-11-22 09:30:00+00:00",
    ),
    "decimal": ("decimal", ["1.5", "-0.000000001"], [Decimal("1.5"), Decimal("-1e-9")], "1.5"),
}


@pytest.fixture
def nights(emulator: Emulator, tmp_path: Path) -> Nights:
    """Return nights without any yet."""
    return Nights(tmp_path)


def shows(names: list[str]) -> dict[str, Any]:
    """Return a spec that carries columns, and asks about each of them."""
    shown = "".join(f"{name}=<{{{{ row['{name}'] }}}}>" for name in names)
    return {"columns": names, "prompt": "{{ id }}: " + shown, "on_null": "pass"}


def check(nights: Nights, names: list[str], texts: list[str], **changes: Any) -> None:
    """Run two nights: the prompt says what it should, and the second night sends nothing."""
    spec = {**shows(names), **changes}
    assert nights.run_again(**spec) == 2
    (first,) = {text for text in nights.asked() if text.startswith("0: ")}
    for name, text in zip(names, texts, strict=True):
        assert f"{name}=<{text}" in first
    before = nights.content()
    assert nights.run_again(**spec) == 0
    assert nights.content() == before


def test_every_type_of_parquet_is_carried_and_asked_about(nights: Nights) -> None:
    """Values come back as the file has them, whatever encoding its writer chose."""
    columns = {name: pa.array(values, kind) for name, (kind, values, _) in SAMPLES.items()}
    nights.write(id=[0, 1], **columns)
    check(nights, list(SAMPLES), [text for _, _, text in SAMPLES.values()])
    for name, column in columns.items():
        assert nights.column(name) == dict(enumerate(column.to_pylist()))


@pytest.mark.sampled(12)
@pytest.mark.parametrize("name", [name for name in SAMPLES if name not in NO_KEYS])
def test_every_type_of_parquet_is_a_key(nights: Nights, name: str) -> None:
    """A key of any type is found again; two equal ones are refused before anything is sent."""
    kind, values, _ = SAMPLES[name]
    nights.write(id=pa.array(values, kind), v=[1, 2])
    if values[0] == values[1]:
        with pytest.raises(InputError, match=r"rows 1 and 2 of the source have the same key"):
            nights.run_again()
        return
    assert nights.run_again() == 2
    assert nights.run_again() == 0
    stored = pq.read_table(nights.output / "data", columns=["id"])["id"].to_pylist()
    assert sorted(map(repr, stored)) == sorted(map(repr, pa.array(values, kind).to_pylist()))
    check_named(nights, [*NAMED.get(name, map(str, pa.array(values, kind).to_pylist()))])


def check_named(nights: Nights, words: list[str], **changes: Any) -> None:
    """`show` and `forget` find the row of each word, and no other one."""
    spec = nights.spec(**changes)
    for v, word in enumerate(words, 1):
        row = one_row(spec, [word])
        assert row.row["v"] == v
        assert isinstance(row.source, SourceRow), row.source
    for left, word in enumerate(words, 1):
        assert forget(spec, [word], Settings()).rows == 1
        with pytest.raises(SpecError, match=r"has no row with|there are no rows"):
            one_row(spec, [word])
        assert len([*nights.output.glob("data/*")]) == min(len(words) - left, 1)


@pytest.mark.parametrize("name", NO_KEYS)
def test_a_null_is_no_key(nights: Nights, name: str) -> None:
    """Whatever its type: the row is named, and nothing is sent."""
    kind, values, _ = SAMPLES[name]
    nights.write(id=pa.array(values, kind), v=[1, 2])
    with pytest.raises(InputError, match=r"key: 'id' is null in row [12] of the source"):
        nights.run_again()


def test_every_value_of_json_is_carried_and_asked_about(nights: Nights) -> None:
    """Numbers, texts and lists of texts are typed columns; other lists and objects stay JSON."""
    rows = [{name: values[i] for name, (values, _) in LINES.items()} for i in range(2)]
    nights.write_lines([{"id": i, **row} for i, row in enumerate(rows)])
    check(nights, list(LINES), [text for _, text in LINES.values()])
    for name, (values, _) in LINES.items():
        is_json = name in ("numbers", "object")
        assert (nights.objects if is_json else nights.column)(name) == dict(enumerate(values))


@pytest.mark.parametrize("name", LINES)
def test_every_value_of_json_is_a_key(nights: Nights, name: str) -> None:
    """A key is the value that its line has, also if it is an object."""
    values, _ = LINES[name]
    nights.write_lines([{"id": value, "v": i} for i, value in enumerate(values, 1)])
    assert nights.run_again() == 2
    assert nights.run_again() == 0
    rows = pq.read_table(nights.output / "data", columns=["id", "v"]).to_pylist()
    stored = [row["id"] for row in sorted(rows, key=lambda row: row["v"])]
    assert [json.loads(one) if name in ("numbers", "object") else one for one in stored] == values
    check_named(nights, [one if isinstance(one, str) else json.dumps(one) for one in values])


def test_an_object_and_several_columns_are_named(nights: Nights) -> None:
    """An object is JSON, whatever the order of its fields; several columns may be one object."""
    kind = pa.struct({"at": pa.time64("us"), "b": pa.struct({"c": pa.date32()})})
    keys = [{"at": time(9, 30), "b": {"c": date(2026, 1, 2)}}, {"at": None, "b": None}]
    nights.write(id=pa.array(keys, kind), v=[1, 2])
    assert nights.run_again() == 2
    check_named(nights, ['{"b": {"c": "2026-01-02"}, "at": "09:30"}', "{}"])
    nights.output = nights.output.with_name("several")
    nights.write(id=pa.array(keys, kind), **{"a=b": ["x", "=y"]}, v=[1, 2])
    changes = {"key": ["id", "a=b"]}
    assert nights.run_again(**changes) == 2
    first = ['id={"at": "09:30:00", "b": {"c": "2026-01-02"}}', "a=b=x"]
    assert one_row(nights.spec(**changes), first).row["v"] == 1
    words = ['{"a=b": "x", "id": {"at": "09:30", "b": {"c": "2026-01-02"}}}']
    check_named(nights, [*words, '{"id": {}, "a=b": "=y"}'], **changes)


@pytest.mark.parametrize(
    ("kind", "value", "word", "problem"),
    [
        (pa.time64("us"), time(9, 30), "half past nine", "write it as 09:30:00"),
        (pa.time64("us"), time(9, 30), "09:30:00.0000001", "write it as 09:30:00"),
        (pa.time32("ms"), time(9, 30), "09:30:00.0005", "write it as 09:30:00"),
        (pa.duration("us"), timedelta(seconds=1), "1", "write it as PT90S"),
        (pa.timestamp("us", "UTC"), ZONED, "2026-11-22T09:30:00", r"T09:30:00\+00:00"),
        (pa.struct({"a": pa.int8()}), {"a": 1}, "a: 1", "write it as JSON"),
        (pa.struct({"a": pa.int8()}), {"a": 1}, '{"b": 1}', "write it as JSON"),
        (pa.struct({"a": pa.int8()}), {"a": 1}, '{"a": 300}', "write it as JSON"),
        (pa.list_(pa.int8()), [1], "1", "write it as JSON"),
        (pa.list_(pa.int8()), [1], "null", "is null, which no key is"),
        (pa.binary(), b"\0", '{"$bytes": "?"}', "is no value of the column"),
        (pa.int64(), 7, "seven", "is no value of the column"),
    ],
)
def test_a_word_that_is_no_key_is_refused(
    nights: Nights, kind: pa.DataType, value: Any, word: str, problem: str
) -> None:
    """In one sentence that says how a value of the column is written; nothing is forgotten."""
    nights.write(id=pa.array([value], kind), v=[1])
    assert nights.run_again() == 1
    for command in (
        lambda: one_row(nights.spec(), [word]),
        lambda: forget(nights.spec(), [word], Settings()),
    ):
        with pytest.raises(SpecError, match=rf"^--key: .*{problem}"):
            command()
    assert pq.read_table(nights.output / "data").num_rows == 1


def test_every_type_of_cell_is_carried_and_asked_about(nights: Nights) -> None:
    """Cells are texts, or what `types` says; nothing is guessed."""
    nights.source = nights.source.with_suffix(".csv")
    cells = [",".join([str(i), *(cells[i] for _, cells, _, _ in CELLS.values())]) for i in range(2)]
    nights.source.write_text("\n".join([",".join(["id", *CELLS]), *cells]) + "\n")
    types = {name: kind for name, (kind, _, _, _) in CELLS.items() if kind is not None}
    check(nights, list(CELLS), [text for _, _, _, text in CELLS.values()], types=types)
    for name, (_, _, values, _) in CELLS.items():
        assert nights.column(name) == {str(i): value for i, value in enumerate(values)}


@pytest.mark.parametrize("name", CELLS)
def test_every_type_of_cell_is_a_key(nights: Nights, name: str) -> None:
    """A key is what `types` says of its cell, and is found again."""
    kind, cells, values, _ = CELLS[name]
    nights.source = nights.source.with_suffix(".csv")
    nights.source.write_text("\n".join(["id,text,v", *(f"{cell},t,1" for cell in cells)]) + "\n")
    types = {} if kind is None else {"types": {"id": kind}}
    if values[0] == values[1]:
        with pytest.raises(InputError, match=r"rows 1 and 2 of the source have the same key"):
            nights.run_again(**types)
        return
    assert nights.run_again(**types) == 2
    assert nights.run_again(**types) == 0
    stored = pq.read_table(nights.output / "data", columns=["id"])["id"].to_pylist()
    assert sorted(map(repr, stored)) == sorted(map(repr, _as_stored(values)))


def _as_stored(values: list[Any]) -> list[Any]:
    """Return decimals with the nine digits that `types: decimal` has."""
    return [v.quantize(Decimal("1e-9")) if isinstance(v, Decimal) else v for v in values]
