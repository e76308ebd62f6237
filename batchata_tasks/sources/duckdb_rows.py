"""Rows that DuckDB gives, as a Source: of a query, or of a relation that a program has.

They are read once, when they are first asked for, and kept aside: a query gives other rows, or the
same in another order, whenever it runs, and a plan reads its source several times.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Any, cast

import pyarrow as pa

from batchata_tasks.common.arrow_types import plain
from batchata_tasks.common.errors import SourceError
from batchata_tasks.common.json_columns import JSON
from batchata_tasks.common.text import printable
from batchata_tasks.sources.memory import WHERE
from batchata_tasks.sources.queried import checked
from batchata_tasks.sources.source import Block, Place, errors_of
from batchata_tasks.sources.spool import Spool

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Mapping
    from contextlib import AbstractContextManager

    from duckdb import DuckDBPyRelation
    from duckdb.sqltypes import DuckDBPyType

_FETCHED_ROWS = 2048  # at once, as DuckDB makes them
# what Arrow or a dataset has no type for: values would be changed in silence
_NO_TYPE = {
    "uhugeint": "DECIMAL(38, 0)",
    "time with time zone": "VARCHAR",
    "interval": "VARCHAR",
    "bit": "VARCHAR",
    "bignum": "VARCHAR",
    "union": "VARCHAR",
    "variant": "JSON",
    "geometry": "VARCHAR",
}
_INNER_JSON = "JSON"  # within another type Arrow has it as text: 1 would be "1", and "x" "\\"x\\""
_NESTED = ("list", "array", "struct", "map")
# of these, a text gives the same value again, and Arrow's does not
_AS_TEXT = ("uhugeint", "time with time zone", "bit", "bignum")


class DuckDbRows(ABC):
    """Rows of DuckDB, as a Source. `label` is what errors begin with."""

    url: str
    label: str

    @abstractmethod
    def asked(self) -> AbstractContextManager[DuckDBPyRelation]:
        """Return what can be asked for its types, and for its rows."""

    @cached_property
    def types(self) -> dict[str, tuple[pa.DataType, str]]:
        """Of each column its type as Arrow has it, and the part of it that no type holds."""
        with self.asked() as relation:
            names, kinds = relation.columns, relation.types
            with relation.limit(0).to_arrow_reader(1) as reader:
                schema: pa.Schema = reader.schema
        if doubled := next((name for name in names if names.count(name) > 1), None):
            message = (
                f"{self.label}: it has two columns named {printable(doubled)!r}; rename one "
                "(SELECT … AS …)."
            )
            raise SourceError(message)
        columns = dict[str, tuple[pa.DataType, str]]()
        for name, kind, field in zip(names, kinds, schema, strict=True):
            arrow = JSON if str(kind) == "JSON" else plain(field.type)
            columns[name] = arrow, _lacking(kind)
        return columns

    def names(self) -> list[str]:
        """See Source."""
        return list(self.types)

    def schema(self, columns: list[str]) -> pa.Schema:
        """See Source."""
        for name in columns:
            if (odd := self.types[name][1]) == _INNER_JSON:
                message = (
                    f"{self.label}: the column {printable(name)!r} has JSON within lists or "
                    "structs, which would come as texts; cast it in the query as a whole: "
                    f"CAST({quoted(name)} AS JSON)."
                )
                raise SourceError(message)
            if odd:
                message = (
                    f"{self.label}: the column {printable(name)!r} is of DuckDB's type "
                    f"{odd.upper()}, which a dataset has no type for; cast it in the query, such "
                    f"as CAST(… AS {_NO_TYPE[odd]})."
                )
                raise SourceError(message)
        return pa.schema([(name, self.types[name][0]) for name in columns])

    @cached_property
    def spool(self) -> Spool:
        """The rows, read once."""
        return Spool(self.rows())

    def rows(self) -> Iterator[pa.RecordBatch]:
        """Run the query; yield its rows, but for the columns that no type holds."""
        usable = [name for name, (_, odd) in self.types.items() if not odd]
        with self.asked() as relation, relation.to_arrow_reader(_FETCHED_ROWS) as reader:
            for batch in reader:
                yield batch.select(usable)

    def batches(self, columns: list[str]) -> Iterator[Block]:
        """See Source."""
        schema, first = self.schema(columns), 1
        with errors_of(self.url):
            for batch in self.spool.batches(columns):
                place = Place(self.url, first)
                yield Block(checked(batch, schema, place), place)
                first += batch.num_rows


def _lacking(kind: DuckDBPyType) -> str:
    """Return the type in a type of DuckDB that a dataset has no type for; "" if there is none."""
    if kind.id in _NO_TYPE:
        return kind.id
    if kind.id not in _NESTED:
        return ""
    children: list[tuple[str, Any]] = kind.children
    for _, part in children:
        if isinstance(part, int):  # the length of an array
            continue
        if str(part) == _INNER_JSON:
            return _INNER_JSON
        if odd := _lacking(part):
            return odd
    return ""


class DuckDbRelation(DuckDbRows):
    """A relation that a program has, as a Source; it is given back with more columns."""

    url, label = WHERE, "frame"

    def __init__(self, relation: DuckDBPyRelation) -> None:
        self._relation = relation

    @contextmanager
    def asked(self) -> Generator[DuckDBPyRelation, None, None]:
        """See DuckDbRows."""
        import duckdb  # noqa: PLC0415 - whoever has a relation has it

        try:
            yield self._relation
        except duckdb.Error as error:
            message = f"frame: DuckDB says: {' '.join(str(error).split())[:500].rstrip('.')}."
            raise SourceError(message) from error

    def rows(self) -> Iterator[pa.RecordBatch]:
        """See DuckDbRows; it has all columns, since they are given back."""
        with (
            self.asked() as relation,
            self._kept(relation).to_arrow_reader(_FETCHED_ROWS) as reader,
        ):
            yield from reader

    def _kept(self, relation: DuckDBPyRelation) -> DuckDBPyRelation:
        """Return the relation with those columns as texts that Arrow would change."""
        kinds = dict(zip(relation.columns, relation.types, strict=True))
        return relation.project(", ".join(self._expressions(kinds)))

    def _expressions(self, kinds: Mapping[str, DuckDBPyType]) -> Iterator[str]:
        for name, (_, odd) in self.types.items():
            if odd in ("", "interval", _INNER_JSON):
                yield quoted(name)
            elif kinds[name].id in _AS_TEXT:
                yield f"CAST({quoted(name)} AS VARCHAR) AS {quoted(name)}"
            else:
                message = (
                    f"frame: the column {printable(name)!r} is of DuckDB's type {kinds[name]}, "
                    "which cannot be given back as it is; cast it, or leave it out."
                )
                raise SourceError(message)

    def with_columns(self, columns: pa.Table) -> DuckDBPyRelation:
        """Return the rows that were read, in their order and types, with further columns."""
        with self.asked() as relation:
            with self._kept(relation).limit(0).to_arrow_reader(1) as reader:
                schema: pa.Schema = reader.schema
            own = pa.Table.from_batches(list(self.spool.batches(self.names())), schema)
            for field in columns.schema:
                own = own.append_column(field, columns[field.name])
            casts = [
                f"CAST({quoted(name)} AS {kind}) AS {quoted(name)}"
                for name, kind in zip(relation.columns, relation.types, strict=True)
            ]
            casts += [quoted(name) for name in columns.schema.names]
            # DuckDB finds the table by the name of the variable, and keeps it
            query = f"SELECT {', '.join(casts)} FROM own"  # noqa: S608 - names are quoted
            return cast("DuckDBPyRelation", relation.query("_rows", query))


def quoted(name: str) -> str:
    """Return a name as SQL has it."""
    return f'"{name.replace(chr(34), chr(34) * 2)}"'
