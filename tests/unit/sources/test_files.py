"""Which files a source names, and how several become one table."""

from __future__ import annotations

import bz2
import gzip
import json
import os
import subprocess
import sys
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batchata_tasks.common.errors import SourceError
from batchata_tasks.sources.csv_format import CsvFormat
from batchata_tasks.sources.files import found
from batchata_tasks.sources.opening import open_source
from batchata_tasks.sources.registry import register
from batchata_tasks.sources.source import Block, Place, ReadOptions
from tests.support.by_day import examples
from tests.support.paths import ROOT
from tests.support.rows import python_rows
from tests.support.waiting import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from batchata_tasks.sources.files import File


def rows(
    url: object, columns: list[str] | None = None, options: ReadOptions | None = None
) -> list[dict[str, Any]]:
    source = open_source(str(url), options)
    return python_rows(source.batches(columns or source.names()))


def refusal(
    url: object, columns: list[str] | None = None, options: ReadOptions | None = None
) -> str:
    with pytest.raises(SourceError) as caught:
        rows(url, columns, options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def put(path: Path, kind: pa.DataType | None = None, **columns: list[Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    arrays = {name: pa.array(values, kind) for name, values in columns.items()}
    pq.write_table(pa.table(arrays), path)
    return path


# --- folders of Parquet files ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("first", "second", "unified"),
    [
        (pa.int8(), pa.int64(), pa.int64()),
        (pa.int64(), pa.int16(), pa.int64()),
        (pa.uint32(), pa.int32(), pa.int64()),
        (pa.null(), pa.int32(), pa.int32()),
        (pa.int64(), pa.float64(), pa.float64()),
        (pa.float32(), pa.float64(), pa.float64()),
        (pa.decimal128(5, 1), pa.decimal128(7, 3), pa.decimal128(7, 3)),
    ],
)
def test_files_of_several_number_types_are_one_table(
    tmp_path: Path, first: pa.DataType, second: pa.DataType, unified: pa.DataType
) -> None:
    """The type holds the values of all files, whichever comes first."""
    values = [None if pa.types.is_null(first) else 1], [2]
    if pa.types.is_decimal(first):
        values = [Decimal("1.5")], [Decimal("1.125")]
    put(tmp_path / "a.parquet", first, v=values[0])
    put(tmp_path / "b.parquet", second, v=values[1])
    assert open_source(str(tmp_path)).schema(["v"]).field(0).type == unified
    assert [row["v"] for row in rows(tmp_path)] == values[0] + values[1]


@pytest.mark.parametrize("swapped", [False, True])
@pytest.mark.parametrize(
    ("one", "other", "shown", "values"),
    [
        (pa.array([1067]), pa.array(["01067"]), ("int64", "string"), ("1067", "'01067'")),
        (pa.array(["a"]), pa.array([b"a"]), ("string", "binary"), ("'a'", "b'a'")),
        (pa.array([True]), pa.array([1]), ("bool", "int64"), ("true", "1")),
        (
            pa.array([date(2026, 1, 1)]),
            pa.array(["2026-01-01"]),
            ("date32[day]", "string"),
            ("2026-01-01", "'2026-01-01'"),
        ),
        (
            pa.array([Decimal("1.1")]),
            pa.array([1.1]),
            ("decimal128(2, 1)", "double"),
            ("1.1", "1.1"),
        ),
        (
            pa.array([{"x": 1}]),
            pa.array([{"x": "1"}]),
            ("struct<x: int64>", "struct<x: string>"),
            ("{'x': 1}", "{'x': '1'}"),
        ),
        (
            pa.array([["a"]]),
            pa.array([[b"a"]]),
            ("list<item: string>", "list<item: binary>"),
            ("['a']", "[b'a']"),
        ),
    ],
)
def test_files_that_do_not_go_together_are_told(
    tmp_path: Path,
    one: pa.Array,
    other: pa.Array,
    shown: tuple[str, str],
    values: tuple[str, str],
    swapped: bool,
) -> None:
    """Nothing is cast: column, both files, both types and an example are named."""
    first, second = (other, one) if swapped else (one, other)
    kinds = shown[::-1] if swapped else shown
    pq.write_table(pa.table({"id": [1], "v": first}), tmp_path / "a.parquet")
    pq.write_table(pa.table({"id": [2], "v": second}), tmp_path / "b.parquet")
    types = [str(array.type).replace("element", "item") for array in (first, second)]
    assert types == list(kinds)
    text = refusal(tmp_path).replace("element", "item")
    assert text.startswith(
        f"source: the column 'v' is {kinds[0]} in {tmp_path}/a.parquet and {kinds[1]} in "
        f"{tmp_path}/b.parquet ({values[not swapped]});"
    )
    assert [row["id"] for row in rows(tmp_path, ["id"])] == [1, 2]


def test_a_value_that_the_common_type_does_not_hold_is_told(tmp_path: Path) -> None:
    """An integer that a float would round stops the plan, with file and row."""
    put(tmp_path / "a.parquet", pa.float64(), v=[0.5])
    put(tmp_path / "b.parquet", pa.int64(), v=[1, 2**53 + 1])
    text = refusal(tmp_path)
    assert text.startswith(f"source: {tmp_path}/b.parquet row 2: the column 'v' is double (by ")
    assert f"this value is of the type int64 and does not fit ({2**53 + 1});" in text


def test_columns_that_a_file_lacks_are_null_there(tmp_path: Path) -> None:
    """Columns are matched by name, in any order; structs have the fields of all files."""
    put(tmp_path / "a.parquet", a=[1], b=["x"])
    pq.write_table(pa.table({"b": ["y"], "c": [{"q": 1}], "a": [2]}), tmp_path / "b.parquet")
    pq.write_table(pa.table({"c": [{"p": "z", "q": 2}]}), tmp_path / "c.parquet")
    assert rows(tmp_path) == [
        {"a": 1, "b": "x", "c": None},
        {"a": 2, "b": "y", "c": {"q": 1, "p": None}},
        {"a": None, "b": None, "c": {"q": 2, "p": "z"}},
    ]
    assert rows(tmp_path, ["b"]) == [{"b": "x"}, {"b": "y"}, {"b": None}]


def test_partition_folders_are_columns_of_text(tmp_path: Path) -> None:
    """Zeros in front stay, escapes are read, and the default partition is null."""
    put(tmp_path / "day=2026-01-02/zip=01067/x.parquet", id=[1])
    put(tmp_path / "day=2026-01-01/zip=a%2Fb/x.parquet", id=[2])
    put(tmp_path / "day=2026-01-01/zip=__HIVE_DEFAULT_PARTITION__/x.parquet", id=[3])
    expected = [
        {"id": 3, "day": "2026-01-01", "zip": None},
        {"id": 2, "day": "2026-01-01", "zip": "a/b"},
        {"id": 1, "day": "2026-01-02", "zip": "01067"},
    ]
    assert rows(tmp_path) == expected
    assert rows(f"{tmp_path}/day=*/**/*.parquet") == expected
    assert rows(tmp_path, ["day"]) == [{"day": row["day"]} for row in expected]


def test_a_column_of_the_file_goes_before_its_folder(tmp_path: Path) -> None:
    """What the file says itself is kept."""
    put(tmp_path / "day=2026-01-01/x.parquet", day=["first"], id=[1])
    assert rows(tmp_path) == [{"day": "first", "id": 1}]


def test_other_files_of_a_folder_are_left_alone(tmp_path: Path) -> None:
    """Notes, marks and checksums are no data; Parquet files without an ending are."""
    put(tmp_path / "b.parquet", id=[2])
    put(tmp_path / "000000_0", id=[1])
    put(tmp_path / "_temporary/c.parquet", id=[3])
    put(tmp_path / "_p=x/d.parquet", id=[4])
    for name in ("README.txt", "_SUCCESS", ".b.parquet.crc", "notes", ".x.parquet", "empty"):
        (tmp_path / name).write_text("" if name == "empty" else "not Parquet")
    assert [row["id"] for row in rows(tmp_path)] == [1, 4, 2]


def test_links_are_followed_once(tmp_path: Path) -> None:
    """A linked folder's files are read; a link that leads back up is no endless table."""
    put(tmp_path / "elsewhere/x.parquet", id=[1])
    (tmp_path / "rows/deep").mkdir(parents=True)
    (tmp_path / "rows/deep/up").symlink_to(tmp_path / "rows")
    (tmp_path / "rows/day=1").symlink_to(tmp_path / "elsewhere")
    assert rows(tmp_path / "rows") == [{"id": 1, "day": "1"}]


# --- patterns and names ---------------------------------------------------------------------------


def test_patterns_name_files_of_a_kind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The files are one table, in the order of their names, by path and by URL."""
    monkeypatch.chdir(tmp_path)
    for number in (2, 1):
        (tmp_path / f"p{number}.csv").write_text(f"id\n{number}\n")
    (tmp_path / "q3.csv").write_text("id\n3\n")
    (tmp_path / "p1.jsonl").write_text('{"id": 1}\n')
    expected = [{"id": "1"}, {"id": "2"}]
    assert rows("p*.csv") == rows(tmp_path / "p?.csv") == expected
    files = fsspec.filesystem("memory")
    try:
        for number in (1, 2):
            files.pipe(f"/unit-files/p{number}.csv", f"id\n{number}\n".encode())
        assert rows("memory://unit-files/p*.csv") == expected
    finally:
        files.rm("/unit-files", recursive=True)
    assert "several kinds (csv, jsonl); name one" in refusal("p1.*")
    assert "there is no file x*.csv" in refusal("x*.csv")


def test_types_go_together_over_files_of_lines(tmp_path: Path) -> None:
    """A column without a value in one file has the type of the others."""
    (tmp_path / "a.jsonl").write_text('{"id": 1, "n": null}\n')
    (tmp_path / "b.jsonl").write_text('{"id": 2, "n": 1.5, "late": true}\n')
    assert rows(tmp_path / "*.jsonl") == [
        {"id": 1, "n": None, "late": None},
        {"id": 2, "n": 1.5, "late": True},
    ]
    (tmp_path / "c.jsonl").write_text('{"id": "3"}\n')
    assert "'id' is int64 in " in refusal(tmp_path / "*.jsonl")


@pytest.mark.parametrize(
    ("one", "other"),
    [("[1]", "[2.5]"), ("[1.5, null]", "[9007199254740993]"), ("[1]", '["a"]'), ("[]", "[1]")],
)
def test_lists_keep_their_numbers_over_files(tmp_path: Path, one: str, other: str) -> None:
    """Lists of integers stay that beside a file with lists of floats: as if they were one file."""
    (tmp_path / "1.jsonl").write_text(f'{{"v": {one}}}\n')
    (tmp_path / "2.jsonl").write_text(f'{{"v": {other}}}\n')
    read = [row["v"] for row in rows(tmp_path / "*.jsonl")]
    assert repr(read) == repr([json.loads(one), json.loads(other)])


@pytest.mark.parametrize(
    ("before", "last", "told"),
    [
        (["[1]", '["a"]'], "7", "is a list, and this value is a number (7)"),
        (["[1]", "[2.5]"], '"x"', "is a list, and this value is text ('x')"),
        (["[[1]]"], "true", "is a list, and this value is true or false (true)"),
        (["[1]", "{}"], "7", "is an object or a list, and this value is a number (7)"),
        (["{}"], "7", "is an object, and this value is a number (7)"),
        (["[1]"], "7", "is a list of numbers, and this value is a number (7)"),
        (['["a"]', "null"], "{}", None),
        (['["a"]'], '"a"', "is a list of texts, and this value is text ('a')"),
        (["[true]"], "1.5", "is a list of true and false, and this value is a number (1.5)"),
        (["[null]", "[]"], "7", "is a list, and this value is a number (7)"),
    ],
)
def test_an_error_names_the_lists_that_a_column_has(
    tmp_path: Path, before: list[str], last: str, told: str | None
) -> None:
    """What its column is to a value that does not fit: only kinds that came before it."""
    path = tmp_path / "t.jsonl"
    path.write_text("".join(f'{{"v": {value}}}\n' for value in [*before, last]))
    if told is None:
        assert len(rows(path)) == len(before) + 1
    else:
        assert refusal(path).endswith(f" row {len(before) + 1}: the column 'v' {told}; fix it.")


@pytest.mark.parametrize("name", ["a::b.jsonl", "x[1].jsonl", "what?.jsonl", "a*.jsonl"])
def test_a_path_that_exists_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """However much its name looks like a chain of file systems, or like a pattern."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).write_text('{"id": 1}\n')
    (tmp_path / "abc.jsonl").write_text('{"id": 2}\n')
    assert rows(name) == rows(tmp_path / name) == [{"id": 1}]


def test_a_url_of_a_local_file_is_read(tmp_path: Path) -> None:
    """file:// is a path, too."""
    (tmp_path / "t.csv").write_text("id\n1\n")
    assert rows(f"file://{tmp_path}/t.csv") == [{"id": "1"}]


PACKED = {
    "gzip": gzip.compress,
    "bz2": bz2.compress,
    "zstd": lambda data: pa.compress(data, codec="zstd", asbytes=True),
    "gzip, twice": lambda data: gzip.compress(data[:4]) + gzip.compress(data[4:]),
}


@pytest.mark.parametrize("packed", PACKED)
@pytest.mark.parametrize(
    "name", ["t.csv", "t.csv.gz", "t.csv.gzip", "t.csv.zst", "t.csv.bz2", "t.jsonl", "t.jsonl.zst"]
)
def test_the_content_tells_the_compression(tmp_path: Path, name: str, packed: str) -> None:
    """A compressed file is read whatever its name ends in."""
    data = b'{"id": "1"}\n{"id": "2"}\n' if "jsonl" in name else b"id\n1\n2\n"
    (tmp_path / name).write_bytes(PACKED[packed](data))
    assert rows(tmp_path / name) == [{"id": "1"}, {"id": "2"}]


@pytest.mark.parametrize("name", ["t.csv.zst", "t.jsonl.bz2"])
def test_a_cut_file_is_told(tmp_path: Path, name: str) -> None:
    """An archive without its end is never a shorter table."""
    data = b'{"id": 1}\n' * 5000 if "jsonl" in name else b"id\n" + os.urandom(9).hex().encode() * 99
    (tmp_path / name).write_bytes(PACKED["zstd" if "zst" in name else "bz2"](data)[:-9])
    assert f"source: {tmp_path / name} cannot be read: " in refusal(tmp_path / name)


# --- how CSV files are written --------------------------------------------------------------------


@pytest.mark.parametrize("compressed", [False, True])
def test_a_file_stays_open_as_long_as_it_may_be_read(tmp_path: Path, *, compressed: bool) -> None:
    """A reader that is left early reads ahead in a thread, from the number that its file has.

    If the file was closed by then, the next one to be opened would have the number, and lose what
    that thread takes: a table of some megabytes lost a block of its rows on a busy machine.
    """
    path = tmp_path / "t.csv"
    path.write_bytes(gzip.compress(b"id\n1\n") if compressed else b"id\n1\n")

    def is_open() -> bool:
        numbers = Path("/proc/self/fd").iterdir()
        return any(number.exists() and number.samefile(path) for number in numbers)

    ((file,), _) = found(str(path))
    with file.opened() as stream:
        assert stream.read() == b"id\n1\n"
    assert is_open()
    del stream
    assert not is_open()


@pytest.mark.parametrize("encoding", ["utf-8", "cp1252", "latin-1", "utf-16", "utf-8-sig"])
@pytest.mark.parametrize("delimiter", [";", "\t", "|"])
def test_csv_files_of_other_kinds(tmp_path: Path, encoding: str, delimiter: str) -> None:
    """Delimiter and encoding are keys of the spec."""
    text = "id;naïve\n01;'a;\"é\"'\n".replace(";", delimiter)
    (tmp_path / "t.csv").write_bytes(text.encode(encoding))
    form = CsvFormat(delimiter=delimiter, encoding=encoding, quote="'")
    expected = [{"id": "01", "naïve": f'a{delimiter}"é"'}]
    assert rows(tmp_path / "t.csv", options=ReadOptions(csv=form)) == expected


@pytest.mark.parametrize("name", ["t.tsv", "t.tab", "t.tsv.gz", "T.TSV"])
def test_files_with_tabs_by_their_names(tmp_path: Path, name: str) -> None:
    """A .tsv file is a CSV file with tabs, unless the spec says otherwise; it joins others."""
    text = b"id\ttext\n1\tx,y\n"
    (tmp_path / name).write_bytes(gzip.compress(text) if name.endswith("gz") else text)
    typed = ReadOptions({"id": "int"})
    assert rows(tmp_path / name, options=typed) == [{"id": 1, "text": "x,y"}]
    with_bars = ReadOptions(csv=CsvFormat(delimiter="|"))
    assert rows(tmp_path / name, options=with_bars) == [{"id\ttext": "1\tx,y"}]
    (tmp_path / "u.csv").write_text("id,text\n2,z\n")
    assert [row["id"] for row in rows(tmp_path / "*")] == ["1", "2"]


def test_csv_files_without_a_header(tmp_path: Path) -> None:
    """The first row is a row: its columns are named by the spec, or counted."""
    (tmp_path / "t.csv").write_text('1,"a\n2,b\n')
    form = CsvFormat(header=["id", "text"], quote=None)
    assert rows(tmp_path / "t.csv", options=ReadOptions(csv=form)) == [
        {"id": "1", "text": '"a'},
        {"id": "2", "text": "b"},
    ]
    form = CsvFormat(header=False, quote=None)
    read = rows(tmp_path / "t.csv", ["column2"], ReadOptions({"column1": "int"}, form))
    assert read == [{"column2": '"a'}, {"column2": "b"}]
    (tmp_path / "t.csv").write_text("1,a\n2\n")
    told = refusal(tmp_path / "t.csv", options=ReadOptions(csv=form))
    assert "t.csv row 2: it has 1 cell, and the table has 2 columns ('2')" in told


def test_options_of_csv_are_for_csv_alone(tmp_path: Path) -> None:
    """Files of other kinds do not have them, so they are refused."""
    (tmp_path / "t.jsonl").write_text('{"id": 1}\n')
    text = refusal(tmp_path / "t.jsonl", options=ReadOptions(csv=CsvFormat(delimiter=";")))
    assert text.startswith("csv: only CSV columns have such options, and ")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("delimiter", ""),
        ("delimiter", "ab"),
        ("delimiter", '"'),
        ("delimiter", "\n"),
        ("quote", "é"),
        ("encoding", "utf-9"),
        ("encoding", "base64"),
        ("header", []),
        ("header", ["a", "a"]),
    ],
)
def test_options_that_cannot_be_are_refused(key: str, value: Any) -> None:
    """Each option is checked before the file is read."""
    with pytest.raises(ValueError, match=key if key != "encoding" else "encoding"):
        CsvFormat.model_validate({key: value})


# --- only what is used ----------------------------------------------------------------------------


def test_columns_that_are_not_used_may_be_anything(tmp_path: Path) -> None:
    """Their values are neither typed nor converted, in any kind of file."""
    odd = ['{"v": 1}', '{"v": "a"}', '{"v": [1]}', '{"v": {}}', '{"v": 1' + "0" * 30 + "}"]
    lines = [{**json.loads(line), "id": number} for number, line in enumerate(odd)]
    path = tmp_path / "t.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)) + '\n{"id": 5, "v": "\\ud800", "w": NaN}\n')
    assert [row["id"] for row in rows(path, ["id"])] == [0, 1, 2, 3, 4, 5]
    assert "row 2: the column 'v' is a number, and this value is text ('a'); fix it." in refusal(
        path, ["v"]
    )
    (tmp_path / "t.csv").write_bytes(b"id,v\n1,\xff\n")
    assert rows(tmp_path / "t.csv", ["id"]) == [{"id": "1"}]


_TEXTS = st.text(max_size=4) | st.sampled_from(["$date", "", "a b", "\ud800", "items"])
_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**65), 2**65) | st.floats() | _TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_TEXTS, inner, max_size=3),
    max_leaves=6,
)


@given(st.lists(_VALUES, min_size=1, max_size=3), st.booleans())
@settings(deadline=None, max_examples=examples(150), derandomize=True)
def test_a_value_is_kept_or_told(
    tmp_path_factory: pytest.TempPathFactory, values: list[Any], two_files: bool
) -> None:
    """JSON values come out as they went in, whatever other rows hold, or one is refused by name.

    So it is if the other rows stand in another file.
    """
    folder = tmp_path_factory.mktemp("value")
    lines = [json.dumps({"id": number, "v": value}) + "\n" for number, value in enumerate(values)]
    (folder / "a.jsonl").write_text("".join(lines[:1] if two_files else lines))
    (folder / "b.jsonl").write_text("".join(lines[1:] if two_files else []))
    try:
        read = [row["v"] for row in rows(folder / "*.jsonl", ["id", "v"])]
    except SourceError as error:
        told = str(error)
        assert told.startswith("source: ")
        assert "the column 'v' " in told
        return
    assert len(read) == len(values)
    for before, after in zip(values, read, strict=True):
        assert before == after or repr(before) == repr(after)
        assert type(before) is int or repr(before) == repr(after)  # it may be a double now


def test_each_object_has_its_own_items(tmp_path: Path) -> None:
    """And lists of several kinds their own values: no row gets anything from another row."""
    values = [{"b": 1, "a": {}}, {"c": [1, "x", 2.0]}, None, [], [{"d": 2**64 - 1}, {}], {"": None}]
    many = [{"v": value} for value in values * 2000]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, many)))
    (tmp_path / "b.jsonl").write_text('{"v": [1, 2]}\n')
    read = rows(tmp_path / "*.jsonl")
    assert repr(read) == repr([*many, {"v": [1, 2]}])
    (source,) = {str(field.type) for field in open_source(str(tmp_path / "*.jsonl")).schema(["v"])}
    assert source == "extension<arrow.json>"


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ("[" * 900 + "]" * 900, "has a value nested deeper than 100 levels; write it as a text"),
        ('{"x": ' * 101 + "1" + "}" * 101, "has a value nested deeper than 100 levels"),
        ('{"x": 18446744073709551616}', "has an integer beyond 64 bits (18446744073709551616)"),
        ('{"x": [1, -9223372036854775809]}', "has an integer beyond 64 bits"),
        ('{"x": NaN}', "has nan, which is no JSON; write null, or a text."),
        ('{"x": 1e999}', "has inf, which is no JSON"),
        ('{"x": "\\ud800"}', "has a text with half of a surrogate pair"),
        ('{"\\ud800": 1}', "has a text with half of a surrogate pair"),
        ("5", "is an object, and this value is a number (5); fix it."),
    ],
)
def test_what_json_columns_cannot_hold_is_told(tmp_path: Path, value: str, told: str) -> None:
    """By its row, unless nobody uses the column; duplicate names keep the last, as ever."""
    lines = ['{"id": 1, "v": {"y": 1, "y": 2}}', f'{{"id": 2, "v": {value}}}']
    (tmp_path / "t.jsonl").write_text("\n".join(lines))
    path = tmp_path / "t.jsonl"
    assert f"t.jsonl row 2: the column 'v' {told}" in refusal(path)
    assert rows(path, ["id"]) == [{"id": 1}, {"id": 2}]
    path.write_text(lines[0])
    assert rows(path) == [{"id": 1, "v": {"y": 2}}]


def test_a_text_that_parquet_calls_json_is_a_text(tmp_path: Path) -> None:
    """As it was before, so that its prompts and fingerprints stay."""
    column = pa.ExtensionArray.from_storage(pa.json_(), pa.array(['{"a": 1}', None]))
    pq.write_table(pa.table({"v": column}), tmp_path / "t.parquet")
    assert open_source(str(tmp_path / "t.parquet")).schema(["v"]).field(0).type == pa.string()
    assert rows(tmp_path / "t.parquet") == [{"v": '{"a": 1}'}, {"v": None}]


# --- further kinds --------------------------------------------------------------------------------


class Words:
    """A file of words, one a line, as a Source."""

    def __init__(self, file: File, options: ReadOptions) -> None:
        del options
        self.file, self.url = file, file.name

    def names(self) -> list[str]:
        return ["word"]

    def schema(self, columns: list[str]) -> pa.Schema:
        return pa.schema([(name, pa.string()) for name in columns])

    def batches(self, columns: list[str]) -> Iterator[Block]:
        with self.file.lines() as lines:
            words = [line.decode().strip() for line in lines]
        batch = pa.RecordBatch.from_arrays([pa.array(words)], schema=self.schema(columns))
        yield Block(batch, Place(self.url, 1))


def test_a_package_can_add_a_kind(tmp_path: Path) -> None:
    """Its files are found, decompressed and put together like all others."""
    register("words", (".words",), Words)
    (tmp_path / "a.words").write_text("one\n")
    (tmp_path / "b.words.gz").write_bytes(gzip.compress(b"two\n"))
    assert rows(tmp_path / "*.words*") == [{"word": "one"}, {"word": "two"}]
    with pytest.raises(SourceError, match=r"'.csv' is taken by csv"):
        register("words", (".csv",), Words)


def test_an_installed_package_adds_kinds_and_schemes(tmp_path: Path) -> None:
    """Its entry point is all that a process needs; a broken one is a sentence."""
    site = tmp_path / "site/words-1.0.dist-info"
    site.mkdir(parents=True)
    (site / "METADATA").write_text("Metadata-Version: 2.1\nName: words\nVersion: 1.0\n")
    (site.parent / "words.py").write_text(
        "from batchata_tasks.sources.opening import open_source\n"
        "from batchata_tasks.sources.registry import kind_of, register, register_scheme\n"
        "register('words', ('.words',), kind_of('.csv')[1])\n"
        "register_scheme('words', lambda url, options: "
        "open_source(url.partition('://')[2], options))\n"
    )
    (tmp_path / "t.words").write_text("id,a\n1,one\n")
    code = (
        "import sys; from batchata_tasks.sources.opening import open_source\n"
        "for url in sys.argv[1:]:\n"
        "    blocks = open_source(url).batches(['id', 'a'])\n"
        "    print([row for block in blocks for row in block.rows.to_pylist()])\n"
    )
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(site.parent), str(ROOT)]),
    }

    def read(entry: str) -> subprocess.CompletedProcess[str]:
        (site / "entry_points.txt").write_text(f"[batchata.sources]\n{entry}\n")
        command = [sys.executable, "-c", code, "t.words", "words://t.words"]
        return subprocess.run(
            command,
            env=environment,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )

    done = read("words = words")
    assert done.stdout == "[{'id': '1', 'a': 'one'}]\n" * 2, done.stderr
    assert "the package of the entry point 'gone' fails" in read("gone = no_such_module").stderr


@pytest.mark.parametrize(
    ("url", "package", "extra"),
    [
        ("s3://bucket/t.csv", "s3fs", "s3"),
        ("gs://bucket/*.parquet", "gcsfs", "gcs"),
        ("abfs://rows@account/t.jsonl", "adlfs", "azure"),
        ("https://127.0.0.1:1/t.csv", "aiohttp", "http"),
    ],
)
def test_the_extra_of_a_url_is_named(
    monkeypatch: pytest.MonkeyPatch, url: str, package: str, extra: str
) -> None:
    """If the package of a file system is missing, the sentence has the command that installs it."""
    monkeypatch.setitem(sys.modules, package, None)
    for module in ("s3fs", "gcsfs", "adlfs", "fsspec.implementations.http"):
        monkeypatch.delitem(sys.modules, module, raising=False)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(SourceError) as caught:
        open_source(url)
    assert f"run `pip install 'batchata-flows[{extra}]'`" in str(caught.value)
