"""The key of a table: guessed from values, then names, and checked over all rows."""

from __future__ import annotations

import re
from itertools import combinations
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, NamedTuple

import pyarrow as pa

from batchata_tasks.common.canonical import key_digests
from batchata_tasks.common.errors import SourceError, SpecError
from batchata_tasks.common.text import pluralize, printable
from batchata_tasks.dataset.columns import OWN_NAMES, keys_of
from batchata_tasks.dataset.manifest import SYSTEM_FIELDS
from batchata_tasks.planning.hints import nearest
from batchata_tasks.planning.key_arrays import Keys, SourceKeys
from batchata_tasks.planning.values import python_values
from batchata_tasks.sources.document_table import PATH as DOCUMENT_PATH

if TYPE_CHECKING:
    from batchata_tasks.operations.draft.facts import Column, TableFacts

TAKEN = frozenset((*OWN_NAMES, *SYSTEM_FIELDS.names))
"""Names that the dataset has for itself."""
# how keys are called, as the last word of a name; and as its end, where words are written together
_CALLED = frozenset(
    (
        *("id", "key", "uuid", "guid", "code", "number", "num", "nr", "no"),
        *("nummer", "numero", "número", "numéro", "schlüssel", "kennung"),
        *("ref", "slug", "sku", "isbn", "ean", "iban", "vin"),
    )
)
_ENDS = ("id", "key", "uuid", "guid", "code", "number", "nummer", "nr", "schlüssel", "kennung")
# those that say nothing to a model
_EMPTY_WORDS = frozenset(("id", "key", "uuid", "guid", "number", "num", "nr", "no", "nummer"))
_EMPTY_ENDS = ("id", "nummer", "nr")
_SHORT = 64  # characters of a text that may be a key: SHA-256 in hexadecimal has so many
# amounts, shares and dates, which are unique by accident
_MEASURED = re.compile(r"[-+]?\d*[.,]\d+%?|\d{4}-\d\d?-\d\d?([T ].*)?|\d\d?[./]\d\d?[./]\d{2,4}")
_SAME = "have the same value"
_TWICE = "name a column more (--key, again), or, if it is one row twice, take one out"
_FEW = 20  # rows: fewer may be unique in any column
_PAIRED = 6  # columns that are tried in pairs


class ChosenKey(NamedTuple):
    """A key, and `why` it was chosen, with a place for what was found of it.

    `is_free_text`: it holds long texts, or several words. `is_guess`: nothing but the rows spoke
    for it, no name of a column.
    """

    names: list[str]
    why: str = "{}"
    is_free_text: bool = False
    is_guess: bool = False

    def doubt(self, rows: int) -> str | None:
        """Return why it may be none, in a table of so many rows; None if nothing says so."""
        if self.is_free_text and rows:
            return "a text may be edited, or come twice; name a column that identifies a row"
        if self.is_guess and 0 < rows < _FEW:
            return f"{pluralize(rows, 'row is', 'rows are')} too few to tell"
        return None


def guess_key(table: TableFacts) -> ChosenKey:
    """Return the likeliest key: a column, or two, unique and never null in all rows.

    Columns of integers, and of short texts without blanks, come before all others; of these, those
    that are called as keys are; then the first in the table. If no column is unique, it is a pair.

    Raises:
        SpecError: no column and no pair of columns is.
    """
    if table.of_documents:
        return ChosenKey([DOCUMENT_PATH], "the path of the file: {}")
    columns = _candidates(table)
    for column in columns:
        if _is_unique([column]) and _flaw(table, [column.name], blanks=True) is None:
            is_guess = not _is_called_key(column.name)
            return ChosenKey([column.name], _why(column), _is_free_text(column), is_guess)
    complete = [column for column in columns if not _has_blanks(column)][:_PAIRED]
    for pair in combinations(complete, 2):
        names = [column.name for column in pair]
        if _is_unique(list(pair)) and _flaw(table, names, blanks=True) is None:
            is_text = any(map(_is_free_text, pair))
            why = "no column is so alone, these two are together: {}"
            return ChosenKey(names, why, is_text, is_guess=True)
    called = next((one.name for one in columns if _is_called_key(one.name)), "")
    flaw = _flaw(table, [called]) if called else None
    closest = f" ({printable(called)!r} is not: {flaw})" if flaw else ""
    message = (
        f"--key: no column of this table is unique and never null{closest}, nor are two "
        "together; name the columns that together identify a row (--key A --key B), add a column "
        "that does, or take out rows that are there twice."
    )
    raise SpecError(message)


def check_key(table: TableFacts, key: list[str]) -> None:
    """Refuse a key that is none.

    Raises:
        SpecError: a column is unknown, or has a name that the dataset uses itself.
        SourceError: a value is null, or two rows have the same key; the rows are named.
    """
    for name in key:
        if name not in table.names:
            message = f"--key: the source has no column {name!r}{nearest(name, table.names)}."
            raise SpecError(message)
        if name in table.unread:
            message = f"--key: the values of {name!r} are of several types; name another column."
            raise SpecError(message)
        if name in TAKEN:
            message = f"--key: {name!r} is also a metadata column of the dataset; rename it."
            raise SpecError(message)
    if len(set(key)) < len(key):
        message = f"--key: {', '.join(key)} names a column twice; remove one."
        raise SpecError(message)
    if (flaw := _flaw(table, key)) is not None:
        remedy = f"; {_TWICE}" if flaw.endswith(_SAME) else ""
        message = f"--key: {', '.join(map(printable, key))} is no key: {flaw}{remedy}."
        raise SourceError(message)


def _candidates(table: TableFacts) -> list[Column]:
    """Return the columns that may be a key, the likeliest first."""
    columns = [
        column
        for column in table.columns
        if _is_identity(column.kind) and not column.is_nested and column.name not in TAKEN
        # a column without a name counts the rows of a table that a data frame wrote
        if column.is_named
    ]
    # a stable sort: otherwise as in the table
    return sorted(columns, key=lambda one: (not _may_identify(one), not _is_called_key(one.name)))


def _is_identity(kind: pa.DataType) -> bool:
    types = pa.types
    return types.is_string(kind) or types.is_integer(kind) or types.is_date(kind)


def _may_identify(column: Column) -> bool:
    """Whether values are as those of keys are: integers, or short texts without blanks."""
    if not pa.types.is_string(column.kind):
        return pa.types.is_integer(column.kind)
    texts = [str(value) for value in column.values if value]
    return not _is_free_text(column) and not (texts and all(map(_MEASURED.fullmatch, texts)))


def _is_free_text(column: Column) -> bool:
    """Whether values are long texts, or have blanks in them."""
    if not pa.types.is_string(column.kind):
        return False
    texts = [str(value) for value in column.values if value]
    return any(len(text) > _SHORT or len(text.split()) != 1 for text in texts)


def _last_word(name: str) -> str:
    """Return the last word of a name: of `orderId`, `order_id` and `Order ID` it is `id`."""
    apart = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", name)
    words = [word for word in re.split(r"[\W_]+", apart.casefold()) if word]
    return words[-1] if words else ""


def _is_called_key(name: str) -> bool:
    word = _last_word(name)
    return word in _CALLED or word.endswith(_ENDS)


def _why(column: Column) -> str:
    if not _may_identify(column):
        return "{}; no column of numbers or short texts is"
    if _is_called_key(column.name):
        return "{}, and named like a key"
    return "the first column of numbers or short texts that is {}"


def only_identifies(column: Column) -> bool:
    """Whether a column of a key only tells rows apart, and says nothing else about them."""
    word = _last_word(column.name)
    return pa.types.is_integer(column.kind) or word in _EMPTY_WORDS or word.endswith(_EMPTY_ENDS)


def _is_unique(columns: list[Column]) -> bool:
    """Whether the first rows leave it open that these columns are a key."""
    rows = list(zip(*(column.values for column in columns), strict=True))
    return len(set(rows)) == len(rows) and not any(map(_has_blanks, columns))


def _has_blanks(column: Column) -> bool:
    return any(value in (None, "") for value in column.values)


def _flaw(table: TableFacts, key: list[str], *, blanks: bool = False) -> str | None:
    """Return what keeps these columns from being a key; None if they are one in all rows.

    `blanks`: an empty text counts as a null.
    """
    with TemporaryDirectory() as folder:
        keys = SourceKeys(Path(folder) / "keys.bin")
        try:
            before = 0
            for block in table.source.batches(key):
                numbers = block.numbers(before)
                for name in key:
                    values = python_values(block.rows, name, numbers)
                    if (place := _first_blank(values, blanks=blanks)) is not None:
                        return f"{printable(name)!r} is null in row {numbers[place]}"
                if numbers:
                    keys.add(Keys.of(key_digests(keys_of(block.rows, key))), numbers)
                before += len(numbers)
            double = keys.first_double()
        finally:
            keys.close()
    if double is None:
        return None
    later, earlier = double
    return f"rows {earlier} and {later} {_SAME}"


def _first_blank(values: list[object], *, blanks: bool) -> int | None:
    """Return the place of the first value that is missing."""
    missing = (None, "") if blanks else (None,)
    return next((i for i, value in enumerate(values) if value in missing), None)
