"""Tables that are queries of a database: Postgres and SQLite, by a URL that nothing gives away."""

from __future__ import annotations

import json
import sqlite3
import traceback
from contextlib import closing
from datetime import UTC, date, datetime, time
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batchata_tasks.common.errors import InputError, SourceError
from batchata_tasks.common.settings import Settings
from batchata_tasks.reports.plan import preview
from batchata_tasks.sources.database import DatabaseQuery
from tests.support.nights import Nights
from tests.support.rows import python_rows

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from batchata_tasks.emulator import Emulator
    from tests.support.postgres import Server

URL = "SHOP_DB"
SECRET = "s3cr3t/pass word"
MOMENT = datetime(2026, 11, 22, 9, 30, 0, 123000)  # noqa: DTZ001
# of each type of Postgres that is kept: an expression, what a prompt says, its value, its type
KEPT: dict[str, tuple[str, str, Any, pa.DataType | None]] = {
    "smallint": ("7::smallint", "7", 7, pa.int64()),
    "bigint": ("9223372036854775807::bigint", str(2**63 - 1), 2**63 - 1, pa.int64()),
    "numeric": ("1.50::numeric(10, 2)", "1.50", Decimal("1.50"), pa.decimal128(10, 2)),
    "digits": ("1.500::numeric", "1.500", Decimal("1.500"), pa.decimal128(4, 3)),
    "long": (f"{'9' * 50}::numeric", "9" * 50, Decimal("9" * 50), pa.decimal256(50, 0)),
    "real": ("0.5::real", "0.5", 0.5, pa.float64()),
    "double": ("0.1::double precision", "0.1", 0.1, pa.float64()),
    "boolean": ("true", "True", True, pa.bool_()),
    "text": ("'01067'::text", "01067", "01067", pa.string()),
    "bytea": (r"'\x6162'::bytea", "b'ab'", b"ab", pa.binary()),
    "date": ("date '2026-11-22'", "2026-11-22", date(2026, 11, 22), pa.date32()),
    "time": ("time '09:30:00'", "09:30:00", time(9, 30), pa.time64("us")),
    "timestamp": (
        "timestamp '2026-11-22 09:30:00.123'",
        "2026-11-22 09:30:00.123000",
        MOMENT,
        pa.timestamp("us"),
    ),
    "timestamptz": (
        "timestamptz '2026-11-22 10:30:00+01'",
        "2026-11-22 09:30:00+00:00",
        datetime(2026, 11, 22, 9, 30, tzinfo=UTC),
        pa.timestamp("us", "UTC"),
    ),
    "uuid": (
        "'b0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'::uuid",
        "b0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11",
        "b0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11",
        pa.string(),
    ),
    "json": ("""'{"b": [1.0, {}]}'::json""", "{'b': [1.0, {}]}", '{"b":[1.0,{}]}', pa.string()),
    "jsonb": ("""'[{"a": 1}]'::jsonb""", "[{'a': 1}]", '[{"a":1}]', pa.string()),
    "texts": ("ARRAY['a', NULL]", "['a', None]", ["a", None], pa.list_(pa.string())),
    "numbers": ("ARRAY[[1, 2], [3, 4]]", "[[1, 2], [3, 4]]", "[[1,2],[3,4]]", pa.string()),
    "null": ("NULL", "", None, None),
}
REFUSED = {
    "interval": "interval '1 month'",
    "intervals": "ARRAY[interval '1 month']",
    "timetz": "timetz '09:30:00+01'",
    "inet": "inet '10.0.0.1'",
    "range": "int4range(1, 3)",
    "nan": "'NaN'::numeric",
    "long JSON": "'[123456789012345678901234567890]'::json",
}


class Queries(Nights):
    """Nights whose source is a query of a database."""

    query = ""

    def spec(self, **changes: Any) -> Any:
        return super().spec(**{"source": {"url_env": URL, "query": self.query}, **changes})


@pytest.fixture
def database(postgres: Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Return the name of a database to which the variable leads."""
    name = postgres.create()
    monkeypatch.setenv(URL, postgres.url(name))
    yield name
    postgres.drop(name)


@pytest.fixture
def nights(emulator: Emulator, tmp_path: Path) -> Queries:
    """Return nights without any yet."""
    return Queries(tmp_path)


@pytest.fixture
def sqlite(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a SQLite file to which the variable leads."""
    path = tmp_path / "shop.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(
            "CREATE TABLE t (id INTEGER, text TEXT, v REAL);"
            "INSERT INTO t VALUES (1, 'one', 1.5), (2, 'two', NULL), (3, 'three', 2);"
        )
    monkeypatch.setenv(URL, f"sqlite:///{path}")
    return path


def refusal(query: str) -> str:
    with pytest.raises(SourceError) as caught:
        DatabaseQuery(URL, query).names()
    text = str(caught.value)
    assert text.startswith("source.")
    assert "\n" not in text
    return text


def test_every_type_of_postgres_is_carried_and_asked_about(nights: Queries, database: str) -> None:
    """Values come back as the database has them, and the next night sends nothing."""
    columns = ", ".join(f'{expression} AS "{name}"' for name, (expression, *_) in KEPT.items())
    nights.query = f"SELECT n AS id, {columns} FROM generate_series(0, 1) n"
    prompt = "{{ id }}: " + "".join(f"{name}=<{{{{ row['{name}'] }}}}>" for name in KEPT)
    spec = {"columns": list(KEPT), "prompt": prompt, "on_null": "pass"}
    assert nights.run_again(**spec) == 2
    (first,) = {text for text in nights.asked() if text.startswith("0: ")}
    (path,) = nights.output.glob("data/*")
    for name, (_, text, value, kind) in KEPT.items():
        assert f"{name}=<{text}>" in first
        assert nights.column(name)[0] == value
        assert kind is None or pq.read_schema(path).field(name).type.equals(kind)
    before = nights.content()
    assert nights.run_again(**spec) == 0
    assert nights.content() == before


@pytest.mark.parametrize("name", REFUSED)
def test_a_value_without_a_column_is_refused(nights: Queries, database: str, name: str) -> None:
    """With the cast that helps; if the spec does not use the column, it may hold anything."""
    nights.query = f"SELECT 1 AS id, 'x' AS text, {REFUSED[name]} AS v"
    with pytest.raises(InputError, match=r"'v' .*cast"):
        nights.run_again()
    assert not nights.output.exists()
    assert nights.run_again(columns=[]) == 1


def test_nights_of_a_table_that_is_written_to(
    nights: Queries, database: str, postgres: Server
) -> None:
    """Only what changed is sent; a plan sees one state, whatever others write meanwhile."""
    postgres.run("CREATE TABLE t (id int, text text, v numeric)", database=database)
    postgres.run(
        "INSERT INTO t SELECT n, 'row ' || n, n FROM generate_series(1, 3) n", database=database
    )
    nights.query = "SELECT id, text, v FROM t ORDER BY random(); -- all"
    assert nights.run_again() == 3
    postgres.run("UPDATE t SET text = 'new' WHERE id = 2", database=database)
    assert nights.run_again() == 1
    source = DatabaseQuery(URL, nights.query)
    first = python_rows(source.batches(["id", "text"]))
    postgres.run("UPDATE t SET text = 'newer'", database=database)
    postgres.run("INSERT INTO t VALUES (4, 'four', 4)", database=database)
    assert python_rows(source.batches(["id", "text"])) == first


def test_many_rows_stream(database: str) -> None:
    """Rows come by a cursor on the server, in order, in blocks; types join over all of them."""
    source = DatabaseQuery(
        URL,
        "SELECT n AS id, CASE WHEN n > 20000 THEN n::numeric / 8 END AS late, "
        "CASE WHEN n % 2 = 0 THEN to_jsonb(ARRAY[n]) END AS list FROM generate_series(1, 30000) n",
    )
    assert source.schema(["late"]).field("late").type == pa.decimal128(20, 16)
    blocks = list(source.batches(["id", "late", "list"]))
    assert len(blocks) > 3
    ids = [value for block in blocks for value in block.rows.column("id").to_pylist()]
    assert ids == list(range(1, 30_001))


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM t",
        "WITH gone AS (DELETE FROM t RETURNING id) SELECT * FROM gone",
        "SELECT 1 AS id; DELETE FROM t",
        "SELECT 1 AS id; COMMIT; DELETE FROM t; BEGIN",
        "SELECT * FROM t FOR UPDATE",
        "SELECT nextval('s')",
        "COPY t TO PROGRAM 'true'",
        "/* SELECT */ DROP TABLE t",
    ],
)
def test_a_query_only_reads(database: str, postgres: Server, statement: str) -> None:
    """A statement that writes, or that is more than one, is refused; nothing is written."""
    postgres.run("CREATE TABLE t (id int)", database=database)
    postgres.run("CREATE SEQUENCE s", database=database)
    postgres.run("INSERT INTO t VALUES (1)", database=database)
    assert refusal(statement).startswith("source.query: ")
    assert postgres.run("SELECT count(*) FROM t", database=database) == [(1,)]
    assert postgres.run("SELECT is_called FROM s", database=database) == [(False,)]


@pytest.mark.parametrize(
    ("query", "says"),
    [
        ("SELECT nope FROM nothing", 'postgresql says: relation "nothing" does not exist'),
        ("SELECT 1/0 AS x", "division by zero"),
        ("SELECT 1 AS a, 2 AS a", "it has two columns named 'a'; rename one"),
        ("SELECT '%s :name' AS text, 5 % 3 AS n, ':x'::text AS x", ""),
    ],
)
def test_queries_are_sent_as_they_are(database: str, query: str, says: str) -> None:
    """What the database says is told; percent signs and colons mean nothing to us."""
    if says:
        assert says in refusal(query)
    else:
        assert len(DatabaseQuery(URL, query).names()) == 3


def test_no_secret_is_told(
    nights: Queries,
    database: str,
    postgres: Server,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A password is in no spec, no ledger, no file, no error, no cause of one, and no repr."""
    role = f"role_{database}"
    postgres.run(f"CREATE ROLE {role} LOGIN PASSWORD '{SECRET}'")
    quoted = "s3cr3t%2Fpass%20word"
    url = f"postgresql://{role}:{quoted}@127.0.0.1:{postgres.port}/{database}"
    monkeypatch.setenv(URL, url)
    nights.query = "SELECT 1 AS id, 'x' AS text, 2 AS v"
    assert nights.run_again() == 1
    told = [repr(nights.spec()), str(preview(nights.spec(), Settings()).lines()), caplog.text]
    wrong = [
        url.replace(database, "no_such_database"),
        url.replace("127.0.0.1", "host.invalid"),
        url.replace(role, "nobody"),
        url.replace("postgresql", "nosuchkind"),
        url.replace(f":{postgres.port}", ":port"),
        f"{url}?nosuchoption={quoted}",
        f"{url}?sslmode=nope&sslpassword={quoted}",
        quoted,
    ]
    for one in wrong:
        monkeypatch.setenv(URL, one)
        with pytest.raises(InputError) as caught:
            nights.run_again()
        assert URL in str(caught.value)
        told += [repr(caught.value), "".join(traceback.format_exception(caught.value))]
        chain: BaseException | None = caught.value
        while chain is not None:
            told.append(repr(chain) + str(chain))
            chain = chain.__cause__ or chain.__context__
    files = [*nights.output.rglob("*"), *nights.output.parent.glob("*.db*")]
    told += [path.read_bytes().decode(errors="replace") for path in files if path.is_file()]
    postgres.run(f"DROP ROLE {role}")
    assert [text for text in told if SECRET in text or quoted in text or "s3cr3t" in text] == []


def test_sqlite(nights: Queries, sqlite: Path) -> None:
    """Any database that SQLAlchemy knows is read alike; this one has types by value."""
    nights.query = "SELECT * FROM t"
    assert nights.run_again() == 3
    assert nights.column("v") == {1: 1.5, 2: None, 3: 2.0}
    assert "attempt to write a readonly database" in refusal("WITH x AS (SELECT 1) DELETE FROM t")
    mixed = DatabaseQuery(URL, "SELECT 1 AS id, 'a' AS v UNION ALL SELECT 2, 5")
    with pytest.raises(SourceError, match=r"the query row 2: the column 'v' .* cast the column"):
        mixed.schema(["v"])
    assert mixed.schema(["id"]).names == ["id"]


def test_a_query_without_rows(sqlite: Path) -> None:
    """Its columns are known all the same."""
    source = DatabaseQuery(URL, "SELECT id, text FROM t WHERE id > 5")
    assert source.names() == ["id", "text"]
    assert source.schema(["id"]).field("id").type == pa.null()
    assert list(source.batches(["id"])) == []


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (None, f"the variable {URL} is not set; set it to the URL of the database, such as"),
        ("", f"the variable {URL} is not set"),
        ("not a url", f"what {URL} has is not the URL of a database"),
        ("sqlite:////nowhere/x.db", "there is no file of the database that"),
        ("nosuch://host/name", "needs a dialect of SQLAlchemy for nosuch"),
        (
            "mysql+pymysql://u:p@host/name",
            "needs the driver for mysql; run `pip install 'pymysql'`",
        ),
        ("postgresql+psycopg://u@127.0.0.1:1/x", "postgresql says: connection failed"),
    ],
)
def test_a_wrong_variable(monkeypatch: pytest.MonkeyPatch, value: str | None, says: str) -> None:
    """One sentence names the variable, and what to do."""
    monkeypatch.delenv(URL, raising=False)
    if value is not None:
        monkeypatch.setenv(URL, value)
    assert says in refusal("SELECT 1 AS id")


def test_the_ledger_keeps_the_name_of_the_variable(nights: Queries) -> None:
    """And not what it has; a plan shows both shortly."""
    nights.query = "SELECT 1 AS id"
    stored = json.loads(json.dumps(nights.spec().model_dump(mode="json")))
    assert stored["source"] == {"url_env": URL, "query": "SELECT 1 AS id"}
    assert nights.spec(**stored).origin == f"{URL}: SELECT 1 AS id"
