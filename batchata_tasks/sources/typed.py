"""A source in the types that the dataset declares: what comes after sees these alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa

from batchata_tasks.common.arrow_types import plain
from batchata_tasks.common.widening import UnfitError, converted
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
        self._declared: Mapping[str, pa.DataType] = {}
        self.url = source.url

    def declare(self, types: Mapping[str, pa.DataType]) -> None:
        """Let columns come in these types from now on."""
        self._declared = types

    def names(self) -> list[str]:
        """See Source."""
        return self._source.names()

    def schema(self, columns: list[str]) -> pa.Schema:
        """See Source."""
        types = self._declared
        others = self._source.schema([name for name in columns if name not in types])
        known = {**{field.name: plain(field.type) for field in others}, **types}
        return pa.schema([pa.field(name, known[name]) for name in columns])

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
            yield Block(pa.RecordBatch.from_arrays(arrays, schema=schema), block.place)

    def values(self, column: str) -> Iterator[pa.Array]:
        """Yield one column in its type of tonight, in blocks of rows."""
        kind = self.tonight(column)
        for block in self._source.batches([column]):
            yield converted(block.rows.column(column), kind)


def _converted(array: pa.Array, field: pa.Field, place: Place) -> pa.Array:
    try:
        return converted(array, field.type)
    except UnfitError as error:
        row, name, kind = place.row + error.place, field.name, f"{field.type} in the dataset"
        problem = "none of that type"
        raise unfit(place.file, row, name, kind, error.value, problem, "fix it") from error
