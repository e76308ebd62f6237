"""Tables that are queries over files: every type of DuckDB, nights, limits of what is read."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime, time
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batchata_tasks.common.errors import InputError
from batchata_tasks.common.settings import Settings
from batchata_tasks.reports.plan import preview
from tests.support.nights import Nights

if TYPE_CHECKING:
    from pathlib import Path

    from batchata_tasks.emulator import Emulator

MOMENT = datetime(2026, 11, 22, 9, 30, 0, 123000)  # noqa: DTZ001
NANOS = 1_700_000_000_123_456_789
# of each type that is kept: an expression, what a prompt says of it, its value and its type
KEPT: dict[str, tuple[str, str, Any, pa.DataType]] = {
    "tinyint": ("7::TINYINT", "7", 7, pa.int8()),
    "ubigint": ("18446744073709551615::UBIGINT", "18446744073709551615", 2**64 - 1, pa.uint64()),
    "bigint": ("-7::BIGINT", "-7", -7, pa.int64()),
    "hugeint": (
        "12345678901234567890::HUGEINT",
        "12345678901234567890",
        12345678901234567890,
        None,
    ),
    "decimal": ("1.50::DECIMAL(5, 2)", "1.50", Decimal("1.50"), pa.decimal128(5, 2)),
    "float": ("0.5::FLOAT", "0.5", 0.5, pa.float32()),
    "double": ("0.1::DOUBLE", "0.1", 0.1, pa.float64()),
    "boolean": ("true", "True", True, pa.bool_()),
    "varchar": ("'01067'", "01067", "01067", pa.string()),
    "blob": ("'ab'::BLOB", "b'ab'", b"ab", pa.binary()),
    "date": ("DATE '2026-11-22'", "2026-11-22", date(2026, 11, 22), pa.date32()),
    "time": ("TIME '09:30:00'", "09:30:00", time(9, 30), pa.time64("us")),
    "timestamp": (
        "TIMESTAMP '2026-11-22 09:30:00.123'",
        "2026-11-22 09:30:00.123000",
        MOMENT,
        pa.timestamp("us"),
    ),
    "timestamp_s": (
        "TIMESTAMP_S '2026-11-22 09:30:00'",
        "2026-11-22 09:30:00",
        MOMENT.replace(microsecond=0),
        pa.timestamp("ms"),  # Parquet has no seconds
    ),
    "timestamp_ms": (
        "TIMESTAMP_MS '2026-11-22 09:30:00.123'",
        "2026-11-22 09:30:00.123000",
        MOMENT,
        pa.timestamp("ms"),
    ),
    "timestamp_ns": (
        f"make_timestamp_ns({NANOS})",
        "2023-11-14 22:13:20.123456789",
        NANOS,
        pa.timestamp("ns"),
    ),
    "timestamptz": (
        "TIMESTAMPTZ '2026-11-22 10:30:00+01'",
        "2026-11-22 09:30:00+00:00",
        datetime(2026, 11, 22, 9, 30, tzinfo=UTC),
        pa.timestamp("us", "UTC"),
    ),
    "enum": ("'a'::ENUM('a', 'interval')", "a", "a", pa.string()),
    "uuid": (
        "UUID 'b0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'",
        "b0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11",
        "b0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11",
        pa.string(),
    ),
    "list": ("[1, NULL]", "[1, None]", [1, None], pa.list_(pa.int32())),
    "array": ("[1, 2]::INTEGER[2]", "[1, 2]", [1, 2], pa.list_(pa.int32())),
    "struct": ("{'a': 1, 'bit': 'x'}", "{'a': 1, 'bit': 'x'}", {"a": 1, "bit": "x"}, None),
    "map": ("MAP {'k': 1}", "[('k', 1)]", [("k", 1)], pa.map_(pa.string(), pa.int32())),
    "json": ("""'{"b": [1.0, {}]}'::JSON""", "{'b': [1.0, {}]}", '{"b":[1.0,{}]}', pa.string()),
    "null": ("NULL", "", None, None),
}
REFUSED = {
    "uhugeint": "1::UHUGEINT",
    "time with time zone": "TIMETZ '09:30:00+01'",
    "interval": "INTERVAL '1 month'",
    "bit": "'101'::BIT",
    "bignum": "12::BIGNUM",
    "union": "union_value(num := 2)",
    "variant": "'{}'::VARIANT",
}
NO_VALUE = {
    "infinity": ("'infinity'::DATE", "date"),
    "-infinity": ("'-infinity'::TIMESTAMP", "timestamp"),
    "39 digits": (f"{2**127 - 1}::HUGEINT", "decimal128"),
    "39 digits in a list": (f"[{2**127 - 1}::HUGEINT]", "decimal128"),
    "JSON that no float holds": ("'[123456789012345678901234567890]'::JSON", "JSON"),
}


class Queries(Nights):
    """Nights whose source is a query."""

    query = ""

    def spec(self, **changes: Any) -> Any:
        return super().spec(**{"source": {"sql": self.query}, **changes})

    def type_at_rest(self, name: str) -> pa.DataType:
        (path,) = self.output.glob("data/*")
        return pq.read_schema(path).field(name).type


@pytest.fixture
def nights(emulator: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Queries:
    """Return nights without any yet, in a folder of their own."""
    monkeypatch.chdir(tmp_path)
    return Queries(tmp_path)


def test_every_type_of_duckdb_is_carried_and_asked_about(nights: Queries) -> None:
    """Values come back as the query has them, and the next night sends nothing."""
    columns = ", ".join(f'{expression} AS "{name}"' for name, (expression, *_) in KEPT.items())
    nights.query = f"SELECT range AS id, {columns} FROM range(2)"
    prompt = "{{ id }}: " + "".join(f"{name}=<{{{{ row['{name}'] }}}}>" for name in KEPT)
    spec = {"columns": list(KEPT), "prompt": prompt, "on_null": "pass"}
    assert nights.run_again(**spec) == 2
    (first,) = {text for text in nights.asked() if text.startswith("0: ")}
    for name, (_, text, value, kind) in KEPT.items():
        assert f"{name}=<{text}>" in first
        landed = nights.column(name)[0]
        assert (landed.value if name == "timestamp_ns" else landed) == value
        assert kind is None or nights.type_at_rest(name).equals(kind)
    before = nights.content()
    assert nights.run_again(**spec) == 0
    assert nights.content() == before


@pytest.mark.sampled(8)
@pytest.mark.parametrize("name", [name for name in KEPT if name != "null"])
def test_every_type_of_duckdb_is_a_key(nights: Queries, name: str) -> None:
    """A key of any type is found again the next night."""
    nights.query = f"SELECT {KEPT[name][0]} AS id, 'x' AS text, 1 AS v"
    assert nights.run_again() == 1
    assert nights.run_again() == 0


@pytest.mark.parametrize("name", REFUSED)
def test_a_type_without_a_column_is_refused(nights: Queries, name: str) -> None:
    """Before anything is sent, with the cast that helps; within lists and objects as well."""
    for expression in (REFUSED[name], f"[{{'x': {REFUSED[name]}}}]"):
        nights.query = f"SELECT 1 AS id, 'x' AS text, {expression} AS v"
        with pytest.raises(InputError, match=rf"'v' is of DuckDB's type {name.upper()}, .* CAST"):
            nights.run_again()
    assert not nights.output.exists()


@pytest.mark.parametrize("name", NO_VALUE)
def test_a_value_without_a_column_is_refused(nights: Queries, name: str) -> None:
    """The row is named; nothing is rounded, cut, or taken for another value."""
    expression, kind = NO_VALUE[name]
    nights.query = f"SELECT range AS id, 'x' AS text, {expression} AS v FROM range(3)"
    with pytest.raises(InputError, match=rf"the query row 1: the column 'v' is .*{kind}.*cast it"):
        nights.run_again()


def test_nights_of_a_query(nights: Queries, tmp_path: Path) -> None:
    """Only what changed in the files is sent; the form of the source changes no row's identity."""
    (tmp_path / "a.csv").write_text("id,text\n1,one\n2,two\n")
    (tmp_path / "b.csv").write_text("id,v\n1,x\n2,y\n")
    nights.query = "SELECT a.id, text, v FROM 'a.csv' a JOIN 'b.csv' b USING (id) ORDER BY random()"
    assert nights.run_again() == 2
    (tmp_path / "a.csv").write_text("id,text\n1,one\n2,two\n3,three\n")
    (tmp_path / "b.csv").write_text("id,v\n1,x\n2,y\n3,z\n")
    assert nights.run_again() == 1
    pq.write_table(
        pa.table({"id": [1, 2, 3], "text": ["one", "two", "three"], "v": ["x", "y", "z"]}),
        nights.source,
    )
    assert nights.run_again(source=str(nights.source)) == 0


def test_a_query_is_shown_in_one_line(nights: Queries) -> None:
    """A plan names it shortly, whatever it looks like."""
    nights.query = (
        "SELECT range AS id,\n  'x' AS text, 1 AS v,\n  2 AS another_column FROM range(2)"
    )
    shown = dict(preview(nights.spec(), Settings()).lines())["Spec"]
    assert shown.startswith(
        "nights: SELECT range AS id, 'x' AS text, 1 AS v, 2 AS another_column… → "
    )


def test_a_query_may_not_read_what_its_runs_write(nights: Queries) -> None:
    """Source and output are kept apart for files that a query names, too."""
    nights.query = "SELECT 1 AS id, 'x' AS text, 2 AS v"
    nights.run_again()
    for files in (f"{nights.output}/data/*.parquet", f"{nights.output.parent}/**/*.parquet"):
        nights.query = f"SELECT id, v, 'y' AS text FROM '{files}'"
        with pytest.raises(InputError, match="each run would read what the last one wrote"):
            nights.run_again()


def test_a_double_key_of_a_query_is_named(nights: Queries) -> None:
    """The rows that the sentence names are those that were planned."""
    nights.query = "SELECT floor(random() * 0) AS id, 'x' AS text, 1 AS v FROM range(2)"
    with pytest.raises(
        InputError, match=r"rows 1 and 2 of the source have the same key \(id=0.0\)"
    ):
        nights.run_again()


def test_the_ledger_keeps_the_query(nights: Queries) -> None:
    """A run that died under a query is restored from the ledger's copy of its spec."""
    nights.query = "SELECT 1 AS id, 'x' AS text, 2 AS v"
    spec = nights.spec()
    stored = json.loads(json.dumps(spec.model_dump(mode="json")))
    assert stored["source"] == {"sql": nights.query}
    assert nights.spec(**stored) == spec
