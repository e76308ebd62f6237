"""How a CSV file is written, found out from its bytes: for a first draft of a spec, never in a run.

A run guesses nothing: what is found here is written into the spec, where people see it.
"""

from __future__ import annotations

import codecs
import csv
import io
from typing import TYPE_CHECKING

from batchata_tasks.sources.csv_format import DELIMITERS, CsvFormat
from batchata_tasks.sources.files import found
from batchata_tasks.sources.registry import kind_of
from batchata_tasks.sources.source import errors_of

if TYPE_CHECKING:
    from batchata_tasks.sources.files import File

_DELIMITERS = ",;\t|"
_SAMPLE_BYTES = 1 << 18
_CHECKED_BYTES = 1 << 28  # of a file's encoding: a run names the row of what comes after that
_BLOCK_BYTES = 1 << 20
_UTF_16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_MOST_NULS = 0.2  # the share of zero bytes that shows a text of two bytes a character


def sniff_csv(url: str) -> CsvFormat | None:
    """Return how the CSV files of a source are written, by the first one; None if it has none.

    Raises:
        SourceError: there is no such file, or it cannot be read.
    """
    with errors_of(url):
        files, is_folder = found(url)
        if is_folder or not files or (kind_of(files[0].ending) or ("",))[0] != "csv":
            return None
        encoding = _encoding(files[0])
        delimiter = _delimiter(_head(files[0], encoding))
        is_usual = all(DELIMITERS.get(file.ending) == delimiter for file in files)
        return CsvFormat(delimiter=None if is_usual else delimiter, encoding=encoding)


def _encoding(file: File) -> str:
    """Return the encoding of a file: UTF-8 if all of it is, else the nearest that reads it."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    western = codecs.getincrementaldecoder("cp1252")()
    is_utf8 = is_western = True
    checked = 0
    with file.opened() as stream:
        while checked < _CHECKED_BYTES and (block := bytes(stream.read(_BLOCK_BYTES))):
            if not checked and (wide := _two_bytes(block)):
                return wide
            checked += len(block)
            is_utf8 = is_utf8 and _decodes(decoder, block)
            is_western = is_western and _decodes(western, block)
    if is_utf8:
        return "utf-8"
    return "cp1252" if is_western else "latin-1"


def _two_bytes(head: bytes) -> str | None:
    """Return the encoding of a text that has two bytes a character; None for other texts."""
    if head.startswith(_UTF_16):
        return "utf-16"
    even, odd = head[::2].count(0), head[1::2].count(0)
    if max(even, odd) <= len(head) * _MOST_NULS:
        return None
    return "utf-16-le" if odd > even else "utf-16-be"


def _decodes(decoder: codecs.IncrementalDecoder, block: bytes) -> bool:
    try:
        decoder.decode(block)
    except UnicodeDecodeError:
        return False
    return True


def _head(file: File, encoding: str) -> str:
    with file.opened() as stream:
        return bytes(stream.read(_SAMPLE_BYTES)).decode(encoding, "ignore").removeprefix("\ufeff")


def _delimiter(head: str) -> str:
    """Return the delimiter by which the most rows are as wide as the header, the widest first."""
    scores = {delimiter: _score(head, delimiter) for delimiter in _DELIMITERS}
    return max(_DELIMITERS, key=lambda delimiter: scores[delimiter])


def _score(head: str, delimiter: str) -> tuple[float, int]:
    """Return the share of the rows that are as wide as the first one, and that width."""
    try:
        rows = [row for row in csv.reader(io.StringIO(head), delimiter=delimiter) if row]
    except csv.Error:  # a cell of more than 128 kB
        return 0.0, 0
    if len(head) == _SAMPLE_BYTES and len(rows) > 1:
        rows.pop()  # the last one may be cut
    width = len(rows[0]) if rows else 0
    if width <= 1:
        return 0.0, width
    return sum(len(row) == width for row in rows) / len(rows), width
