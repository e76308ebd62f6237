"""Tables in memory as sources: columns become Arrow's when the spec uses them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pyarrow as pa

from batchata_tasks.common.arrow_types import plain
from batchata_tasks.common.errors import SourceError
from batchata_tasks.common.json_columns import is_json
from batchata_tasks.common.text import printable
from batchata_tasks.sources.python_values import OddValueError
from batchata_tasks.sources.source import BATCH_ROWS, Block, Place, unfit

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from batchata_tasks.sources.spool import Spool

WHERE = "the frame"


class MemoryTable:
    """A table of columns, as a Source. `columns` make them, by name, when they are asked for.

    `rows` is how many there are.
    """

    url = WHERE

    def __init__(self, columns: Mapping[str, Callable[[], Any]], rows: int) -> None:
        self._columns, self._rows = columns, rows
        self._made = dict[str, pa.Array]()

    def names(self) -> list[str]:
        """See Source."""
        return list(self._columns)

    def _column(self, name: str) -> pa.Array:
        """Return a column, made once; an Arrow array of all rows."""
        if name not in self._made:
            try:
                self._made[name] = _whole(self._columns[name]())
            except OddValueError as error:
                raise unfit(
                    WHERE,
                    error.place + 1,
                    name,
                    "of objects",
                    error.value,
                    f"one that {error.problem}",
                    "convert the column",
                ) from error
            except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
                reason = " ".join(str(error).split())[:300].rstrip(".")
                message = (
                    f"source: the column {printable(name)!r} of the frame has no type of Arrow: "
                    f"{reason}; convert the column."
                )
                raise SourceError(message) from error
        return self._made[name]

    def schema(self, columns: list[str]) -> pa.Schema:
        """See Source."""
        return pa.schema([(name, plain(self._column(name).type)) for name in columns])

    def batches(self, columns: list[str]) -> Iterator[Block]:
        """See Source."""
        arrays = [self._column(name) for name in columns]
        for first in range(0, self._rows, BATCH_ROWS):
            cut = [array.slice(first, BATCH_ROWS) for array in arrays]
            yield Block(pa.RecordBatch.from_arrays(cut, columns), Place(WHERE, first + 1))


def _whole(column: Any) -> pa.Array:
    """Return a column in one piece.

    Raises:
        TypeError: it is of a type that one library alone knows.
    """
    if isinstance(column.type, pa.BaseExtensionType) and not is_json(column.type):
        message = f"it is {column.type}"
        raise TypeError(message)
    return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column


class SpooledTable:
    """Rows that could be read only once and were kept aside, as a Source."""

    url = WHERE

    def __init__(self, spool: Spool, schema: pa.Schema) -> None:
        self._spool, self._schema = spool, schema

    def names(self) -> list[str]:
        """See Source."""
        return self._schema.names

    def schema(self, columns: list[str]) -> pa.Schema:
        """See Source."""
        return pa.schema([(name, plain(self._schema.field(name).type)) for name in columns])

    def batches(self, columns: list[str]) -> Iterator[Block]:
        """See Source."""
        first = 1
        for batch in self._spool.batches(columns):
            yield Block(batch, Place(WHERE, first))
            first += batch.num_rows
