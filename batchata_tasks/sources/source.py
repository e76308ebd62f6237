"""The seam to where rows come from: what a source offers, and the words for a value that is wrong.

A source is read several times (names, types, then the rows), and only for the columns that are
wanted. Rows are numbered from 1 in each file, without the header of a CSV file; those of a workbook
as it numbers them itself.
"""

from __future__ import annotations

import re
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

import pyarrow as pa

from batchata_tasks.common.errors import SourceError
from batchata_tasks.common.text import literal, printable

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Mapping

    from batchata_tasks.sources.csv_format import CsvFormat

BATCH_ROWS = 8192


@dataclass(frozen=True, slots=True)
class Place:
    """Where a block's first row stands: the file, as people know it, and the row's number there."""

    file: str
    row: int


@dataclass(frozen=True, slots=True)
class Block:
    """Some rows in a run, at most 8,192, and where the first of them stands.

    `number` is the first one's number for people, if they know its rows by other numbers than by
    counting them through the table.
    """

    rows: pa.RecordBatch
    place: Place
    number: int | None = None

    def numbers(self, before: int) -> range:
        """Return the numbers of its rows; `before` is how many rows came before them."""
        first = before + 1 if self.number is None else self.number
        return range(first, first + self.rows.num_rows)


class Source(Protocol):
    """A table that can be read as often as needed."""

    @property
    def url(self) -> str:
        """The source, as the spec names it."""
        ...

    def names(self) -> list[str]:
        """Return the names of all columns, in order.

        Raises:
            SourceError: the table cannot be read.
        """
        ...

    def schema(self, columns: list[str]) -> pa.Schema:
        """Return the types of some columns, in the order asked for; the others are not looked at.

        Raises:
            SourceError: values of one of them do not go together; file, row and value are named.
        """
        ...

    def batches(self, columns: list[str]) -> Iterator[Block]:
        """Yield the rows in order, with just these columns, in the types of `schema`.

        Raises:
            SourceError: the table is broken somewhere.
        """
        ...


@dataclass(frozen=True, slots=True)
class ReadOptions:
    """What a spec says about how its source is to be read.

    `types` are those of columns of cells, `sheet` the name of a workbook's sheet.
    """

    types: Mapping[str, str] = field(default_factory=dict[str, str])
    csv: CsvFormat | None = None
    sheet: str | None = None


def unfit(
    file: str, row: int, column: str, kind: str, value: object, problem: str, remedy: str
) -> SourceError:
    """Return the error for one value: `kind` says what its column is, `problem` what it is."""
    return SourceError(
        f"source: {file} row {row}: the column {printable(column)!r} is {kind}, and this value is "
        f"{problem} ({literal(value)}); {remedy}."
    )


_READING = (pa.ArrowException, OSError, EOFError, ValueError, OverflowError, ImportError)


@contextmanager
def errors_of(file: str) -> Generator[None, None, None]:
    """Turn the readers' errors into one sentence that names the file."""
    try:
        yield
    except FileNotFoundError:
        raise no_such_file(file) from None
    except SourceError:
        raise
    except Exception as error:  # clients of object stores have errors of their own
        if not isinstance(error, _READING) and not _is_of_client(error, file):
            raise
        reason = " ".join(str(error).split())[:500] or type(error).__name__
        remedy = ""
        if isinstance(error, UnicodeError) or "utf" in reason.lower():
            remedy = "; save it as UTF-8, or name its encoding (of a CSV file: `csv.encoding`)."
        message = _without_secrets(f"source: {file} cannot be read: {reason}{remedy}")
        raise SourceError(message) from error


def _is_of_client(error: Exception, file: str) -> bool:
    """Whether an error is of the client of an object store, which is neither Python's nor ours."""
    package = type(error).__module__.partition(".")[0]
    return "://" in file and package not in ("builtins", __name__.partition(".")[0])


def no_such_file(url: str) -> SourceError:
    """Return the error for a source that does not exist."""
    place = "paths are relative to the folder you run in"
    if "://" in url:
        place = "or whoever runs this may not see it"
    return SourceError(_without_secrets(f"source: there is no file {url} ({place})."))


# of URLs: user and password, and the query in which stores are given signatures
_USER = re.compile(r"(?<=\w://)[^\s/@'\"]+(?=@)")
_QUERY = re.compile(r"(\w://[^\s'\"?]*\?)[^\s'\"]*=[^\s'\"]*")


def _without_secrets(text: str) -> str:
    return _QUERY.sub(r"\1***", _USER.sub("***", text))
