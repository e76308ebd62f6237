"""What notebooks show of our objects: a small table, whose texts are escaped and cut."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

from batchata_tasks.common.text import printable_lines

if TYPE_CHECKING:
    from collections.abc import Iterable

_LONGEST = 400  # characters of a value


def shortened(text: str, longest: int = _LONGEST) -> str:
    """Return a text that is cut to a length, and says so."""
    return text if len(text) <= longest else f"{text[: longest - 1]}…"


def pairs_html(pairs: Iterable[tuple[str, object]]) -> str:
    """Return names and values as an HTML table; foreign text in it does nothing."""
    rows = "".join(
        f'<tr><th style="text-align:left">{escape(name)}</th>'
        f'<td style="text-align:left">{escape(shortened(printable_lines(str(value))))}</td></tr>'
        for name, value in pairs
    )
    return f"<table>{rows}</table>"
