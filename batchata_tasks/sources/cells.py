"""The types that a spec may give to columns of text, and the conversion of their cells."""

from __future__ import annotations

import io
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.csv as pacsv

from batchata_tasks.sources.source import Place, unfit

if TYPE_CHECKING:
    from batchata_tasks.common.errors import SourceError

DATETIME = pa.timestamp("us", tz="UTC")
TYPES: dict[str, pa.DataType] = {
    "str": pa.string(),
    "int": pa.int64(),
    "float": pa.float64(),
    "bool": pa.bool_(),
    "date": pa.date32(),
    "datetime": DATETIME,
    "decimal": pa.decimal128(38, 9),
}


def typed_cells(texts: pa.Array, kind: str, column: str, place: Place) -> pa.Array:
    """Return texts, such as a CSV file has, as a type that `types` gives; an empty one is null.

    In a column of texts it is the empty text.

    Raises:
        SourceError: the first cell that is none of that type.
    """
    if kind == "str":
        return texts
    if kind == "datetime":
        cells = enumerate(texts.to_pylist(), place.row)
        moments = [_moment(text, column, Place(place.file, row)) for row, text in cells]
        return pa.array(moments, DATETIME)
    parsed = _parsed(texts, TYPES[kind])
    if parsed is None:
        at = first_unfit(texts, TYPES[kind]) or 0
        raise unfit_cell(place.file, place.row + at, column, kind, texts[at].as_py())
    return parsed


def _moment(text: str, column: str, place: Place) -> datetime | None:
    """Read ISO 8601; without a zone it is UTC."""
    try:
        moment = datetime.fromisoformat(text) if text else None
    except ValueError as error:
        raise unfit_cell(place.file, place.row, column, "datetime", text) from error
    return moment.replace(tzinfo=UTC) if moment and moment.tzinfo is None else moment


def unfit_cell(file: str, row: int, column: str, kind: str, text: str) -> SourceError:
    """Return the error for a cell that is not of the type that `types` gives."""
    remedy = f"fix the cell, or change {kind} in `types`"
    limits = ", which has up to 29 digits before its point and 9 behind it"
    problem = f"no {kind}{limits if kind == 'decimal' else ''}"
    return unfit(file, row, column, f"given as {kind}", text, problem, remedy)


def first_unfit(texts: pa.Array, kind: pa.DataType) -> int | None:
    """Return the place of the first cell that the CSV reader cannot read as `kind`, if any."""
    if _fits(texts, kind):
        return None
    low, high = 0, len(texts)  # the first is among texts[low:high], and all before it fit
    while high - low > 1:
        middle = (low + high) // 2
        if _fits(texts.slice(low, middle - low), kind):
            low = middle
        else:
            high = middle
    return low


def _fits(texts: pa.Array, kind: pa.DataType) -> bool:
    """Whether the CSV reader reads all cells."""
    return _parsed(texts, kind) is not None


def _parsed(texts: pa.Array, kind: pa.DataType) -> pa.Array | None:
    """Return what the CSV reader reads: it is asked, so that its rules need no copy.

    None if it cannot read a cell.
    """
    stream = io.BytesIO()
    pacsv.write_csv(pa.table({"cell": texts}), stream)
    stream.seek(0)
    try:
        table = pacsv.read_csv(
            stream,
            parse_options=pacsv.ParseOptions(newlines_in_values=True),
            convert_options=pacsv.ConvertOptions(
                column_types={"cell": kind}, strings_can_be_null=False, null_values=[""]
            ),
        )
    except pa.ArrowInvalid:
        return None
    return table["cell"].combine_chunks()
