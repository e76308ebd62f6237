"""Quotes in a CSV file that are not closed, or not where a cell ends.

Arrow takes what follows such a quote as part of the cell, without a word, and whole rows with it.
That makes a cell of several lines. Few files have any: the quotes of those are looked at by
Python's reader, which is strict about them.
"""

from __future__ import annotations

import csv
import io
from functools import partial
from typing import TYPE_CHECKING, Any

from batchata_tasks.common.errors import SourceError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from batchata_tasks.sources.csv_format import CsvFormat
    from batchata_tasks.sources.files import File

_BLOCK_BYTES = 1 << 20
_LONGEST = 1 << 27  # characters of a cell; more than a row may have


def require_closed(file: File, form: CsvFormat, rows: int, *, spans_lines: bool) -> None:
    """Refuse a file with a quote that takes more than its own line into a cell.

    `rows` is how many the file has, and `spans_lines` whether a cell that was read has several
    lines. In a file on this machine, whose lines are quickly counted, such cells of columns that
    were not read are found, too.

    Raises:
        SourceError: with the row.
    """
    if form.quote is None or not (spans_lines or _may_span_lines(file, rows, form)):
        return
    csv.field_size_limit(_LONGEST)
    with file.lines() as stream:
        text = io.TextIOWrapper(stream, form.encoding, errors="replace", newline="")
        _check(
            csv.reader(
                text, delimiter=form.delimiter_in(file.ending), quotechar=form.quote, strict=True
            ),
            file.name,
            form,
        )


def _check(reader: Any, name: str, form: CsvFormat) -> None:
    row, line = 0 if form.header is True else 1, 0
    while True:
        try:
            record = next(reader, None)
        except csv.Error as error:
            if reader.line_num > line + 1:
                message = (
                    f"source: {name} row {row}: it has a quote that is never closed, or not "
                    f"where a cell ends ({error}), so that what follows would be part of a cell; "
                    "close it, write a quote within a cell twice, or, if quotes are text in this "
                    "file, set `csv: {quote: null}`."
                )
                raise SourceError(message) from error
            record = [""]
        if record is None:
            return
        row += bool(record)  # of an empty line Arrow makes no row
        line = reader.line_num


def _may_span_lines(file: File, rows: int, form: CsvFormat) -> bool:
    """Whether a file on this machine has more lines than rows, which are empty or within cells."""
    if not file.is_local:
        return False
    with file.opened() as stream:
        blocks: Iterator[bytes] = iter(partial(stream.read, _BLOCK_BYTES), b"")
        lines = sum(block.count(b"\n") for block in blocks)
    return lines > rows + (form.header is True)
