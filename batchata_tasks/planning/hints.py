"""What to write instead, in the errors about templates: the nearest name, and `row["any name"]`."""

from __future__ import annotations

import re
from difflib import get_close_matches
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

_LISTED = 100  # names that a sentence lists
_CODE = re.compile(r"\{\{.*?(?:\}\}|$)|\{%.*?(?:%\}|$)", re.DOTALL)
_CLOSE = 0.7  # how alike two names are, of 1
_LETTER = re.compile(r"[^\W\d]")


def nearest(name: str, names: Sequence[str]) -> str:
    """Return the end of a sentence about a name that is not among `names`."""
    if not names:
        return "; it has none"
    folded = {known.casefold(): known for known in names}
    close = get_close_matches(name.casefold(), list(folded), 1, _CLOSE)
    meant = f"; did you mean {folded[close[0]]!r}?" if close else ""
    more = ", …" if len(names) > _LISTED else ""
    listed = ", ".join(names[:_LISTED]) + more
    return f"{meant} It has: {listed}" if meant else f"; it has: {listed}"


def quoted_column(text: str, columns: Sequence[str]) -> str:
    """Return the remedy if a template names a column that Jinja cannot read as a name.

    Such as `{{ customer name }}`, which is `{{ row["customer name"] }}`. Empty if there is none.
    """
    code = " ".join(_CODE.findall(text))
    # a longer name first: "customer name" may be a part of it
    for column in sorted(columns, key=len, reverse=True):
        if column.isidentifier() or not _LETTER.search(column):
            continue
        if re.search(rf"(?<![\w\"']){re.escape(column)}(?![\w\"'])", code):
            return f"for the column {column!r} write row[{literal(column)}]"
    return ""


def literal(column: str) -> str:
    """Return the name of a column as a template quotes it, on one line."""
    quote = "'" if '"' in column and "'" not in column else '"'
    escaped = column.replace("\\", "\\\\").replace(quote, f"\\{quote}")
    shown = (char if char.isprintable() else f"\\U{ord(char):08x}" for char in escaped)
    return f"{quote}{''.join(shown)}{quote}"
