"""Values of databases that Arrow would take as they are, and that are not what they look like."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from batchata_tasks.common.arrow_types import plain
from batchata_tasks.common.json_columns import is_json, json_of, json_text
from batchata_tasks.sources.source import unfit

if TYPE_CHECKING:
    from batchata_tasks.sources.source import Place

_REMEDY = "cast it in the query, or leave it out"
_BITS_OF_DATES = 32


def checked(batch: pa.RecordBatch, schema: pa.Schema, place: Place) -> pa.RecordBatch:
    """Return rows of a query in the types of a schema, with texts of JSON as JSON.

    Raises:
        SourceError: a value that is no moment (infinity), no number of its type, or no JSON.
    """
    arrays = list[pa.Array]()
    for field, array in zip(schema, batch.columns, strict=True):
        if is_json(field.type):
            arrays.append(_json(array, field.name, place))
            continue
        kind = plain(array.type)
        if "decimal" in str(kind):  # also within lists and objects
            _refuse_long_decimals(array, field.name, place)
        if pa.types.is_date32(kind) or pa.types.is_timestamp(kind):
            _refuse_infinity(array, field.name, place)
        arrays.append(array)
    return pa.RecordBatch.from_arrays(arrays, [field.name for field in schema])


def _json(array: pa.Array, name: str, place: Place) -> pa.Array:
    texts = list[bytes | None]()
    for row, text in enumerate(array.to_pylist(), place.row):
        try:
            # as JSON lines are read: the JSON null is a null, and no digit of a number is lost
            texts.append(None if text is None else json_text(json.loads(text), from_json=False))
        except (ValueError, RecursionError) as error:
            raise unfit(place.file, row, name, "JSON", text, f"none ({error})", _REMEDY) from error
    return json_of(pa.array(texts, pa.string()))


def _refuse_infinity(array: pa.Array, name: str, place: Place) -> None:
    """Refuse the moments that stand for infinity: as numbers, they are the largest ones."""
    bits = array.type.bit_width
    numbers = array.view(pa.int32() if bits == _BITS_OF_DATES else pa.int64())
    most = 2 ** (bits - 1) - 1
    is_infinite = pc.equal(pc.abs(numbers), pa.scalar(most, numbers.type))
    if pc.any(is_infinite).as_py():
        row = pc.index(is_infinite, pa.scalar(value=True)).as_py()
        kind = "date" if bits == _BITS_OF_DATES else "timestamp"
        raise unfit(place.file, place.row + row, name, kind, "infinity", "none", _REMEDY)


def _refuse_long_decimals(array: pa.Array, name: str, place: Place) -> None:
    """Refuse numbers of more digits than their type has, which HUGEINT's may be."""
    try:
        array.validate(full=True)
    except pa.ArrowInvalid:
        for row in range(len(array)):
            try:
                array.slice(row, 1).validate(full=True)
            except pa.ArrowInvalid as error:
                value, problem = array[row].as_py(), "has more digits than fit"
                raise unfit(
                    place.file, place.row + row, name, str(array.type), value, problem, _REMEDY
                ) from error
        raise
