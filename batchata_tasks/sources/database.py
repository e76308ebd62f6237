"""Queries of databases, by SQLAlchemy; the URL is in the environment, and stays there.

The query runs once, in a transaction that only reads, and its rows are kept aside as they stream
in: one statement sees one state of the database, also while others write to it.
"""

from __future__ import annotations

import re
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from batchata_tasks.common.errors import SourceError
from batchata_tasks.common.text import printable
from batchata_tasks.sources.connecting import FETCHED_ROWS, masked, opened, url_in
from batchata_tasks.sources.jsonl import joined
from batchata_tasks.sources.python_values import OddValueError, column_of
from batchata_tasks.sources.source import Block, Place, unfit
from batchata_tasks.sources.spool import Spool

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    from sqlalchemy import Connection, CursorResult

_WHERE = "the query"
# what is no part of a statement's structure: texts, names in quotes, comments
_QUOTED = re.compile(
    r"'(?:[^']|'')*'|\"(?:[^\"]|\"\")*\"|\$(\w*)\$.*?\$\1\$|--[^\n]*|/\*.*?\*/", re.DOTALL
)
_WORD = re.compile(r"\w+")
_FIRST_WORDS = ("select", "with", "values", "table")
_MOST_DIGITS = 38  # of decimals in 128 bits
# Postgres' numbers of types: of intervals, and lists of them; of decimals
_INTERVALS, _NUMERIC = (1186, 1187), 1700


class DatabaseQuery:
    """A SELECT of a database, as a Source."""

    url = _WHERE

    def __init__(self, url_env: str, query: str) -> None:
        self._variable, self._query = url_env, query
        self._names = list[str]()
        self._decimals = dict[str, pa.DataType]()  # the types of columns that say their digits
        self._odd = dict[str, SourceError]()  # the first value of a column that no type holds

    @cached_property
    def _spool(self) -> Spool:
        _require_select(self._query)
        with self._connected() as connection:
            return Spool(self._rows(connection))

    def _rows(self, connection: Connection) -> Iterator[pa.RecordBatch]:
        """Run the query; yield its rows as they come."""
        result = connection.exec_driver_sql(self._query)
        self._describe(result)
        first = 1
        for rows in result.partitions(FETCHED_ROWS):
            columns = zip(*rows, strict=True)
            arrays = [self._array(n, c, first) for n, c in zip(self._names, columns, strict=True)]
            yield pa.RecordBatch.from_arrays(arrays, self._names)
            first += len(rows)

    def _describe(self, result: CursorResult[Any]) -> None:
        """Note the names of the columns, and what their types tell."""
        description: Any = result.cursor.description if result.cursor is not None else None
        if not result.returns_rows or not description:
            message = "source.query: it gives no rows; write one SELECT."
            raise SourceError(message)
        self._names = [str(column[0]) for column in description]
        if doubled := next((n for n in self._names if self._names.count(n) > 1), None):
            message = (
                f"source.query: it has two columns named {printable(doubled)!r}; rename one (AS …)."
            )
            raise SourceError(message)
        for name, column in zip(self._names, description, strict=True):
            code, precision, scale = column[1], column[4], column[5] or 0
            if code in _INTERVALS:  # the driver would make days of months
                message = (
                    f"source.query: the column {printable(name)!r} is an interval, which a dataset "
                    "has no type for; cast it in the query, such as CAST(… AS text)."
                )
                self._odd[name] = SourceError(message)
            if code == _NUMERIC and precision and 0 <= scale <= precision <= _MOST_DIGITS:
                self._decimals[name] = pa.decimal128(precision, scale)

    def _array(self, name: str, values: tuple[Any, ...], first: int) -> pa.Array:
        """Return some values of a column; nulls if one has no type, for which the column is told.

        Only a column that the spec uses has to be of one type.
        """
        if name in self._odd:
            return pa.nulls(len(values), pa.null())
        try:
            array = column_of(values)
            kind = self._decimals.get(name)
            return (
                array if kind is None or not pa.types.is_decimal(array.type) else array.cast(kind)
            )
        except OddValueError as error:
            self._odd[name] = unfit(
                _WHERE,
                first + error.place,
                name,
                "of several or unknown types",
                error.value,
                f"one that {error.problem}",
                "cast the column in the query, such as CAST(… AS text)",
            )
            return pa.nulls(len(values), pa.null())

    def names(self) -> list[str]:
        """See Source; the query runs when they are first asked for."""
        _ = self._spool
        return list(self._names)

    def schema(self, columns: list[str]) -> pa.Schema:
        """See Source."""
        return pa.schema([(name, self._type(name)) for name in columns])

    def _type(self, name: str) -> pa.DataType:
        spool = self._spool
        if name in self._odd:
            raise self._odd[name]
        kind = spool.joined(name, joined) if name in spool.types else pa.null()
        if kind is None:
            several = ", ".join(map(str, spool.types[name]))
            message = (
                f"source.query: the column {printable(name)!r} has values of several types "
                f"({several}); cast it in the query, such as CAST(… AS text)."
            )
            raise SourceError(message)
        return kind

    def batches(self, columns: list[str]) -> Iterator[Block]:
        """See Source."""
        self.schema(columns)
        first = 1
        for batch in self._spool.batches(columns):
            yield Block(batch, Place(_WHERE, first))
            first += batch.num_rows

    @contextmanager
    def _connected(self) -> Generator[Connection, None, None]:
        """Connect; what fails is one sentence, without the URL or a part of it."""
        from sqlalchemy.exc import SQLAlchemyError  # noqa: PLC0415 - slow, and few specs need it

        url, problem = url_in(self._variable), ""
        try:
            with opened(url, self._variable) as connection:
                yield connection
        except SQLAlchemyError as error:
            problem = masked(str(getattr(error, "orig", None) or error), url)
        except (OSError, ValueError, OverflowError) as error:
            problem = masked(str(error), url)
        if problem:  # raised here, so that no cause of it has the URL
            message = (
                f"source.query: {url.get_backend_name()} says: {problem}; fix the query, or the "
                f"URL in {self._variable}."
            )
            raise SourceError(message)


def _require_select(query: str) -> None:
    """Refuse a query that is not one SELECT; what it calls cannot be known."""
    bare = _QUOTED.sub(" ", query).strip().rstrip(";").strip()
    first = _WORD.match(bare.lstrip("( \t\r\n").lower())
    if first is None or first[0] not in _FIRST_WORDS or ";" in bare:
        message = "source.query: it is more, or other, than one SELECT; write one SELECT."
        raise SourceError(message)
