"""What a draft has to know of a table: its columns, with types, an example and nulls."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import yaml
from pydantic import TypeAdapter, ValidationError

from batchata_tasks.common.errors import SourceError, SpecError
from batchata_tasks.common.json_columns import is_nested, type_name
from batchata_tasks.common.text import printable
from batchata_tasks.common.validation import describe_error, first_error
from batchata_tasks.planning.values import python_values
from batchata_tasks.sources.csv_sniffing import sniff_csv
from batchata_tasks.sources.document_table import matches
from batchata_tasks.sources.documents import ENDINGS as DOCUMENT_ENDINGS
from batchata_tasks.sources.excel import ENDINGS, sheet_names
from batchata_tasks.sources.files import found
from batchata_tasks.sources.forms import DocumentsSource, SheetSource, TableSource
from batchata_tasks.sources.opening import open_source
from batchata_tasks.sources.source import ReadOptions, errors_of, no_such_file
from batchata_tasks.sources.typed import Typed

if TYPE_CHECKING:
    from batchata_tasks.sources.csv_format import CsvFormat
    from batchata_tasks.sources.forms import Form

_SHOWN = 60  # characters of a name, a type and an example
_BINARY = (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_fixed_size_binary)
_PLAIN = (
    *(pa.types.is_string, pa.types.is_integer, pa.types.is_floating, pa.types.is_boolean),
    *(pa.types.is_date, pa.types.is_timestamp, pa.types.is_decimal),
)
_NAMES = {"string": "text", "bool": "true or false", "double": "float"}
_BARE_QUERY = re.compile(r"\s*(select|with|from)\s", re.IGNORECASE)
_QUERIES = (
    "a query is written as '{sql: \"SELECT …\"}' or '{url_env: NAME, query: \"SELECT …\"}', in "
    "quotes for its commas"
)


@dataclass(frozen=True)
class Column:
    """A column of a table; `values` are those of its first rows, in Python."""

    name: str
    kind: pa.DataType
    values: list[Any]

    @property
    def label(self) -> str:
        """Its name, for people."""
        return _cut(self.name) if self.is_named else f"(no name) {self.name!r}"

    @property
    def is_named(self) -> bool:
        """Whether its name can be seen."""
        return bool(self.name.strip())

    @property
    def type(self) -> str:
        """Its type, for people."""
        name = type_name(self.kind)
        return _cut(_NAMES.get(name, name))

    @cached_property
    def example(self) -> str:
        """Its first value that is neither null nor empty, on one line; empty if there is none."""
        value = next((one for one in self.values if one not in (None, "", [], {})), None)
        if value is None:
            return ""
        is_plain = not isinstance(value, (list, dict))
        text = str(value) if is_plain else json.dumps(value, default=str, ensure_ascii=False)
        return _cut(" ".join(text.split()))

    @property
    def is_nested(self) -> bool:
        """Whether its values are lists or objects."""
        return is_nested(self.kind)

    @property
    def is_plain(self) -> bool:
        """Whether its values are texts, numbers, truths, dates or moments."""
        return any(is_kind(self.kind) for is_kind in _PLAIN)

    @property
    def is_binary(self) -> bool:
        """Whether its values are bytes, which are no text for a model."""
        return any(is_kind(self.kind) for is_kind in _BINARY)

    @property
    def length(self) -> float:
        """How many characters its values have, on average."""
        texts = [len(str(value)) for value in self.values if value is not None]
        return sum(texts) / len(texts) if texts else 0.0


@dataclass(frozen=True)
class TableFacts:
    """A table as a draft sees it.

    `unread` are columns whose values go into no one type, so that no spec can use them; `types` has
    those of a workbook, which are read as texts. `sheets` are the names of a workbook's sheets.
    """

    source: Typed
    csv: CsvFormat | None
    columns: list[Column]
    unread: list[str]
    types: dict[str, str]
    sheets: list[str]
    of_documents: bool = False

    @property
    def names(self) -> list[str]:
        """The names of all its columns, in order."""
        return self.source.names()

    def column(self, name: str) -> Column:
        """Return a column by its name."""
        return next(column for column in self.columns if column.name == name)

    def nulls(self, names: list[str]) -> tuple[int, set[str]]:
        """Return how many rows the table has, and which of these columns have nulls somewhere."""
        rows, found = 0, set[str]()
        for block in self.source.batches(names):
            rows += block.rows.num_rows
            found |= {name for name in names if block.rows.column(name).null_count}
        return rows, found


def source_of(text: str, sheet: str | None = None) -> str | Form:
    """Return a source as a command is given it: as a spec has it, a query as `{sql: SELECT …}`.

    `sheet` is that of a workbook.

    Raises:
        SpecError: it has the form of none.
    """
    if sheet == "":
        message = "--sheet: name one of the workbook's sheets, or leave it out for the first."
        raise SpecError(message)
    if not text.lstrip().startswith("{") or Path(text).exists():
        if _BARE_QUERY.match(text) and not Path(text).exists():
            message = f"TABLE: {_QUERIES}."
            raise SpecError(message)
        if sheet is not None:
            return SheetSource(file=text, sheet=sheet)
        is_document = PurePosixPath(text).suffix.lower() in DOCUMENT_ENDINGS
        return DocumentsSource(documents=text) if is_document and "://" not in text else text
    if sheet is not None:
        message = "--sheet: only a workbook has sheets; leave it out."
        raise SpecError(message)
    try:
        return TypeAdapter[Any](TableSource).validate_python(yaml.safe_load(text))
    except yaml.YAMLError as error:
        message = f"TABLE: {text!r:.80} is not valid YAML: {' '.join(str(error).split())}"
        raise SpecError(message) from error
    except ValidationError as error:
        wrong = describe_error(first_error(error)[1]).rstrip(".")
        hint = f"; {_QUERIES}" if set(yaml.safe_load(text)) & {"sql", "query"} else ""
        message = f"TABLE: {wrong}{hint}."
        raise SpecError(message) from None


def look_at(table: str | Form) -> TableFacts:
    """Read the names, the types and the first rows of a table.

    Raises:
        SourceError: it does not exist, has no columns, or cannot be read.
    """
    if isinstance(table, DocumentsSource) and not matches(table.documents):
        raise no_such_file(table.documents)
    form = sniff_csv(table) if isinstance(table, str) else None
    sheets = _sheets(table)
    source = Typed(open_source(table, ReadOptions(csv=form)))
    names = source.names()
    if not names:
        message = f"source: {table} has no columns: it is empty, or a folder without Parquet files."
        raise SourceError(message)
    try:
        of_documents = isinstance(table, DocumentsSource)
        columns = _columns(source, names)
        return TableFacts(source, form, columns, [], {}, sheets, of_documents)
    except SourceError:
        # others than those that a spec uses may hold anything
        read = [name for name in names if _can_be_read(source, name)]
        unread = [name for name in names if name not in read]
        if sheets:
            types = dict.fromkeys(unread, "str")
            source = Typed(open_source(table, ReadOptions(types=types)))
            return TableFacts(source, form, _columns(source, names), [], types, sheets)
        if not read:
            raise
        return TableFacts(source, form, _columns(source, read), unread, {}, sheets)


def _sheets(table: str | Form) -> list[str]:
    """Return the names of the sheets of a table that is a workbook; none of any other."""
    url = table.file if isinstance(table, SheetSource) else table
    if not isinstance(url, str):
        return []
    with errors_of(url):
        files, is_folder = found(url)
    is_workbook = bool(files) and not is_folder and files[0].ending in ENDINGS
    return sheet_names(files[0]) if is_workbook else []


def _can_be_read(source: Typed, name: str) -> bool:
    try:
        _columns(source, [name])
    except SourceError:
        return False
    return True


def _columns(source: Typed, names: list[str]) -> list[Column]:
    schema = source.schema(names)
    block = next(islice(source.batches(names), 1), None)
    if block is None:
        return [Column(field.name, field.type, []) for field in schema]
    numbers = block.numbers(0)
    return [
        Column(field.name, field.type, python_values(block.rows, field.name, numbers))
        for field in schema
    ]


def _cut(text: str) -> str:
    text = printable(text)
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 1]}…"
