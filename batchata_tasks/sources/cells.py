"""The types that a spec may give to columns of text, and the conversion of their cells."""

from __future__ import annotations

import io

import pyarrow as pa
import pyarrow.csv as pacsv

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
    """Whether the CSV reader reads all cells: it is asked, so that its rules need no copy."""
    stream = io.BytesIO()
    pacsv.write_csv(pa.table({"cell": texts}), stream)
    stream.seek(0)
    try:
        pacsv.read_csv(
            stream,
            parse_options=pacsv.ParseOptions(newlines_in_values=True),
            convert_options=pacsv.ConvertOptions(
                column_types={"cell": kind}, strings_can_be_null=False, null_values=[""]
            ),
        )
    except pa.ArrowInvalid:
        return False
    return True
