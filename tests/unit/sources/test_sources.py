"""Tables as streams: types, order, block sizes, and a sentence for each broken one."""

from __future__ import annotations

import gzip
import io
import json
import logging
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fsspec import AbstractFileSystem
from fsspec.implementations.local import LocalFileSystem
from hypothesis import given, settings
from hypothesis import strategies as st

from batchata_tasks.common.errors import SourceError
from batchata_tasks.sources.csv_format import CsvFormat
from batchata_tasks.sources.opening import open_source
from batchata_tasks.sources.source import BATCH_ROWS, ReadOptions
from tests.support.by_day import examples
from tests.support.rows import python_rows

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

MANY = 2 * BATCH_ROWS + 5


def rows(
    path: object, types: Mapping[str, str] | None = None, columns: list[str] | None = None
) -> list[dict[str, Any]]:
    source = open_source(str(path), ReadOptions(types or {}))
    blocks = list(source.batches(columns or source.names()))
    assert all(0 < block.rows.num_rows <= BATCH_ROWS for block in blocks)
    return python_rows(blocks)


def refusal(path: object, types: Mapping[str, str] | None = None) -> str:
    with pytest.raises(SourceError) as caught:
        rows(path, types)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def write(path: Path, content: str | bytes) -> Path:
    raw = content.encode() if isinstance(content, str) else content
    path.write_bytes(gzip.compress(raw) if path.suffix == ".gz" else raw)
    return path


# --- CSV ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["t.csv", "t.csv.gz", "T.CSV"])
def test_csv_cells_are_strings(tmp_path: Path, name: str) -> None:
    """Nothing is guessed: 01 stays 01, NA is no null, an empty cell is an empty text."""
    path = write(tmp_path / name, "id,a,b\n01,NA,\n1.0,true,null\n,nan, x \n")
    assert rows(path) == [
        {"id": "01", "a": "NA", "b": ""},
        {"id": "1.0", "a": "true", "b": "null"},
        {"id": "", "a": "nan", "b": " x "},
    ]


@pytest.mark.parametrize("name", ["t.csv", "t.csv.gz"])
@pytest.mark.parametrize("columns", [["id"], ["id", "a"]])
@pytest.mark.parametrize("rest", ["x\n3,y\n4,z\n", "x\r\n3,y", "\n" * 2_000_000 + "3,y\n"])
def test_a_quote_that_is_never_closed_loses_no_row(
    tmp_path: Path, name: str, columns: list[str], rest: str
) -> None:
    """Arrow takes the rest of the file as one cell, in which the rows after it would be lost."""
    path = write(tmp_path / name, f'id,a\n1,"b\n""c"\n2,"{rest}')
    with pytest.raises(SourceError, match=r"row 2: .* a quote that is never closed"):
        rows(path, columns=columns)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-be", "cp1252"])
@pytest.mark.parametrize("end", ["", "\n", "\r\n", "\n\n"])
def test_a_last_cell_of_several_lines_is_read(tmp_path: Path, encoding: str, end: str) -> None:
    """It is closed, whatever comes after it."""
    text = f'id,a\n1,"ä\n""b"{end}'
    path = write(tmp_path / "t.csv", text.encode(encoding))
    form = CsvFormat(encoding=encoding.removesuffix("-sig"))
    (block,) = open_source(str(path), ReadOptions({}, csv=form)).batches(["a"])
    assert block.rows.column(0)[0].as_py().rstrip() == 'ä\n"b'


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_quoted_cells(tmp_path: Path, end: str) -> None:
    """Separators, quotes and line ends inside of quotes belong to the cell."""
    path = write(tmp_path / "t.csv", f'id,a{end}1,"x, ""y""{end}z"{end}2,{end}')
    assert rows(path) == [{"id": "1", "a": f'x, "y"{end}z'}, {"id": "2", "a": ""}]


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("columns", [["id"], ["id", "b"], ["a"]])
@pytest.mark.parametrize(
    "lines", [['2,"open,y', '3,"x",y', "4,x,y"], ['2,x,"open', '3,x,"y"', "4,x,y"]]
)
def test_a_quote_that_another_one_closes_loses_no_row(
    tmp_path: Path, lines: list[str], columns: list[str], end: str
) -> None:
    """Arrow takes that one, and what is around it, as part of the cell; columns may be unread."""
    path = write(tmp_path / "t.csv", end.join(["id,a,b", '1,"x","y" ', *lines, ""]))
    with pytest.raises(SourceError, match=r"row 2: it has a quote that is never closed, or not "):
        rows(path, columns=columns)


@pytest.mark.parametrize("cell", ['"\n"', '"a\n"', '"a\nb"', '"""\n"', '"\n"""', 'a"b', '"a"b'])
@pytest.mark.parametrize("end", ["", "\n", "\n\n"])
def test_a_last_cell_with_a_line_end_is_closed(tmp_path: Path, cell: str, end: str) -> None:
    """However its text, and the file, end."""
    assert len(rows(write(tmp_path / "t.csv", f"id,a\n1,x\n2,{cell}{end}"))) == 2


def test_quoted_line_ends_over_block_borders(tmp_path: Path) -> None:
    """Cells of several lines survive the ends of the reader's blocks; the rows keep their order."""
    cell = "\n".join(["a line, of some length"] * 50)
    path = write(tmp_path / "t.csv", "id,a\n" + "".join(f'{n},"{cell}"\n' for n in range(35_000)))
    source = open_source(str(path))
    ids: list[str] = []
    for block in source.batches(["id", "a"]):
        batch = block.rows
        assert batch.num_rows <= BATCH_ROWS
        assert set(batch.column("a").to_pylist()) == {cell}
        ids += batch.column("id").to_pylist()
    assert ids == [str(n) for n in range(35_000)]


def test_a_cell_of_megabytes(tmp_path: Path) -> None:
    """A document in a cell is read whole."""
    path = write(tmp_path / "t.csv", "id,a\n0,y\n1," + "x" * 5_000_000 + "\n2,z\n")
    assert [len(row["a"]) for row in rows(path)] == [1, 5_000_000, 1]


def test_a_byte_order_mark_is_no_part_of_a_name(tmp_path: Path) -> None:
    """Spreadsheets write a byte order mark; it is no part of a name."""
    assert rows(write(tmp_path / "t.csv", b"\xef\xbb\xbfid,a\n1,2\n")) == [{"id": "1", "a": "2"}]


@pytest.mark.parametrize("content", ["id,a\n", "id,a\r\n"])
def test_a_table_without_rows(tmp_path: Path, content: str) -> None:
    """A header alone is a table of no rows."""
    source = open_source(str(write(tmp_path / "t.csv", content)))
    assert source.names() == ["id", "a"]
    assert rows(tmp_path / "t.csv") == []


TYPED: dict[str, tuple[str, list[tuple[str, Any]]]] = {
    "str": ("text", [("01", "01"), ("", "")]),
    "int": ("x", [("01", 1), ("-5", -5), ("9223372036854775807", 2**63 - 1), ("", None)]),
    "float": ("x", [("1", 1.0), ("2.5e3", 2500.0), ("", None)]),
    "bool": ("yes", [("true", True), ("False", False), ("1", True), ("", None)]),
    "date": ("22/11/2026", [("2026-11-22", date(2026, 11, 22)), ("", None)]),
    "datetime": (
        "noon",
        [
            ("2026-11-22T10:30:00Z", datetime(2026, 11, 22, 10, 30, tzinfo=UTC)),
            ("2026-11-22T11:30:00.5+01:00", datetime(2026, 11, 22, 10, 30, 0, 500_000, tzinfo=UTC)),
            ("2026-11-22 10:30:00", datetime(2026, 11, 22, 10, 30, tzinfo=UTC)),
            ("2026-11-22", datetime(2026, 11, 22, tzinfo=UTC)),
            ("", None),
        ],
    ),
    "decimal": (
        "x",
        [
            ("1.10", Decimal("1.1")),
            (
                "12345678901234567890123456789.123456789",
                Decimal("12345678901234567890123456789.123456789"),
            ),
            ("", None),
        ],
    ),
}


@pytest.mark.parametrize("name", TYPED)
def test_types_given_by_the_spec(tmp_path: Path, name: str) -> None:
    """Each type of `types` reads its cells, empty ones as null; the other columns stay strings."""
    cells = TYPED[name][1]
    path = write(
        tmp_path / "t.csv",
        "a,b\n" + "".join(f'"{text}",1\n' if name == "str" else f"{text},1\n" for text, _ in cells),
    )
    assert rows(path, {"a": name}) == [{"a": value, "b": "1"} for _, value in cells]


@pytest.mark.parametrize("name", [name for name in TYPED if name != "str"])
def test_a_cell_of_another_type_is_refused(tmp_path: Path, name: str) -> None:
    """A value that is not of its column's type stops the plan: file, row, column and value."""
    good = next(text for text, _ in TYPED[name][1] if text)
    path = write(
        tmp_path / "t.csv", "b,a\n\n" + f"1,{good}\n" * 70_000 + f"1,{TYPED[name][0]}\n1,\n"
    )
    digits = ", which has up to 29 digits before its point and 9 behind it"
    what = f"{name}{digits if name == 'decimal' else ''}"
    assert refusal(path, {"a": name}) == (
        f"source: {path} row 70001: the column 'a' is given as {name}, and this value is no {what} "
        f"('{TYPED[name][0]}'); fix the cell, or change {name} in `types`."
    )


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "cannot be read"),
        (b"id,a\n1,2\n3\n", "row 2: it has 1 cell, and the table has 2 columns ('3'); fix"),
        (
            b'id,a\n\n"1\nx",2\n1,2,3\n',
            "row 2: it has 3 cells, and the table has 2 columns ('1,2,3')",
        ),
        (b"id,a\n" + b"1,2\n" * 600_000 + b"3\n", "row 600001: it has 1 cell"),
        (
            "id,a\n1,2\n1,\u00e9\n".encode("latin-1"),
            "row 2: the column 'a' is not in UTF-8 (b'\\xe9')",
        ),
        (b"a,a\n1,2\n", "has two columns named 'a'; rename one"),
        ("id,a\n1,\u00e9\n".encode("utf-16"), "is in UTF-16; save it as UTF-8, or name its enc"),
    ],
)
def test_a_broken_csv_is_told(tmp_path: Path, content: bytes, reason: str) -> None:
    """Ragged rows, another encoding, a doubled header: one sentence that names the file."""
    text = refusal(write(tmp_path / "t.csv", content))
    assert text.startswith(f"source: {tmp_path / 't.csv'} ")
    assert reason in text


def test_types_of_unknown_columns_are_refused(tmp_path: Path) -> None:
    """A misspelt column in `types` would leave the right one a string."""
    path = write(tmp_path / "t.csv", "id,a\n1,2\n")
    assert refusal(path, {"A": "int"}) == "types: the source has no column 'A'; it has: id, a."


# --- JSON lines -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["t.jsonl", "t.ndjson", "t.jsonl.gz"])
def test_json_lines_keep_their_types(tmp_path: Path, name: str) -> None:
    """Numbers, booleans, lists and objects keep their values.

    A missing key is a null; blank lines are skipped.
    """
    lines = [
        '{"s":"01","i":1,"f":1.5,"b":true,"l":[1],"o":{"x":1}}',
        "",
        '{"s":"\u2028a\u0085b","n":null}',
        "  ",
    ]
    path = write(tmp_path / name, "\n".join(lines))
    none = dict.fromkeys("sifblon")
    assert rows(path) == [
        {"s": "01", "i": 1, "f": 1.5, "b": True, "l": [1], "o": {"x": 1}, "n": None},
        {**none, "s": "\u2028a\x85b"},
    ]
    assert rows(path, columns=["o", "s"])[0] == {"o": {"x": 1}, "s": "01"}


@pytest.mark.parametrize(
    ("first", "last", "kind", "value"),
    [
        ({"a": 1}, {"a": 1.5}, pa.float64(), 1.0),
        ({"a": None}, {"a": 2}, pa.int64(), None),
        ({}, {"a": "x"}, pa.string(), None),
        ({"a": []}, {"a": ["x"]}, pa.list_(pa.string()), []),
        ({"a": [1]}, {"a": [1.5, None]}, pa.json_(), [1]),
        ({"a": None}, {"a": None}, pa.null(), None),
    ],
)
def test_types_widen_over_blocks(
    tmp_path: Path, first: dict[str, Any], last: dict[str, Any], kind: pa.DataType, value: Any
) -> None:
    """A type that a late line needs is the column's from its first row on."""
    lines = [json.dumps(first)] * (BATCH_ROWS + 1) + [json.dumps(last)]
    path = write(tmp_path / "t.jsonl", "\n".join(lines))
    assert open_source(str(path)).schema(["a"]).field(0).type == kind
    table = rows(path)
    assert len(table) == BATCH_ROWS + 2
    assert (table[0], table[-1]) == ({"a": value}, {"a": last.get("a")})


@pytest.mark.parametrize("many", [1, BATCH_ROWS])
@pytest.mark.parametrize(
    ("first", "last"),
    [
        ("1", '"x"'),
        ("1", "true"),
        ('"x"', "[1]"),
        ("{}", "1"),
        ("1", "1" + "0" * 25),
        ("9007199254740993", "0.5"),
    ],
)
def test_types_that_do_not_go_together_are_refused(
    tmp_path: Path, many: int, first: str, last: str
) -> None:
    """Mixed types, integers beyond 64 bits and integers that a float would round are refused.

    They are never changed.
    """
    path = write(tmp_path / "t.jsonl", f'{{"a":{first}}}\n' * many + f'{{"a":{last}}}\n')
    assert refusal(path).startswith(f"source: {path}")


@pytest.mark.parametrize(
    "value", ["12345678901234567890123", "18446744073709551616", "-9223372036854775809"]
)
def test_integers_are_never_rounded(tmp_path: Path, value: str) -> None:
    """Two ids of more than 64 bits that differ in the last digit do not become one."""
    refusal(write(tmp_path / "t.jsonl", f'{{"a":{value}}}\n'))


HALF = r'"a\ud800b"'
BIG = "18446744073709551616"


@pytest.mark.parametrize("many", [1, 9000])
@pytest.mark.parametrize(
    ("value", "problem"),
    [
        (HALF, r"a text with half of a surrogate pair ('a\ud800b'); fix it."),
        (f"[1, 2, {BIG}]", f"an integer beyond 64 bits ({BIG}); write it as a text, in quotes."),
        (f'{{"deep": [{{"x": {HALF}}}]}}', "a text with half of a surrogate pair "),
        (f"{{{HALF}: 1}}", "a text with half of a surrogate pair "),
        ("-9223372036854775809", "an integer beyond 64 bits (-9223372036854775809)"),
        (f"[1.5, {BIG}]", "an integer beyond 64 bits "),
    ],
)
def test_a_value_that_no_column_holds_is_told_by_row_and_column(
    tmp_path: Path, many: int, value: str, problem: str
) -> None:
    """However deep in lists and structs it is, and however late in the file."""
    path = write(tmp_path / "t.jsonl", '{"b":1}\n' * many + f'\n{{"b":2,"a":{value}}}\n{{"b":3}}\n')
    assert refusal(path).startswith(f"source: {path} row {many + 1}: the column 'a' has {problem}")


def test_a_column_whose_name_no_table_holds_is_told(tmp_path: Path) -> None:
    """A name has to be a text, too."""
    path = write(tmp_path / "t.jsonl", f'{{"b":1}}\n{{"b":2,{HALF}:1}}\n')
    assert "row 2: the name of the column 'a b' has half of a surrogate pair" in refusal(path)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("xx", "is not valid JSON"),
        ('{"a":', "is not valid JSON"),
        ("[1]", "is not a JSON object"),
        ("5", "is not a JSON object"),
        ('{"a":1} {"a":2}', "is not valid JSON"),
    ],
)
def test_a_broken_line_is_told_by_its_number(tmp_path: Path, line: str, reason: str) -> None:
    """Blank lines count, so that the number is the editor's."""
    text = refusal(write(tmp_path / "t.jsonl", f'{{"a":1}}\n\n{line}\n'))
    assert f"t.jsonl line 3 {reason}" in text


def test_an_empty_file_of_lines_is_an_empty_table(tmp_path: Path) -> None:
    """An empty file has no rows and no columns."""
    assert open_source(str(write(tmp_path / "t.jsonl", ""))).names() == []


@pytest.mark.parametrize("depth", [10, 100_000])
def test_deep_nesting_is_read_or_told(tmp_path: Path, depth: int) -> None:
    """A line nested too deep is a sentence, not a traceback."""
    path = write(tmp_path / "t.jsonl", '{"a":' + "[" * depth + "]" * depth + "}\n")
    try:
        rows(path)
    except SourceError:
        return


# --- Parquet --------------------------------------------------------------------------------------


def table(start: int, stop: int) -> pa.Table:
    return pa.table(
        {
            "id": pa.array(range(start, stop), pa.int32()),
            "t": pa.array([datetime(2026, 1, 1, tzinfo=UTC)] * (stop - start)),
        }
    )


@pytest.mark.parametrize("name", ["t.parquet", "t.pq"])
def test_a_parquet_file_keeps_its_types(tmp_path: Path, name: str) -> None:
    """Types are the file's own; the rows come in order, in blocks of at most 8,192."""
    pq.write_table(table(0, MANY), tmp_path / name)
    source = open_source(str(tmp_path / name))
    assert source.schema(["id"]).field(0).type == pa.int32()
    assert [row["id"] for row in rows(tmp_path / name, columns=["id"])] == list(range(MANY))


def test_a_folder_of_parquet_files_is_one_table(tmp_path: Path) -> None:
    """Its files are read in the order of their names, each time."""
    for number in (2, 0, 1):
        pq.write_table(
            table(number * 10, number * 10 + 10),
            tmp_path / f"part-{number}.parquet",
            row_group_size=3,
        )
    for _ in range(2):
        assert [row["id"] for row in rows(tmp_path)] == list(range(30))


def test_no_parquet_file_is_told(tmp_path: Path) -> None:
    """A file of other content is one sentence."""
    assert "cannot be read" in refusal(write(tmp_path / "t.parquet", "id,a\n"))


# --- all of them ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["t.csv", "t.csv.gz", "t.jsonl", "t.jsonl.gz", "t.parquet"])
@pytest.mark.parametrize("count", [1, BATCH_ROWS - 1, BATCH_ROWS, BATCH_ROWS + 1, MANY])
def test_blocks_have_at_most_8192_rows_in_order(tmp_path: Path, name: str, count: int) -> None:
    """In any format, rows come once, in order, with just the requested columns in that order."""
    path = tmp_path / name
    if ".parquet" in name:
        pq.write_table(pa.table({"a": ["x"] * count, "id": [str(n) for n in range(count)]}), path)
    elif ".csv" in name:
        write(path, "a,id\n" + "".join(f"x,{n}\n" for n in range(count)))
    else:
        write(path, "".join(f'{{"a":"x","id":"{n}"}}\n' for n in range(count)))
    source = open_source(str(path))
    batches = [block.rows for block in source.batches(["id", "a"])]
    assert max(batch.num_rows for batch in batches) <= BATCH_ROWS
    assert all(batch.schema.names == ["id", "a"] for batch in batches)
    assert [n for batch in batches for n in batch.column("id").to_pylist()] == [
        str(n) for n in range(count)
    ]


@pytest.mark.parametrize("name", ["t.csv", "t.jsonl", "t.parquet"])
def test_remote_tables_are_read_by_url(name: str) -> None:
    """Any fsspec URL is a source; memory:// is tested in place of object stores."""
    files = fsspec.filesystem("memory")
    url = f"memory://unit-sources/{name}"
    with files.open(url, "wb") as stream:
        if name == "t.parquet":
            pq.write_table(pa.table({"id": ["1", "2"]}), stream)
        else:
            stream.write(b"id\n1\n2\n" if name == "t.csv" else b'{"id":"1"}\n{"id":"2"}\n')
    try:
        assert rows(url) == [{"id": "1"}, {"id": "2"}]
    finally:
        files.rm("/unit-sources", recursive=True)


class ListingFiles(LocalFileSystem):
    """Local files behind `listing://`; listings are cached, as clients of object stores do."""

    protocol = "listing"

    @classmethod
    def _strip_protocol(cls, path: Any) -> Any:
        return LocalFileSystem._strip_protocol(str(path).removeprefix("listing://"))

    def ls(self, path: str, detail: bool = False, **given: Any) -> Any:
        path = self._strip_protocol(path)
        if path not in self.dircache:
            self.dircache[path] = super().ls(path, detail=True, **given)
        listing = self.dircache[path]
        return listing if detail else [entry["name"] for entry in listing]

    def invalidate_cache(self, path: str | None = None) -> None:
        self.dircache.clear()


def test_a_folder_is_listed_anew_by_each_run(tmp_path: Path) -> None:
    """A file that came to a remote folder since an earlier run of the process is read."""
    fsspec.register_implementation("listing", ListingFiles, clobber=True)
    (tmp_path / "t.parquet").mkdir()
    for number in (1, 2):
        pq.write_table(pa.table({"id": [number]}), tmp_path / f"t.parquet/{number}.parquet")
        found = rows(f"listing://{tmp_path}/t.parquet")
        assert [row["id"] for row in found] == list(range(1, number + 1))


@pytest.mark.parametrize("name", ["none.csv", "none.jsonl", "none.parquet", "none", "none/"])
def test_a_source_that_is_not_there_is_told(tmp_path: Path, name: str) -> None:
    """The error names the path and the folder that it is relative to."""
    assert refusal(f"{tmp_path}/{name}") == (
        f"source: there is no file {tmp_path}/{name} (paths are relative to the folder you run in)."
    )


@pytest.mark.parametrize("url", ["memory://none.csv", "memory://none.parquet"])
def test_a_url_that_is_not_there_is_told(url: str) -> None:
    """The error is like that of a path."""
    assert refusal(url).startswith(f"source: there is no file {url}")


class LostError(Exception):
    """What the client of an object store raises: an error of its own."""


class LostStream(io.BytesIO):
    """A file whose connection breaks."""

    def read(self, *_: Any) -> bytes:
        raise LostError("the connection broke")


class LostFiles(AbstractFileSystem):
    """Files at `lost://`, of which some cannot be listed, and some not be read."""

    protocol = "lost"

    def isfile(self, path: str) -> bool:
        if "unlisted" in path:
            logging.getLogger(__name__).warning("another try", stack_info=True)
            raise LostError("Unable to locate\ncredentials")
        if "signed" in path:
            raise LostError("GET 'https://u:s3cr3t@host/t.csv?X-Amz-Signature=s3cr3t' failed")
        if "slow" in path:
            raise TimeoutError
        return True

    def open(self, *_: Any, **__: Any) -> Any:
        return LostStream(b"x" * 99)


@pytest.mark.parametrize("name", ["t.csv", "t.jsonl", "t.parquet"])
def test_what_an_object_store_says_is_told(name: str) -> None:
    """Its client has errors of its own, which are neither those of files nor those of readers."""
    fsspec.register_implementation("lost", LostFiles, clobber=True)
    url = f"lost://unlisted/{name}"
    assert refusal(url) == f"source: {url} cannot be read: Unable to locate credentials"
    assert refusal(f"lost://{name}").endswith("cannot be read: the connection broke")
    assert refusal(f"lost://slow/{name}").endswith("cannot be read: TimeoutError")
    assert refusal(f"lost://signed/{name}").endswith("GET 'https://***@host/t.csv?***' failed")
    assert "s3cr3t" not in refusal(f"lost://u:s3cr3t@signed/{name}")


def test_what_an_object_store_logs_is_not_shown(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nobody set up logs, and the error is told: no traceback of each try comes before it."""
    fsspec.register_implementation("lost", LostFiles, clobber=True)
    monkeypatch.setattr(logging.root, "handlers", [])  # pytest's own
    assert "Unable to locate credentials" in refusal("lost://unlisted/t.csv")
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("t.txt", "cannot tell what"),
        ("t.odt", "cannot tell what"),
        ("nope://x.csv", "Protocol not known"),
    ],
)
def test_a_source_of_an_unknown_kind_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, url: str, reason: str
) -> None:
    """The error names the kinds that exist, or the unknown protocol."""
    monkeypatch.chdir(tmp_path)
    if "://" not in url:
        write(tmp_path / url, "x")
    assert reason in refusal(url)


@pytest.mark.parametrize("name", ["t.jsonl", "t.parquet"])
def test_types_are_for_csv_alone(tmp_path: Path, name: str) -> None:
    """Sources of other kinds have types of their own, so `types` is refused."""
    (tmp_path / name).touch()
    assert refusal(tmp_path / name, {"a": "int"}).startswith(
        "types: only columns of CSV files and workbooks can be given types"
    )


@pytest.mark.parametrize("name", ["t.csv.gz", "t.jsonl.gz"])
@pytest.mark.parametrize("damage", ["no gzip", "cut"])
def test_a_damaged_archive_is_told(tmp_path: Path, name: str, damage: str) -> None:
    """An invalid archive, or a truncated one, is an error and never a shorter table."""
    content = b"a\n1\n" * 1000 if "csv" in name else b'{"a":1}\n' * 1000
    (tmp_path / name).write_bytes(content if damage == "no gzip" else gzip.compress(content)[:-9])
    assert "cannot be read" in refusal(tmp_path / name)


CELLS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=12)


@given(st.lists(st.tuples(CELLS, CELLS), min_size=1, max_size=20))
@settings(deadline=None, max_examples=examples(60), derandomize=True)
def test_any_text_survives(
    tmp_path_factory: pytest.TempPathFactory, cells: list[tuple[str, str]]
) -> None:
    """Templates see any text of a quoted cell or a JSON string as it is."""
    folder = tmp_path_factory.mktemp("cells")
    quoted = [
        "{},{}".format(*(f'"{cell.replace(chr(34), 2 * chr(34))}"' for cell in pair))
        for pair in cells
    ]
    write(folder / "t.csv", "a,b\n" + "\n".join(quoted) + "\n")
    write(
        folder / "t.jsonl",
        "\n".join(json.dumps({"a": a, "b": b}, ensure_ascii=False) for a, b in cells),
    )
    expected = [{"a": a, "b": b} for a, b in cells]
    assert rows(folder / "t.jsonl") == expected
    assert rows(folder / "t.csv") == expected
