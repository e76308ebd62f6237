"""The key of a table: guessed from names and values, then checked over all rows."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import pyarrow as pa

from batchata_tasks.common.canonical import key_digests
from batchata_tasks.common.errors import SourceError, SpecError
from batchata_tasks.common.text import printable
from batchata_tasks.dataset.columns import OWN_NAMES, keys_of
from batchata_tasks.dataset.manifest import SYSTEM_FIELDS
from batchata_tasks.planning.hints import nearest
from batchata_tasks.planning.key_arrays import Keys, SourceKeys
from batchata_tasks.planning.values import python_values

if TYPE_CHECKING:
    from batchata_tasks.operations.draft.facts import Column, TableFacts

TAKEN = frozenset((*OWN_NAMES, *SYSTEM_FIELDS.names))
"""Names that the dataset has for itself."""
_NAMES = ("id", "key", "uuid", "guid")
_LESS = ("name", "code", "slug", "sku", "number", "nr", "no", "isbn", "url", "email")
_BY_NAME = 1  # the rank of columns that are called ids
_TRIED, _PAIRED = 12, 6  # columns that are tried alone, and in pairs


def guess_key(table: TableFacts) -> list[str]:
    """Return the likeliest key: a column, or two, unique and never null in all rows.

    Raises:
        SpecError: no column and no pair of columns is.
    """
    columns = _candidates(table)
    tried = [[column] for column in columns if _is_unique([column])][:_TRIED]
    complete = [column for column in columns if not _has_blanks(column)][:_PAIRED]
    tried += [list(pair) for pair in combinations(complete, 2) if _is_unique(list(pair))]
    for group in tried:
        key = [column.name for column in group]
        if _flaw(table, key, blanks=True) is None:
            return key
    message = (
        "--key: no column of this table is unique and never null, nor are two together; name the "
        "columns that together identify a row (--key A --key B), or add a column that does."
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
        message = f"--key: {', '.join(map(printable, key))} is no key: {flaw}."
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
    return sorted(columns, key=_rank)  # a stable sort: otherwise as in the table


def _is_identity(kind: pa.DataType) -> bool:
    types = pa.types
    return types.is_string(kind) or types.is_integer(kind) or types.is_date(kind)


def _rank(column: Column) -> int:
    name = column.name.casefold()
    if name in _NAMES:
        return 0
    if name.endswith(_NAMES):
        return _BY_NAME
    # texts as long as sentences are unique by accident
    return 2 if name in _LESS else 3 + (column.length > 40)  # noqa: PLR2004 - a guess


def only_identifies(column: Column) -> bool:
    """Whether a column of a key only tells rows apart, and says nothing else about them."""
    return pa.types.is_integer(column.kind) or _rank(column) <= _BY_NAME


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
    return f"rows {earlier} and {later} have the same value; name a column more (--key, again)"


def _first_blank(values: list[object], *, blanks: bool) -> int | None:
    """Return the place of the first value that is missing."""
    missing = (None, "") if blanks else (None,)
    return next((i for i, value in enumerate(values) if value in missing), None)
