"""The kinds of frames that `enrich` takes and gives back: pandas, Polars, Arrow, DuckDB.

None of their libraries is imported for a frame of another one.
"""

from __future__ import annotations

import sys
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

import pyarrow as pa

from batchata_tasks.common.errors import SpecError
from batchata_tasks.sources.duckdb_rows import DuckDbRelation
from batchata_tasks.sources.memory import MemoryTable, SpooledTable
from batchata_tasks.sources.python_values import column_of
from batchata_tasks.sources.spool import Spool

if TYPE_CHECKING:
    from collections.abc import Iterator

    from batchata_tasks.sources.source import Source


class Frame(Protocol):
    """A table that a program has in memory."""

    kind: str
    names: list[str]
    source: Source

    def with_columns(self, columns: pa.Table) -> Any:
        """Return the same rows, in the same order, with further columns, as the same kind."""
        ...


def frame_of(value: object) -> Frame:
    """Return a frame of any kind that is known.

    Raises:
        SpecError: it is none of them, or has two columns of one name.
    """
    for base in type(value).__mro__:
        library = base.__module__.partition(".")[0]
        if (kind := _KINDS.get((library, base.__name__))) is not None:
            found = kind(value)
            if doubled := sorted({n for n in found.names if found.names.count(n) > 1}):
                message = f"frame: it has two columns named {doubled[0]!r}; rename one."
                raise SpecError(message)
            return found
    message = (
        f"frame: a {type(value).__name__} is no frame; give a pandas or Polars frame, an Arrow "
        "table or reader, a DuckDB relation, or a path."
    )
    raise SpecError(message)


class PandasFrame:
    """A DataFrame of pandas. The names of its index may be key columns, too."""

    kind = "pandas"

    def __init__(self, frame: Any) -> None:
        self._frame = frame
        self.names = [name for name in frame.columns if isinstance(name, str)]
        levels = [n for n in frame.index.names if isinstance(n, str) and n not in self.names]
        columns = {name: partial(self._column, name) for name in self.names}
        columns |= {name: partial(self._level, name) for name in levels}
        self.source: Source = MemoryTable(columns, len(frame))

    def _column(self, name: str) -> Any:
        return _from_pandas(self._frame[name])

    def _level(self, name: str) -> Any:
        return _from_pandas(self._frame.index.get_level_values(name).to_series())

    def with_columns(self, columns: pa.Table) -> Any:
        """See Frame; integers and truths are of pandas' types that have nulls."""
        pandas: Any = sys.modules["pandas"]
        simple = {
            pa.int64(): pandas.Int64Dtype(),
            pa.int32(): pandas.Int32Dtype(),
            pa.bool_(): pandas.BooleanDtype(),
        }

        def kind_of(kind: pa.DataType) -> Any:
            return pandas.ArrowDtype(kind) if pa.types.is_nested(kind) else simple.get(kind)

        made = columns.to_pandas(types_mapper=kind_of)
        frame = self._frame.copy(deep=False)
        for name in columns.column_names:
            frame[name] = made[name].array
        return frame


def _from_pandas(series: Any) -> Any:
    """Return a column of pandas as Arrow's; NaN is a null, as pandas means it."""
    if series.dtype != object:
        return pa.Array.from_pandas(series)
    pandas: Any = sys.modules["pandas"]
    empty = (None, pandas.NA, pandas.NaT)
    return column_of(
        [None if any(v is e for e in empty) or _is_nan(v) else v for v in series.tolist()]
    )


def _is_nan(value: object) -> bool:
    return isinstance(value, float) and value != value  # noqa: PLR0124 - NaN alone is no equal


class PolarsFrame:
    """A DataFrame of Polars."""

    kind = "Polars"

    def __init__(self, frame: Any) -> None:
        self._frame = frame
        self.names = list(frame.columns)
        columns = {name: partial(self._column, name) for name in self.names}
        self.source: Source = MemoryTable(columns, frame.height)

    def _column(self, name: str) -> Any:
        column = self._frame.get_column(name)
        if "Object" in str(column.dtype):  # as Arrow's these are addresses in memory
            message = f"it is {column.dtype}"
            raise TypeError(message)
        return column.to_arrow()

    def with_columns(self, columns: pa.Table) -> Any:
        """See Frame."""
        polars: Any = sys.modules["polars"]
        return self._frame.hstack(polars.from_arrow(columns).get_columns())


class PolarsLazyFrame(PolarsFrame):
    """A LazyFrame of Polars; it is collected once."""

    def __init__(self, frame: Any) -> None:
        super().__init__(frame.collect())

    def with_columns(self, columns: pa.Table) -> Any:
        """See Frame."""
        return super().with_columns(columns).lazy()


class ArrowTable:
    """A Table of Arrow."""

    kind = "Arrow"

    def __init__(self, table: Any) -> None:
        self._table = table
        self.names: list[str] = list(table.schema.names)
        columns = {name: partial(table.column, name) for name in self.names}
        self.source: Source = MemoryTable(columns, table.num_rows)

    def with_columns(self, columns: pa.Table) -> Any:
        """See Frame."""
        table = self._table
        for field in columns.schema:
            table = table.append_column(field, columns[field.name])
        return table


class ArrowBatch(ArrowTable):
    """A RecordBatch of Arrow."""

    def with_columns(self, columns: pa.Table) -> Any:
        """See Frame."""
        arrays = [columns[name].combine_chunks() for name in columns.column_names]
        schema = pa.schema([*self._table.schema, *columns.schema])
        return pa.RecordBatch.from_arrays([*self._table.columns, *arrays], schema=schema)


class ArrowReader:
    """A RecordBatchReader of Arrow, which can be read once: its rows are kept aside."""

    kind = "Arrow"

    def __init__(self, reader: Any) -> None:
        self._schema: pa.Schema = reader.schema
        self.names: list[str] = list(self._schema.names)
        self._spool = Spool(reader)
        self.source: Source = SpooledTable(self._spool, self._schema)

    def with_columns(self, columns: pa.Table) -> Any:
        """See Frame."""
        schema = pa.schema([*self._schema, *columns.schema])

        def batches() -> Iterator[pa.RecordBatch]:
            first = 0
            for batch in self._spool.batches(self.names):
                more = columns.slice(first, batch.num_rows)
                arrays = [more[name].combine_chunks() for name in more.column_names]
                yield pa.RecordBatch.from_arrays([*batch.columns, *arrays], schema=schema)
                first += batch.num_rows

        return pa.RecordBatchReader.from_batches(schema, batches())


class Relation:
    """A relation of DuckDB; it is asked once."""

    kind = "DuckDB"

    def __init__(self, relation: Any) -> None:
        self.names: list[str] = list(relation.columns)
        self._rows = DuckDbRelation(relation)
        self.source: Source = self._rows

    def with_columns(self, columns: pa.Table) -> Any:
        """See Frame."""
        return self._rows.with_columns(columns)


_KINDS: dict[tuple[str, str], Any] = {
    ("pandas", "DataFrame"): PandasFrame,
    ("polars", "DataFrame"): PolarsFrame,
    ("polars", "LazyFrame"): PolarsLazyFrame,
    ("pyarrow", "Table"): ArrowTable,
    ("pyarrow", "RecordBatch"): ArrowBatch,
    ("pyarrow", "RecordBatchReader"): ArrowReader,
    ("duckdb", "DuckDBPyRelation"): Relation,
    ("_duckdb", "DuckDBPyRelation"): Relation,
}
