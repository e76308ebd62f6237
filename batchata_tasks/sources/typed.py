"""A source in the types that the dataset declares: what comes after sees these alone.

Objects and lists of JSON are shown to templates as each row has them. In a dataset whose column is
a struct or a list of one type they are stored as such: then the shown type and the stored differ.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa

from batchata_tasks.common.arrow_types import plain
from batchata_tasks.common.conversion import UnfitError, converted
from batchata_tasks.common.errors import SourceError
from batchata_tasks.common.json_columns import type_name
from batchata_tasks.common.text import literal, printable
from batchata_tasks.sources.source import Block, unfit

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from batchata_tasks.sources.source import Place, Source


class Typed:
    """A Source whose columns are converted once, when they are read.

    Its types are the declared ones, or else those of the source without its writer's encodings.
    """

    def __init__(self, source: Source) -> None:
        self._source = source
        self._shown: Mapping[str, pa.DataType] = {}
        self._stored: Mapping[str, pa.DataType] = {}
        self.url = source.url

    def declare(
        self, shown: Mapping[str, pa.DataType], stored: Mapping[str, pa.DataType] | None = None
    ) -> None:
        """Let columns come in the shown types from now on; `stored` has those that differ."""
        self._shown, self._stored = shown, stored or {}

    def names(self) -> list[str]:
        """See Source."""
        return self._source.names()

    def schema(self, columns: list[str]) -> pa.Schema:
        """See Source."""
        types = self._shown
        others = self._source.schema([name for name in columns if name not in types])
        known = {**{field.name: plain(field.type) for field in others}, **types}
        return pa.schema([pa.field(name, known[name]) for name in columns])

    def stored_schema(self, columns: list[str]) -> pa.Schema:
        """Return the types in which the dataset stores columns."""
        return pa.schema([self._as_stored(field) for field in self.schema(columns)])

    def stored(self, rows: pa.RecordBatch) -> pa.RecordBatch:
        """Return rows, or some columns of them, in the types in which the dataset stores them.

        Raises:
            SourceError: a type cannot hold a value, which the source did not have before.
        """
        if not any(name in self._stored for name in rows.schema.names):
            return rows
        schema = pa.schema([self._as_stored(field) for field in rows.schema])
        arrays = list[pa.Array]()
        for array, field in zip(rows.columns, schema, strict=True):
            try:
                arrays.append(converted(array, field.type))
            except UnfitError as error:
                message = (
                    f"source: the column {printable(field.name)!r} of {self.url} is "
                    f"{field.type} in the dataset, and has {literal(error.value)} now; start again."
                )
                raise SourceError(message) from error
        return pa.RecordBatch.from_arrays(arrays, schema=schema)

    def _as_stored(self, field: pa.Field) -> pa.Field:
        return field.with_type(self._stored.get(field.name, field.type))

    def tonight(self, column: str) -> pa.DataType:
        """Return the type that a column has in the source, whatever is declared."""
        return plain(self._source.schema([column]).field(0).type)

    def batches(self, columns: list[str]) -> Iterator[Block]:
        """See Source.

        Raises:
            SourceError: also for a value that its declared type cannot hold.
        """
        schema = self.schema(columns)
        for block in self._source.batches(columns):
            arrays = [_converted(block.rows.column(f.name), f, block.place) for f in schema]
            rows = pa.RecordBatch.from_arrays(arrays, schema=schema)
            yield Block(rows, block.place, block.number)

    def values(self, column: str) -> Iterator[pa.Array]:
        """Yield one column in its type of tonight, in blocks of rows."""
        kind = self.tonight(column)
        for block in self._source.batches([column]):
            yield converted(block.rows.column(column), kind)


def _converted(array: pa.Array, field: pa.Field, place: Place) -> pa.Array:
    try:
        return converted(array, field.type)
    except UnfitError as error:
        kind = f"{type_name(field.type)} in the dataset"
        row, problem = place.row + error.place, "none of that type"
        raise unfit(place.file, row, field.name, kind, error.value, problem, "fix it") from error
