"""Queries over files: what they read, what they may not, and that their rows are read once."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import pytest

from batchata_tasks.common.errors import SourceError
from batchata_tasks.sources.forms import SqlSource
from batchata_tasks.sources.opening import files_of, open_source
from batchata_tasks.sources.source import BATCH_ROWS, ReadOptions
from batchata_tasks.sources.sql import SqlQuery
from tests.support.rows import python_rows

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in a folder with some files."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.csv").write_text("id,x\n1,one\n2,two\n2,zwei\n")
    (tmp_path / "days").mkdir()
    (tmp_path / "days/1.csv").write_text("id;y\n1;10\n")
    (tmp_path / "days/2.csv").write_text("id;y\n2;20\n")
    (tmp_path / "other").mkdir()
    (tmp_path / "other/secret.csv").write_text("id\n9\n")
    return tmp_path


def rows(query: str) -> list[dict[str, Any]]:
    source = open_source(SqlSource(sql=query))
    blocks = list(source.batches(source.names()))
    assert all(0 < block.rows.num_rows <= BATCH_ROWS for block in blocks)
    return python_rows(blocks)


def refusal(query: str) -> str:
    with pytest.raises(SourceError) as caught:
        rows(query)
    text = str(caught.value)
    assert text.startswith(("source", "types", "csv"))
    assert text.endswith((".", ").", ")."))
    assert "\n" not in text
    return text


def test_files_are_joined_and_renamed() -> None:
    """A query joins files, keeps one of two rows, and names columns anew, in its own order."""
    query = """
        SELECT a.id AS key, any_value(x ORDER BY x) AS x, sum(y) AS total -- a comment
        FROM 'a.csv' a JOIN read_csv('days/*.csv', delim = ';') d USING (id)
        GROUP BY a.id ORDER BY key DESC;
    """
    assert rows(query) == [
        {"key": 2, "x": "two", "total": 40},
        {"key": 1, "x": "one", "total": 10},
    ]


@pytest.mark.parametrize(
    ("query", "files"),
    [
        ("FROM 'a.csv'", ["a.csv"]),
        ("WITH t AS (FROM 'a.csv') SELECT * FROM t", ["a.csv"]),
        ("FROM read_csv(['days/1.csv', 'a.csv'], delim = ';')", ["days/1.csv", "a.csv"]),
        ("SELECT (SELECT count(*) FROM 'days/*.csv') AS n", ["days/*.csv"]),
        ("FROM 'a.csv' UNION ALL FROM 'days/1.csv'", ["a.csv", "days/1.csv"]),
        ("SELECT unnest(['x.csv']) AS name", []),
        ("FROM range(3)", []),
    ],
)
def test_the_files_of_a_query_are_known(query: str, files: list[str]) -> None:
    """Wherever it names them: so source and output are kept apart, and no other file is read."""
    assert files_of(SqlSource(sql=query)) == files


@pytest.mark.parametrize(
    "query",
    [
        "FROM read_csv('other' || '/secret.csv')",
        "SELECT * FROM query('FROM ''other/secret.csv''')",
        "SELECT content FROM read_text(concat('other/', 'secret.csv'))",
        "FROM glob('/' || '*')",
    ],
)
def test_a_query_reads_no_file_that_it_does_not_name(query: str) -> None:
    """What it makes up while it runs is refused, with the remedy."""
    assert "a query reads just the files that it names as texts" in refusal(query)


@pytest.mark.parametrize(
    ("query", "says"),
    [
        ("SELEC 1", "syntax error"),
        ("SELECT 1; SELECT 2", "there are 2 statements; write one SELECT"),
        ("COPY (SELECT 1) TO 'x.csv'", "is no SELECT; write one SELECT"),
        ("ATTACH 'x.db'", "is no SELECT"),
        ("INSTALL httpfs", "is no SELECT"),
        ("SET threads = 1", "is no SELECT"),
        ("CREATE TABLE t AS SELECT 1", "is no SELECT"),
        ("SELECT * FROM nothing", "Table with name nothing does not exist"),
        ("SELECT * FROM 'nothing.csv'", "source: there is no file nothing.csv"),
        ("SELECT nope FROM 'a.csv'", "nope"),
        ("SELECT * FROM 's3://bucket/x.csv'", "s3://bucket/x.csv is no file of this machine"),
        ("SELECT * FROM read_csv('https://a.b/x.csv')", "is no file of this machine"),
        ("SELECT * FROM sqlite_scan('x.db', 't')", "sqlite_scan"),
        ("SELECT 1 AS a, 2 AS a", "it has two columns named 'a'; rename one"),
        ("SELECT CAST(x AS INTEGER) AS x FROM 'a.csv'", "Could not convert string"),
    ],
)
def test_what_is_refused(query: str, says: str) -> None:
    """Each in one sentence, and nothing is written."""
    assert says in refusal(query)


def test_an_encoding_that_needs_an_extension_is_refused_with_the_ways_there_are() -> None:
    """DuckDB's own words tell to load the extension, which a query here may not."""
    told = refusal("FROM read_csv('a.csv', encoding = 'cp1252')")
    assert "cp1252" in told
    assert "write the file as UTF-8, or make it the source itself, with `csv: {encoding}`" in told
    assert "INSTALL" not in told


def test_python_objects_are_no_tables() -> None:
    """A query does not see what the program has under the name of a table."""
    frame = [1]
    assert "Table with name frame does not exist" in refusal("SELECT * FROM frame")
    assert frame == [1]


def test_each_reading_has_the_same_rows() -> None:
    """A query that gives other rows whenever it runs is run once: no reading mixes two of them."""
    source = SqlQuery("SELECT range AS id, random() AS x FROM range(20000)")
    first = python_rows(source.batches(["id", "x"]))
    assert len(first) == 20_000
    assert python_rows(source.batches(["x"])) == [{"x": row["x"]} for row in first]
    assert python_rows(source.batches(["id", "x"])) == first


def test_a_query_that_nobody_reads_does_not_run() -> None:
    """Names and types are known before: a run that is carried on does not ask for the rows."""
    source = SqlQuery("SELECT error('it ran') AS x, 1 AS id")
    assert source.names() == ["x", "id"]
    assert str(source.schema(["id"]).field("id").type) == "int32"
    with pytest.raises(SourceError, match="it ran"):
        list(source.batches(["id"]))


def test_no_rows_are_a_table_without_rows() -> None:
    """Its columns have their types all the same."""
    source = SqlQuery("SELECT * FROM 'a.csv' WHERE false")
    assert source.schema(["id", "x"]).names == ["id", "x"]
    assert list(source.batches(["id", "x"])) == []


def test_columns_that_are_not_used_may_be_of_any_type() -> None:
    """Only a column that the spec names has to be of a type that a dataset has."""
    source = SqlQuery("SELECT 1 AS id, INTERVAL '1 month' AS span")
    assert python_rows(source.batches(["id"])) == [{"id": 1}]
    with pytest.raises(SourceError, match="'span' is of DuckDB's type INTERVAL"):
        source.schema(["span"])


def test_json_within_lists_is_told() -> None:
    """DuckDB hands it on as texts: the number 1 would be the text "1". As a whole it is JSON."""
    lists = """SELECT ['1'::JSON, '"x"'::JSON] AS v, {'a': '1'::JSON} AS o, 1 AS id"""
    source = SqlQuery(lists)
    assert python_rows(source.batches(["id"])) == [{"id": 1}]
    for name in ("v", "o"):
        told = rf"'{name}' has JSON within lists or structs, .* CAST\(\"{name}\" AS JSON\)\.$"
        with pytest.raises(SourceError, match=told):
            source.schema([name])
    cast = f"SELECT CAST(v AS JSON) AS v, CAST(o AS JSON) AS o FROM ({lists})"
    assert python_rows(SqlQuery(cast).batches(["v", "o"])) == [
        {"v": [1, "x"], "o": {"a": 1}},
    ]


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (ReadOptions({"id": "int"}), "types: a query has no such option; cast in the query"),
    ],
)
def test_options_of_csv_files_are_refused(given: ReadOptions, says: str) -> None:
    """A query casts, and reads dialects, itself."""
    with pytest.raises(SourceError, match=says):
        open_source(SqlSource(sql="FROM 'a.csv'"), given)


def test_without_duckdb_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """The sentence has the command that installs it."""
    monkeypatch.setitem(sys.modules, "duckdb", None)
    assert "run `pip install 'batchata-flows[sql]'`" in refusal("FROM 'a.csv'")


def test_nothing_is_left_behind(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows that are kept aside have no name: whatever happens, no file of them stays."""
    aside = folder / "aside"
    aside.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(aside))
    source = SqlQuery("FROM range(10000)")
    blocks = source.batches(["range"])
    next(blocks)
    assert list(aside.iterdir()) == []
