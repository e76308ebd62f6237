"""Tables of JSON objects, one a line."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from functools import cached_property
from typing import TYPE_CHECKING, Any, cast

import orjson
import pyarrow as pa

from batchata_tasks.common.errors import SourceError
from batchata_tasks.common.text import is_unicode, printable
from batchata_tasks.sources.source import (
    BATCH_ROWS,
    Block,
    Place,
    ReadOptions,
    errors_of,
    unfit,
)
from batchata_tasks.sources.unify import unified

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from batchata_tasks.sources.files import File

_INT64 = 2**63
_LONG_INTEGER = re.compile(rb"[0-9]{19}")
_NO_COLUMN = (pa.ArrowException, OverflowError, UnicodeEncodeError)
_PLAIN: dict[frozenset[type], pa.DataType] = {
    frozenset(): pa.null(),
    frozenset({str}): pa.string(),
    frozenset({bool}): pa.bool_(),
    frozenset({int}): pa.int64(),
    frozenset({float}): pa.float64(),
    frozenset({int, float}): pa.float64(),
}
_WORDS: dict[type, str] = {
    str: "text",
    bool: "true or false",
    int: "a number",
    float: "a number",
    list: "a list",
    dict: "an object",
}


class JsonLines:
    """A file of JSON objects, as a Source. Objects and lists of one column are of one type."""

    def __init__(self, file: File, options: ReadOptions) -> None:
        del options  # values say themselves what they are
        self._file = file
        self.url = file.name

    def names(self) -> list[str]:
        """See Source; the whole file is read, since any line may bring a new name."""
        return list(self._kinds)

    @cached_property
    def _kinds(self) -> dict[str, set[type]]:
        """The kinds of values of each column: which columns will be used is not known yet."""
        kinds: dict[str, set[type]] = defaultdict(set)
        for first, rows in self._blocks():
            for number, row in enumerate(rows, first):
                for name, value in cast("dict[str, object]", row).items():
                    if name not in kinds and not is_unicode(name):
                        message = (
                            f"source: {self.url} row {number}: the name of the column "
                            f"{printable(name)!r} has half of a surrogate pair ({name!a:.60}); "
                            "fix it."
                        )
                        raise SourceError(message)
                    kinds[name].add(type(value))
        return dict(kinds)

    def schema(self, columns: list[str]) -> pa.Schema:
        """See Source. A column of nulls alone has Arrow's null type."""
        kinds = {name: frozenset(self._kinds[name] - {type(None)}) for name in columns}
        inferred = self._inferred([name for name in columns if kinds[name] not in _PLAIN])
        types = {**inferred, **{n: _PLAIN[kind] for n, kind in kinds.items() if kind in _PLAIN}}
        return pa.schema([(name, types[name]) for name in columns])

    def _inferred(self, columns: list[str]) -> dict[str, pa.DataType]:
        """Find the types of columns whose values have to be looked at, over all blocks."""
        types: dict[str, pa.DataType] = dict.fromkeys(columns, pa.null())
        if not columns:
            return types
        for first, rows in self._blocks():
            for name in columns:
                values = [row.get(name) for row in rows]
                try:
                    kind = unified(types[name], pa.infer_type(values))
                except _NO_COLUMN:
                    kind = None
                if kind is None:
                    raise self._misfit(name, values, first, types[name])
                types[name] = kind
        return types

    def batches(self, columns: list[str]) -> Iterator[Block]:
        """See Source."""
        schema = self.schema(columns)
        for first, rows in self._blocks():
            arrays: list[pa.Array] = []
            for field in schema:
                values = [row.get(field.name) for row in rows]
                try:
                    arrays.append(pa.array(values, type=field.type))
                except _NO_COLUMN as error:
                    raise self._misfit(field.name, values, first, field.type) from error
            yield Block(pa.RecordBatch.from_arrays(arrays, schema=schema), Place(self.url, first))

    def _misfit(
        self, name: str, values: Sequence[object], first: int, kind: pa.DataType
    ) -> SourceError:
        """Return the error for the first of some values that fits no column, or not this one.

        `kind` is the type of what came before, or of the whole column.
        """
        for number, value in enumerate(values, first):
            if (problem := _unusable(value)) is not None:
                what, remedy = problem
                message = (
                    f"source: {self.url} row {number}: the column {printable(name)!r} has {what}; "
                    f"{remedy}."
                )
                return SourceError(message)
            if (wider := _with_value(kind, value)) is None:
                word, remedy = _described(kind, value)
                return unfit(self.url, number, name, _named(kind), value, word, remedy)
            kind = wider
        return SourceError(
            f"source: {self.url}: the column {printable(name)!r} has values of several types, from "
            f"row {first} on."
        )

    def _blocks(self) -> Iterator[tuple[int, list[dict[str, Any]]]]:
        """Yield blocks as (number of the first row, rows); blank lines are no rows."""
        block: list[dict[str, Any]] = []
        first = 1
        with errors_of(self.url), self._file.lines() as stream:
            for number, line in enumerate(stream, 1):
                if not line.strip():
                    continue
                block.append(self._row(line, number))
                if len(block) == BATCH_ROWS:
                    yield first, block
                    first, block = first + BATCH_ROWS, []
        if block:
            yield first, block

    def _row(self, line: bytes, number: int) -> dict[str, Any]:
        row: Any = None
        try:
            # orjson rounds integers of more than 64 bits, and refuses some lines that were read
            # by the first versions: NaN, halves of surrogate pairs in columns that nobody uses
            row = json.loads(line) if _LONG_INTEGER.search(line) else orjson.loads(line)
        except (ValueError, RecursionError):
            try:
                row = json.loads(line)
            except (ValueError, RecursionError) as error:
                message = f"source: {self.url} line {number} is not valid JSON: {error}"
                raise SourceError(message) from None
        if not isinstance(row, dict):
            message = f"source: {self.url} line {number} is not a JSON object."
            raise SourceError(message)
        return cast("dict[str, Any]", row)


def _with_value(kind: pa.DataType, value: object) -> pa.DataType | None:
    """Return the type of a column with one more value; None if they do not go together."""
    try:
        wider = unified(kind, pa.infer_type([value]))
        if wider is not None:
            pa.array([value], type=wider)
    except _NO_COLUMN:
        return None
    return wider


def _described(kind: pa.DataType, value: object) -> tuple[str, str]:
    """Return what a value is that does not fit its column, in words, and the remedy."""
    word = next((text for one, text in _WORDS.items() if type(value) is one), "of another type")
    if pa.types.is_floating(kind) and type(value) is int:
        return "an integer that would be rounded", "write all of the column in quotes"
    if pa.types.is_string(kind) and type(value) in (bool, int, float):
        return word, "fix it, or write it in quotes"
    return word, "fix it"


def _named(kind: pa.DataType) -> str:
    """Return a column's type in words for people."""
    if pa.types.is_string(kind):
        return "text"
    if pa.types.is_integer(kind) or pa.types.is_floating(kind):
        return "a number"
    if pa.types.is_boolean(kind):
        return "true or false"
    if pa.types.is_list(kind):
        return f"a list ({kind})"
    return f"an object ({kind})" if pa.types.is_struct(kind) else str(kind)


def _unusable(value: object) -> tuple[str, str] | None:
    """Return what no column can hold of a value, and the remedy; None if it is fine."""
    match value:
        case str() if not is_unicode(value):
            return f"a text with half of a surrogate pair ({value!a:.60})", "fix it"
        case int() if not -_INT64 <= value < _INT64:
            what = f"an integer beyond 64 bits ({value!s:.60})"
            return what, "write it as a text, in quotes"
        case list():
            parts = cast("list[object]", value)
        case dict():
            pairs = cast("dict[str, object]", value)
            parts = [*pairs, *pairs.values()]
        case _:
            parts = []
    return next((problem for part in parts if (problem := _unusable(part)) is not None), None)
