"""Sheets of Excel and LibreOffice: .xlsx, .xlsm, .xlsb, .xls and .ods, read by calamine.

The first row that has anything names the columns. Excel knows numbers, texts, truths and moments,
and nothing else: numbers that are all whole make a column of integers, an empty cell is a null, and
so is one with an error (#N/A).
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date, datetime, time, timedelta
from functools import cached_property
from itertools import islice
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from batchata_tasks.common.errors import SourceError
from batchata_tasks.common.text import printable
from batchata_tasks.sources.cells import TYPES, typed_cells
from batchata_tasks.sources.source import BATCH_ROWS, Block, Place, ReadOptions, errors_of, unfit

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    from batchata_tasks.sources.files import File

ENDINGS = (".xlsx", ".xlsm", ".xlsb", ".xls", ".ods")
_EMPTY = ""  # what calamine has for an empty cell
_WHOLE = 2**53  # beyond, a double that looks like an integer may stand for another one
_TYPES: dict[frozenset[Any], pa.DataType] = {
    frozenset(): pa.null(),
    frozenset({str}): pa.string(),
    frozenset({bool}): pa.bool_(),
    frozenset({int}): pa.int64(),
    frozenset({float}): pa.float64(),
    frozenset({int, float}): pa.float64(),
    frozenset({date}): pa.date32(),
    frozenset({datetime}): pa.timestamp("us"),
    # a moment at midnight looks like a date
    frozenset({date, datetime}): pa.timestamp("us"),
    frozenset({time}): pa.time64("us"),
    frozenset({timedelta}): pa.duration("us"),
}
_NAMES = {str: "text", bool: "a truth", int: "a number", float: "a number", timedelta: "a duration"}
_MIDNIGHT = time()


@dataclass
class _Kinds:
    """The kinds of cells in a column, and the first cell that is of another kind than before."""

    kinds: set[Any] = field(default_factory=set[Any])
    odd: tuple[int, Any] | None = None

    def add(self, cell: Any, row: int) -> None:
        kind = _kind(cell)
        if kind in self.kinds or self.odd is not None:
            return
        if frozenset({*self.kinds, kind}) in _TYPES:
            self.kinds.add(kind)
        else:
            self.odd = row, cell


def _kind(cell: Any) -> Any:
    """Return the kind of a cell; a number that is whole is an integer."""
    if type(cell) is float and cell.is_integer() and abs(cell) <= _WHOLE:
        return int
    return cell.__class__


@contextmanager
def _opened(file: File, name: str) -> Generator[Any, None, None]:
    """Open a workbook; `name` is for people.

    Raises:
        SourceError: it cannot be read, now or while it is open.
    """
    try:
        import python_calamine as calamine  # noqa: PLC0415 - it may not be installed
    except ImportError:
        message = (
            f"source: {file.name} is a workbook; run `pip install "
            "'batchata-flows[excel]'` to read such files."
        )
        raise SourceError(message) from None
    try:
        with errors_of(name), file.raw() as stream:
            book = calamine.CalamineWorkbook.from_filelike(stream)
        yield book
    except calamine.CalamineError as error:
        reason = " ".join(str(error).split())[:300].rstrip(".")
        message = f"source: {name} cannot be read: {reason}; save it anew."
        raise SourceError(message) from error


def sheet_names(file: File) -> list[str]:
    """Return the names of a workbook's sheets, in order.

    Raises:
        SourceError: it cannot be read.
    """
    with _opened(file, file.name) as book:
        return list(book.sheet_names)


class ExcelSheet:
    """A sheet of a workbook, as a Source: the first one, unless another is named."""

    def __init__(self, file: File, options: ReadOptions) -> None:
        self._file, self._types, self._sheet = file, options.types, options.sheet
        self.url = file.name if options.sheet is None else f"{file.name} ({options.sheet})"

    @contextmanager
    def _rows(self) -> Generator[Iterator[tuple[int, list[Any]]], None, None]:
        """Yield the rows of the sheet with their numbers, from the first one that has anything."""
        with _opened(self._file, self.url) as book:
            names = book.sheet_names
            if self._sheet is not None and self._sheet not in names:
                message = (
                    f"source.sheet: {self._file.name} has no sheet {self._sheet!r}; it has: "
                    f"{', '.join(map(printable, names))}."
                )
                raise SourceError(message)
            sheet = book.get_sheet_by_name(names[0] if self._sheet is None else self._sheet)
            first = 0 if sheet.start is None else sheet.start[0]
            rows: Iterator[list[Any]] = sheet.iter_rows()
            yield islice(enumerate(rows, 1), first, None)

    @cached_property
    def _columns(self) -> dict[str, tuple[int, _Kinds]]:
        """Of each column its place, and the kinds of its cells."""
        with self._rows() as rows:
            _, header = next(rows, (0, list[Any]()))
            kinds = [_Kinds() for _ in header]
            for number, row in rows:
                for cell, one in zip(row, kinds, strict=False):
                    if cell is not _EMPTY and cell != _EMPTY:
                        one.add(cell, number)
        columns = dict[str, tuple[int, _Kinds]]()
        for place, (cell, one) in enumerate(zip(header, kinds, strict=True)):
            name = _text(cell)
            if not name and not one.kinds:
                continue  # an empty column
            if not name or name in columns:
                problem = "has no name" if not name else f"has a name twice ({printable(name)!r})"
                message = (
                    f"source: {self.url}: the column {_letters(place)} {problem} in its first row; "
                    "give each column a name of its own."
                )
                raise SourceError(message)
            columns[name] = place, one
        return columns

    def names(self) -> list[str]:
        """See Source."""
        return list(self._columns)

    def schema(self, columns: list[str]) -> pa.Schema:
        """See Source."""
        return pa.schema([(name, self._type(name)) for name in columns])

    def _type(self, name: str) -> pa.DataType:
        if name in self._types:
            return TYPES[self._types[name]]
        kinds = self._columns[name][1]
        if kinds.odd is not None:
            row, cell = kinds.odd
            before = " or ".join(sorted({_named(kind) for kind in kinds.kinds}))
            remedy = f"write the column in one type, or say `types: {{{printable(name)}: str}}`"
            value = int(cell) if _kind(cell) is int else cell
            raise unfit(self.url, row, name, before, value, _named(type(cell)), remedy)
        return _TYPES[frozenset(kinds.kinds)]

    def batches(self, columns: list[str]) -> Iterator[Block]:
        """See Source. Rows without any cell are none; numbers are those that Excel shows."""
        schema = self.schema(columns)
        places = [self._columns[name][0] for name in columns]
        with self._rows() as rows:
            next(rows, None)
            waiting, first = list[list[Any]](), 1
            for number, row in rows:
                if any(cell != _EMPTY for cell in row):
                    first = first if waiting else number
                    waiting.append([row[place] for place in places])
                elif waiting:
                    yield self._block(waiting, schema, first)
                    waiting = []
                if len(waiting) == BATCH_ROWS:
                    yield self._block(waiting, schema, first)
                    waiting = []
            if waiting:
                yield self._block(waiting, schema, first)

    def _block(self, rows: list[list[Any]], schema: pa.Schema, first: int) -> Block:
        place = Place(self.url, first)
        arrays = list[pa.Array]()
        for column, cells in zip(schema, zip(*rows, strict=True), strict=True):
            if column.name in self._types:
                texts = pa.array([_text(cell) for cell in cells], pa.string())
                arrays.append(typed_cells(texts, self._types[column.name], column.name, place))
            else:
                values = [None if cell == _EMPTY else _value(cell, column.type) for cell in cells]
                arrays.append(pa.array(values, column.type))
        return Block(pa.RecordBatch.from_arrays(arrays, schema=schema), place)


def _value(cell: Any, kind: pa.DataType) -> object:
    """Return a cell as a value of its column's type."""
    if pa.types.is_integer(kind):
        return int(cell)
    if pa.types.is_timestamp(kind) and type(cell) is date:
        return datetime.combine(cell, _MIDNIGHT)
    return cell


def _text(cell: Any) -> str:
    """Return a cell as a CSV file would have it."""
    if type(cell) is float:
        return str(int(cell)) if _kind(cell) is int else repr(cell)
    if isinstance(cell, bool):
        return str(cell).lower()
    return cell.isoformat() if isinstance(cell, date | time) else str(cell)


def _named(kind: Any) -> str:
    return _NAMES.get(kind, "a time" if kind is time else "a date")


def _letters(place: int) -> str:
    """Return the letters of a column, as Excel shows them: A, B, …, Z, AA."""
    letters, place = "", place + 1
    while place:
        place, rest = divmod(place - 1, 26)
        letters = chr(ord("A") + rest) + letters
    return letters
