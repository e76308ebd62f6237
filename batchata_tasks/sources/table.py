"""Files as one table: columns are matched by name, and the folders of partitions are columns."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING
from urllib.parse import unquote

import pyarrow as pa

from batchata_tasks.common.arrow_types import plain
from batchata_tasks.common.conversion import UnfitError, converted, value_at
from batchata_tasks.common.errors import SourceError
from batchata_tasks.common.json_columns import type_name
from batchata_tasks.common.text import literal, printable
from batchata_tasks.common.widening import joined
from batchata_tasks.sources.source import BATCH_ROWS, Block, Place, Source, errors_of, unfit

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_NULL_PARTITION = "__HIVE_DEFAULT_PARTITION__"


def partitions_of(folders: tuple[str, ...]) -> dict[str, str | None]:
    """Return the columns in the names of folders such as `day=2026-01-01`, as texts."""
    columns: dict[str, str | None] = {}
    for folder in folders:
        name, is_column, text = folder.partition("=")
        if is_column and name:
            columns[unquote(name)] = None if text == _NULL_PARTITION else unquote(text)
    return columns


@dataclass(frozen=True)
class Part:
    """A file of a table, and the columns that its folders are."""

    source: Source
    partitions: dict[str, str | None]

    @cached_property
    def names(self) -> list[str]:
        """The names of its columns. What a file says itself goes before its folders."""
        names = self.source.names()
        if doubled := sorted({name for name in names if names.count(name) > 1}):
            message = f"source: {self.source.url} has two columns named {doubled[0]!r}; rename one."
            if not doubled[0]:
                message = f"source: {self.source.url} has two columns without a name; name them."
            raise SourceError(message)
        return [*names, *(name for name in self.partitions if name not in names)]

    @cached_property
    def own(self) -> set[str]:
        """The columns that the file has itself."""
        return set(self.source.names())

    def type_of(self, name: str) -> pa.DataType:
        """Return the type of one of its columns."""
        if name not in self.own:
            return pa.null() if self.partitions[name] is None else pa.string()
        return plain(self.source.schema([name]).field(0).type)


class Table:
    """The files that a source names, as a Source: columns that a file lacks are null there.

    `join` is the rule for columns that have two types.
    """

    def __init__(
        self,
        url: str,
        parts: list[Part],
        join: Callable[[pa.DataType, pa.DataType], pa.DataType | None] = joined,
    ) -> None:
        self.url = url
        self._parts = parts
        self._join = join
        self._types: dict[str, pa.DataType] = {}
        self._typed_by: dict[str, str] = {}  # the file that made a column's type, for errors

    def names(self) -> list[str]:
        """See Source."""
        return list(dict.fromkeys(name for part in self._parts for name in part.names))

    def schema(self, columns: list[str]) -> pa.Schema:
        """See Source."""
        for name in columns:
            if name not in self._types:
                self._types[name] = self._joined(name)
        return pa.schema([(name, self._types[name]) for name in columns])

    def _joined(self, name: str) -> pa.DataType:
        kind = pa.null()
        for part in self._parts:
            if name not in part.names:
                continue
            found = part.type_of(name)
            wide = self._join(kind, found)
            if wide is None:
                raise self._conflict(name, kind, part, found)
            if not wide.equals(kind):
                kind, self._typed_by[name] = wide, part.source.url
        return kind

    def _conflict(
        self, name: str, kind: pa.DataType, part: Part, found: pa.DataType
    ) -> SourceError:
        """Return the error for a file whose column is of another type than in files before."""
        example = _example(part, name)
        shown = "" if example is None else f" ({literal(example)})"
        return SourceError(
            f"source: the column {printable(name)!r} is {type_name(kind)} in "
            f"{self._typed_by[name]} and {type_name(found)} in {part.source.url}{shown}; write it "
            "in one type, or name one of the files."
        )

    def batches(self, columns: list[str]) -> Iterator[Block]:
        """See Source."""
        schema = self.schema(columns)
        for part in self._parts:
            own = [name for name in columns if name in part.own]
            # a file of which no column is wanted still has rows
            needed = own or part.source.names()[:1]
            for block in part.source.batches(needed):
                with errors_of(part.source.url):
                    rows = self._fitted(block, part, schema)
                for start in range(0, rows.num_rows, BATCH_ROWS):
                    place = Place(block.place.file, block.place.row + start)
                    # rows of several files are counted through
                    number = place.row if len(self._parts) == 1 else None
                    yield Block(rows.slice(start, BATCH_ROWS), place, number)

    def _fitted(self, block: Block, part: Part, schema: pa.Schema) -> pa.RecordBatch:
        """Return a block of a file in the columns and types of the table."""
        count = block.rows.num_rows
        arrays: list[pa.Array] = []
        for field in schema:
            if field.name in part.own:
                arrays.append(self._cast(block, field))
            else:
                text = part.partitions.get(field.name)
                arrays.append(
                    pa.nulls(count, field.type)
                    if text is None
                    else pa.repeat(pa.scalar(text, field.type), count)
                )
        return pa.RecordBatch.from_arrays(arrays, schema=schema)

    def _cast(self, block: Block, field: pa.Field) -> pa.Array:
        column = block.rows.column(field.name)
        try:
            return converted(column, field.type)
        except UnfitError as error:
            row = block.place.row + error.place
            kind = f"{type_name(field.type)} (by {self._typed_by[field.name]})"
            problem = f"of the type {type_name(column.type)} and does not fit"
            remedy = "write the column in one type in all files"
            file, value = block.place.file, error.value
            raise unfit(file, row, field.name, kind, value, problem, remedy) from error


def _example(part: Part, name: str) -> object:
    """Return a value of a column of a file, for an error."""
    if name not in part.own:
        return part.partitions[name]
    for block in part.source.batches([name]):
        found = block.rows.column(0).drop_null()
        if len(found):
            return value_at(found, 0)
    return None
