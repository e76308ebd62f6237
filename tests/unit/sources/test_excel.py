"""Workbooks: what cells are, which row has the names, and a sentence for each broken one."""

from __future__ import annotations

import sys
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import fsspec
import pyarrow as pa
import pytest

from batchata_tasks.common.errors import SourceError
from batchata_tasks.sources.forms import SheetSource
from batchata_tasks.sources.opening import open_source
from batchata_tasks.sources.source import BATCH_ROWS, ReadOptions
from tests.support.rows import python_rows
from tests.support.workbook import ErrorCell, write_workbook

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

NOON = datetime(2026, 11, 22, 12)  # noqa: DTZ001


@pytest.fixture
def calamine() -> None:
    """Skip a test where the extra is not installed."""
    pytest.importorskip("python_calamine")


def book(folder: Path, *rows: Sequence[object], **options: Any) -> Path:
    path = folder / "book.xlsx"
    write_workbook(path, {"First": rows, "Second": [["x"], [1]]}, **options)
    return path


def read(path: object, **types: str) -> list[dict[str, Any]]:
    source = open_source(str(path), ReadOptions(types))
    return python_rows(source.batches(source.names()))


def refusal(path: object, **types: str) -> str:
    with pytest.raises(SourceError) as caught:
        read(path, **types)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.usefixtures("calamine")
def test_cells_are_what_excel_shows(tmp_path: Path) -> None:
    """Whole numbers are integers; empty cells, and those with an error, are null."""
    path = book(
        tmp_path,
        ["id", "name", "price", "big", "sold", "day", "at", "none"],
        [1, "01", 1.5, 2**53, True, date(2026, 11, 22), NOON],
        [2, " ü\n", 2, 1e300, False, date(1900, 3, 1), datetime(2026, 1, 1)],  # noqa: DTZ001
        [3, None, ErrorCell("#N/A"), None, None, None, None],
    )
    source = open_source(str(path))
    assert [str(field.type) for field in source.schema(source.names())] == [
        *("int64", "string", "double", "double", "bool", "date32[day]", "timestamp[us]", "null")
    ]
    rows = read(path)
    assert rows[0] == {
        "id": 1,
        "name": "01",
        "price": 1.5,
        "big": 2.0**53,
        "sold": True,
        "day": date(2026, 11, 22),
        "at": NOON,
        "none": None,
    }
    assert rows[1]["at"] == datetime(2026, 1, 1)  # noqa: DTZ001
    assert set(rows[2].values()) == {3, None}


@pytest.mark.usefixtures("calamine")
def test_titles_and_blank_rows(tmp_path: Path) -> None:
    """The first row that has anything names the columns; numbers are those that Excel shows."""
    rows: list[list[object]] = [["id", 2026, None], [1, "a"], [], [None, None], [2, "b"], []]
    path = book(tmp_path, *rows, first_row=4)
    source = open_source(str(path))
    assert source.names() == ["id", "2026"]
    blocks = list(source.batches(["id"]))
    assert [(b.place.row, b.rows.column("id").to_pylist()) for b in blocks] == [(5, [1]), (8, [2])]


@pytest.mark.usefixtures("calamine")
def test_many_rows(tmp_path: Path) -> None:
    """They come in blocks, in order."""
    path = book(tmp_path, ["id"], *([n] for n in range(BATCH_ROWS + 5)))
    blocks = list(open_source(str(path)).batches(["id"]))
    assert [block.rows.num_rows for block in blocks] == [BATCH_ROWS, 5]
    assert [row["id"] for row in python_rows(blocks)] == list(range(BATCH_ROWS + 5))


@pytest.mark.usefixtures("calamine")
def test_types_as_of_a_csv_file(tmp_path: Path) -> None:
    """`types` reads a cell as the text that a CSV file would have."""
    path = book(
        tmp_path,
        ["id", "n", "d", "day", "at", "b"],
        [7, "12", 0.1, "2026-11-22", NOON, "true"],
        ["07", 13, 2, date(2026, 11, 23), "2026-11-22T13:00:00+01:00", False],
        [1.5, None, None, None, None, None],
    )
    types = {"id": "str", "n": "int", "d": "decimal", "day": "date", "at": "datetime", "b": "bool"}
    first, second, third = read(path, **types)
    moment = datetime(2026, 11, 22, 12, tzinfo=UTC)
    assert [first[n] for n in types] == [
        *("7", 12, Decimal("0.1"), date(2026, 11, 22), moment, True)
    ]
    assert [second[n] for n in types] == ["07", 13, 2, date(2026, 11, 23), moment, False]
    assert [third[n] for n in types] == ["1.5", None, None, None, None, None]


@pytest.mark.usefixtures("calamine")
def test_a_sheet_by_its_name(tmp_path: Path) -> None:
    """Of a path alone it is the first; one that is not there is refused with those that are."""
    path = book(tmp_path, ["id"], [5])
    assert python_rows(open_source(SheetSource(file=str(path), sheet="Second")).batches(["x"])) == [
        {"x": 1}
    ]
    with pytest.raises(SourceError, match="has no sheet 'Third'; it has: First, Second"):
        open_source(SheetSource(file=str(path), sheet="Third"))
    (tmp_path / "t.csv").write_text("id\n1\n")
    with pytest.raises(SourceError, match=r"source.sheet: .*t.csv is no workbook"):
        open_source(SheetSource(file=str(tmp_path / "t.csv"), sheet="First"))


@pytest.mark.usefixtures("calamine")
def test_a_workbook_elsewhere(tmp_path: Path) -> None:
    """A URL is read as a path is."""
    fsspec.filesystem("memory").pipe("/books/b.xlsx", book(tmp_path, ["id"], [5]).read_bytes())
    assert read("memory://books/b.xlsx") == [{"id": 5}]


@pytest.mark.usefixtures("calamine")
@pytest.mark.parametrize(
    ("rows", "types", "says"),
    [
        ([["id", "id"], [1, 2]], {}, "the column B has a name twice ('id') in its first row"),
        ([["id", None], [1, 2]], {}, "the column B has no name in its first row; give each"),
        ([["id"], ["a"], [1]], {}, "row 3: the column 'id' is text, and this value is a number"),
        ([["id"], [True], [1]], {}, "row 3: the column 'id' is a truth"),
        ([["id"], [1], [NOON]], {}, "and this value is a date"),
        ([["id"], [1.5]], {"id": "int"}, "row 2: the column 'id' is given as int"),
        ([["id"], ["x"]], {"id": "datetime"}, "is given as datetime, and this value is no date"),
        ([["id"], [1]], {"nope": "int"}, "types: the source has no column 'nope'; it has: id"),
    ],
)
def test_what_is_refused(
    tmp_path: Path, rows: list[list[object]], types: dict[str, str], says: str
) -> None:
    """In one sentence, with the column and the row."""
    assert says in refusal(book(tmp_path, *rows), **types)


@pytest.mark.usefixtures("calamine")
def test_a_broken_workbook(tmp_path: Path) -> None:
    """A file that is none, or has nothing, is told."""
    path = tmp_path / "broken.xlsx"
    path.write_bytes(b"PK\x03\x04 no workbook")
    assert "broken.xlsx cannot be read: " in refusal(path)
    assert open_source(str(book(tmp_path))).names() == []
    with pytest.raises(SourceError, match="csv: only CSV columns have such options"):
        open_source(str(path), ReadOptions(csv=_csv()))


def _csv() -> Any:
    from batchata_tasks.sources.csv_format import CsvFormat

    return CsvFormat(delimiter=";")


def test_without_calamine_the_extra_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sentence has the command that installs it."""
    monkeypatch.setitem(sys.modules, "python_calamine", None)
    assert "run `pip install 'batchata-flows[excel]'`" in refusal(book(tmp_path, ["id"], [1]))


@pytest.mark.usefixtures("calamine")
def test_columns_that_are_not_used_may_be_of_any_kind(tmp_path: Path) -> None:
    """Only the columns that a spec names have to be of one type."""
    source = open_source(str(book(tmp_path, ["id", "mess"], [1, "a"], [2, 3])))
    assert source.schema(["id"]).field("id").type == pa.int64()
    assert python_rows(source.batches(["id"])) == [{"id": 1}, {"id": 2}]
