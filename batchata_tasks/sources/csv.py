"""CSV files: cells are text unless the spec's `types` says otherwise, and nothing is guessed."""

from __future__ import annotations

import codecs
import re
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv

from batchata_tasks.common.errors import SourceError
from batchata_tasks.sources.cells import DATETIME, TYPES, first_unfit, typed_cells, unfit_cell
from batchata_tasks.sources.csv_format import CsvFormat
from batchata_tasks.sources.csv_quotes import require_closed
from batchata_tasks.sources.source import Block, Place, ReadOptions, errors_of

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    from batchata_tasks.sources.files import File

# the reader's blocks: small ones save memory, and no row may be longer than one
_BLOCK_BYTES = 1 << 20
_LONGEST_ROW = 1 << 26  # 64 MB: more than a model takes
_WRONG_COLUMN = re.compile(r"CSV column #(\d+): ")
_RAGGED = re.compile(r"Row #(\d+): Expected (\d+) columns, got (\d+): (.*)", re.DOTALL)
_TOO_LONG = "straddling"  # in Arrow's error for a row that no block holds
_SHOWN = 80  # characters of a row in an error


class CsvTable:
    """A CSV file, as a Source; columns that `types` does not name are texts."""

    def __init__(self, file: File, options: ReadOptions) -> None:
        self._file = file
        self._form = options.csv or CsvFormat()
        self._types = options.types
        self.url = file.name

    def names(self) -> list[str]:
        """See Source."""
        return self._names

    @cached_property
    def _names(self) -> list[str]:
        if isinstance(self._form.header, list):
            return self._form.header
        with errors_of(self.url):
            try:
                names = self._head(_BLOCK_BYTES)
            except pa.ArrowInvalid as error:
                if _TOO_LONG not in str(error):
                    raise
                names = self._head(_LONGEST_ROW)
        return names if self._form.header else [f"column{i + 1}" for i in range(len(names))]

    def _head(self, block_bytes: int) -> list[str]:
        read = self._reading(block_bytes)
        read.autogenerate_column_names = not self._form.header
        with self._told(read, []), self._reader(read, pacsv.ConvertOptions()) as reader:
            return reader.schema.names

    def schema(self, columns: list[str]) -> pa.Schema:
        """See Source."""
        return pa.schema([(name, TYPES[self._types.get(name, "str")]) for name in columns])

    def batches(self, columns: list[str]) -> Iterator[Block]:
        """See Source."""
        schema = self.schema(columns)
        # Arrow reads times with a zone or without, not both: they are converted from text
        read_as = {f.name: pa.string() if f.type.equals(DATETIME) else f.type for f in schema}
        last, spans_lines, first = self._names[-1], False, 1
        if not self._file.is_local:
            # a quote that is never closed shows in the last column; other files are read through
            read_as.setdefault(last, pa.binary())
        with errors_of(self.url), self._told(self._named(_LONGEST_ROW), columns[:1]):
            for batch in self._batches(read_as):
                rows = self._with_datetimes(batch.select(columns), schema, first)
                yield Block(rows, Place(self.url, first))
                first += batch.num_rows
                spans_lines = spans_lines or (not self._file.is_local and _has_line_ends(batch))
            require_closed(self._file, self._form, first - 1, spans_lines=spans_lines)

    def _batches(self, types: dict[str, pa.DataType]) -> Iterator[pa.RecordBatch]:
        """Yield just these columns, in small blocks as long as rows fit into one."""
        convert = pacsv.ConvertOptions(
            column_types=types,
            include_columns=list(types),
            strings_can_be_null=False,
            null_values=[""],  # "NA" in a typed column is an error, and is not guessed to be null
        )
        done = 0
        for size in (_BLOCK_BYTES, _LONGEST_ROW):
            skip = done
            try:
                with self._reader(self._named(size), convert) as reader:
                    for batch in reader:
                        rest = batch.slice(min(skip, batch.num_rows))
                        skip -= batch.num_rows - rest.num_rows
                        if rest.num_rows:
                            yield rest
                            done += rest.num_rows
            except pa.ArrowInvalid as error:
                if _TOO_LONG not in str(error) or size == _LONGEST_ROW:
                    raise
            else:
                return

    def _named(self, block_bytes: int) -> pacsv.ReadOptions:
        """Return the options for reading rows; a header names its columns itself."""
        read = self._reading(block_bytes)
        if self._form.header is not True:
            read.column_names = self._names
        return read

    def _reading(self, block_bytes: int) -> pacsv.ReadOptions:
        return pacsv.ReadOptions(block_size=block_bytes, encoding=self._form.encoding)

    @contextmanager
    def _reader(
        self, read: pacsv.ReadOptions, convert: pacsv.ConvertOptions
    ) -> Generator[Any, None, None]:
        with (
            self._file.opened() as stream,
            pacsv.open_csv(
                stream, read_options=read, parse_options=self._parsing(), convert_options=convert
            ) as reader,
        ):
            yield reader

    def _parsing(self) -> pacsv.ParseOptions:
        form = self._form
        return pacsv.ParseOptions(
            delimiter=form.delimiter_in(self._file.ending),
            quote_char=form.quote or False,
            newlines_in_values=form.quote is not None,
        )

    def _with_datetimes(
        self, batch: pa.RecordBatch, schema: pa.Schema, first: int
    ) -> pa.RecordBatch:
        """Read ISO 8601 texts of datetime columns: without a zone UTC, empty ones null."""
        for i, name in enumerate(batch.schema.names):
            field = schema.field(name)
            if field.type.equals(DATETIME):
                place = Place(self.url, first)
                moments = typed_cells(batch.column(i), "datetime", name, place)
                batch = batch.set_column(i, field, moments)
        return batch

    @contextmanager
    def _told(self, read: pacsv.ReadOptions, columns: list[str]) -> Generator[None, None, None]:
        """Name the row and the value of what cannot be read: Arrow's errors name neither.

        The options and the columns are for reading again: few columns take little memory.
        """
        try:
            yield
        except pa.ArrowInvalid as error:
            self._require_no_utf_16()
            if (match := _WRONG_COLUMN.search(str(error))) is not None:
                self._raise_unfit(self._names[int(match[1])])
            if "Expected" in str(error):
                self._raise_ragged(read, columns)
            raise

    def _require_no_utf_16(self) -> None:
        """Refuse a file in UTF-16 (Excel's "Unicode text") whose encoding is not named."""
        with self._file.opened() as stream:
            marked = bytes(stream.read(2)) in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
        if marked and codecs.lookup(self._form.encoding).name == "utf-8":
            message = (
                f"source: {self.url} is in UTF-16; save it as UTF-8, or name its encoding: "
                "`csv: {encoding: utf-16}`."
            )
            raise SourceError(message)

    def _raise_unfit(self, column: str) -> None:
        """Look for the first cell that is not of its column's type, and raise its error."""
        kind, row = self.schema([column]).field(0).type, 1
        for batch in self._batches({column: pa.binary()}):
            cells = batch.column(0)
            for place, cell in enumerate(cells.to_pylist()):
                try:
                    cell.decode()
                except UnicodeDecodeError as error:
                    message = (
                        f"source: {self.url} row {row + place}: the column {column!r} is not in "
                        f"UTF-8 ({cell!r:.80}); save the file as UTF-8, or name its encoding, such "
                        "as `csv: {encoding: cp1252}`."
                    )
                    raise SourceError(message) from error
            texts = cells.cast(pa.string())
            if (place := first_unfit(texts, kind)) is not None:
                raise self._unfit(row + place, column, texts[place].as_py())
            row += batch.num_rows

    def _unfit(self, row: int, column: str, text: str) -> SourceError:
        return unfit_cell(self.url, row, column, self._types.get(column, "str"), text)

    def _raise_ragged(self, read: pacsv.ReadOptions, columns: list[str]) -> None:
        """Read again in one thread, for which Arrow counts the rows, and raise the row's error."""
        read.use_threads = False
        convert = pacsv.ConvertOptions(include_columns=columns)
        try:
            with self._file.opened() as stream:
                pacsv.read_csv(
                    stream,
                    read_options=read,
                    parse_options=self._parsing(),
                    convert_options=convert,
                )
        except pa.ArrowInvalid as error:
            if (match := _RAGGED.search(str(error))) is None:
                raise
            row = int(match[1]) - (self._form.header is True)
            cells = "1 cell" if match[3] == "1" else f"{match[3]} cells"
            message = (
                f"source: {self.url} row {row}: it has {cells}, and the table has {match[2]} "
                f"columns ({match[4]!r:.{_SHOWN}}); fix the row (quotes around a cell?), or set "
                "`csv.delimiter`."
            )
            raise SourceError(message) from error


def _has_line_ends(batch: pa.RecordBatch) -> bool:
    """Whether a text, or a cell as it is, has several lines."""
    texts = (one for one in batch.columns if one.type in (pa.string(), pa.binary()))
    return any(pc.any(pc.match_substring_regex(one, "[\r\n]")).as_py() for one in texts)
