"""Tables of JSON objects, one a line.

Texts, numbers and truths make columns of one kind each, lists of one kind of them columns of lists.
All else, objects and other lists, is JSON: each row has just what its line says.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, cast

import orjson
import pyarrow as pa

from batchata_tasks.common import widening
from batchata_tasks.common.arrow_types import is_list
from batchata_tasks.common.errors import SourceError
from batchata_tasks.common.json_columns import JSON, is_json, json_of, json_text
from batchata_tasks.common.text import is_unicode, printable
from batchata_tasks.sources.json_words import described, named, unusable
from batchata_tasks.sources.source import (
    BATCH_ROWS,
    Block,
    Place,
    ReadOptions,
    errors_of,
    unfit,
)

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Iterator

    from batchata_tasks.sources.files import File

# an integer of 19 digits may be of more than 64 bits
_DIGITS_AS_0 = bytes(ord("0") if chr(byte).isdecimal() else ord(" ") for byte in range(256))
_LONG_INTEGER = b"0" * 19
_MOST_SHAPES = 10_000  # of rows, kept to know others of the same shape
_BLOCK_BYTES = 1 << 25  # of lines: some hold whole documents
_NO_COLUMN = (pa.ArrowException, OverflowError, ValueError)
_NULL = type(None)
_NUMBERS = frozenset[type]({int, float})
_SCALARS: dict[frozenset[type], pa.DataType] = {
    frozenset(): pa.null(),
    frozenset({str}): pa.string(),
    frozenset({bool}): pa.bool_(),
    frozenset({int}): pa.int64(),
    frozenset({float}): pa.float64(),
    _NUMBERS: pa.float64(),
}
_OF_ONE_KIND = _SCALARS.keys() - {_NUMBERS}
_LIST, _OBJECT = frozenset[type]({list}), frozenset[type]({dict})


def joined(one: pa.DataType, other: pa.DataType) -> pa.DataType | None:
    """Return the type of a column that has two types in two files; None if there is none.

    It is the same as if the lines stood in one file.
    """
    if is_list(one) and is_list(other):
        kinds = {one.value_type, other.value_type} - {pa.null()}
        if len(kinds) > 1:  # integers and floats, too: a list keeps its numbers as they are
            return JSON
    return widening.joined(one, other)


@dataclass
class _Kinds:
    """The kinds of values in a column, and of the items in its lists."""

    values: set[type] = field(default_factory=set[type])
    items: set[type] = field(default_factory=set[type])

    def add(self, value: object) -> None:
        self.values.add(type(value))
        if isinstance(value, list):
            self.items.update(map(type, cast("list[object]", value)))

    def type(self) -> pa.DataType | None:
        """Return the type of a column of such values; None if there is none."""
        kinds = frozenset(self.values - {_NULL})
        if kinds in _SCALARS:
            return _SCALARS[kinds]
        items = frozenset(self.items - {_NULL})
        if kinds == _LIST and items in _OF_ONE_KIND:
            return pa.list_(_SCALARS[items])
        return JSON if kinds <= _LIST | _OBJECT else None


class JsonLines:
    """A file of JSON objects, as a Source."""

    def __init__(self, file: File, options: ReadOptions) -> None:
        del options  # values say themselves what they are
        self._file = file
        self.url = file.name

    def names(self) -> list[str]:
        """See Source; the whole file is read, since any line may bring a new name."""
        return list(self._kinds)

    @cached_property
    def _kinds(self) -> dict[str, _Kinds]:
        """The kinds of values of each column: which columns will be used is not known yet."""
        kinds = dict[str, _Kinds]()
        shapes = set[tuple[tuple[str, ...], tuple[type, ...]]]()
        for number, (row, _, _) in enumerate(self._lines(), 1):
            shape = tuple(row), tuple(map(type, row.values()))
            if shape not in shapes:  # most rows look like others
                if len(shapes) == _MOST_SHAPES:
                    shapes.clear()
                shapes.add(shape)
                for name, kind in zip(*shape, strict=True):
                    self._add(kinds, name, kind, number)
            if list in shape[1]:
                for name, value in row.items():
                    if type(value) is list:
                        kinds[name].items.update(map(type, cast("list[object]", value)))
        return kinds

    def _add(self, kinds: dict[str, _Kinds], name: str, kind: type, number: int) -> None:
        """Add the kind of a value; the row's number is for errors."""
        if name not in kinds:
            if not is_unicode(name):
                message = (
                    f"source: {self.url} row {number}: the name of the column {printable(name)!r} "
                    f"has half of a surrogate pair ({name!a:.60}); fix it."
                )
                raise SourceError(message)
            kinds[name] = _Kinds()
        kinds[name].values.add(kind)

    def schema(self, columns: list[str]) -> pa.Schema:
        """See Source. A column of nulls alone has Arrow's null type."""
        return pa.schema([(name, self._type(name)) for name in columns])

    def _type(self, name: str) -> pa.DataType:
        if (kind := self._kinds[name].type()) is None:
            raise self._conflict(name)
        return kind

    def batches(self, columns: list[str]) -> Iterator[Block]:
        """See Source."""
        schema = self.schema(columns)
        first, size = 1, 0
        values: list[list[Any]] = [[] for _ in schema]
        plain = [(f.name, v) for f, v in zip(schema, values, strict=True) if not is_json(f.type)]
        texts = [(f, v) for f, v in zip(schema, values, strict=True) if is_json(f.type)]
        for number, (row, strict, length) in enumerate(self._lines(), 1):
            for name, items in plain:
                items.append(row.get(name))
            for column, items in texts:
                items.append(self._text(column, row.get(column.name), number, strict=strict))
            size += length
            if number - first + 1 == BATCH_ROWS or size > _BLOCK_BYTES:
                yield self._block(schema, values, first)
                first, size = number + 1, 0
                for items in values:
                    items.clear()
        if values and values[0]:
            yield self._block(schema, values, first)

    def _block(self, schema: pa.Schema, values: list[list[Any]], first: int) -> Block:
        arrays = list[pa.Array]()
        for column, items in zip(schema, values, strict=True):
            try:
                if is_json(column.type):
                    arrays.append(json_of(pa.array(items, pa.string())))
                else:
                    arrays.append(pa.array(items, column.type))
            except _NO_COLUMN as error:
                raise self._misfit(column, items, first) from error
        return Block(pa.RecordBatch.from_arrays(arrays, schema=schema), Place(self.url, first))

    def _text(self, column: pa.Field, value: object, number: int, *, strict: bool) -> bytes | None:
        """Return the JSON of a value; it is made at once, so that no objects pile up."""
        try:
            return json_text(value, from_json=strict)
        except ValueError as error:
            raise self._misfit(column, [value], number) from error

    def _conflict(self, name: str) -> SourceError:
        """Return the error for the first value that does not go together with those before it."""
        kinds = _Kinds()
        for number, (row, _, _) in enumerate(self._lines(), 1):
            value, before, found = row.get(name), kinds.type(), set(kinds.values)
            kinds.add(value)
            if kinds.type() is None and before is not None:
                return self._unfit(number, name, value, before, found)
        return self._several_types(name)

    def _misfit(self, column: pa.Field, values: Iterable[object], first: int) -> SourceError:
        """Return the error for the first of some values that its column cannot hold."""
        for number, value in enumerate(values, first):
            if (problem := unusable(value, column.type)) is not None:
                what, remedy = problem
                message = (
                    f"source: {self.url} row {number}: the column {printable(column.name)!r} has "
                    f"{what}; {remedy}."
                )
                return SourceError(message)
            try:
                if not is_json(column.type):
                    pa.array([value], type=column.type)
            except _NO_COLUMN:
                return self._unfit(number, column.name, value, column.type)
        return self._several_types(column.name)

    def _unfit(
        self,
        number: int,
        name: str,
        value: object,
        kind: pa.DataType,
        found: Container[type] = (list, dict),
    ) -> SourceError:
        """Return the error for a value; `found` are the kinds of its column's values before it."""
        word, remedy = described(kind, value)
        return unfit(self.url, number, name, named(kind, found), value, word, remedy)

    def _several_types(self, name: str) -> SourceError:
        message = f"source: {self.url}: the column {printable(name)!r} has values of several types."
        return SourceError(message)

    def _lines(self) -> Iterator[tuple[dict[str, Any], bool, int]]:
        """Yield (row, whether it is strict JSON, bytes) of each line; blank lines are no rows."""
        loads = orjson.loads
        with errors_of(self.url), self._file.lines() as stream:
            for number, line in enumerate(stream, 1):
                try:
                    is_plain = _LONG_INTEGER not in line.translate(_DIGITS_AS_0)
                    row: Any = loads(line) if is_plain else None
                except ValueError:
                    row = None
                is_object = type(row) is dict
                if is_object:
                    yield row, True, len(line)
                elif not line.isspace():
                    yield self._row(line, number), False, len(line)

    def _row(self, line: bytes, number: int) -> dict[str, Any]:
        """Return the object of a line that orjson would change, or refuses.

        It rounds integers of more than 64 bits. NaN, and halves of surrogate pairs, are no JSON,
        and may stand in columns that nobody uses.
        """
        try:
            row: Any = json.loads(line)
        except (ValueError, RecursionError) as error:
            message = f"source: {self.url} line {number} is not valid JSON: {error}"
            raise SourceError(message) from None
        if not isinstance(row, dict):
            message = f"source: {self.url} line {number} is not a JSON object."
            raise SourceError(message)
        return cast("dict[str, Any]", row)
