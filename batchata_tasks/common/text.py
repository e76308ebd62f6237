"""Texts for people and terminals: numbers with nouns, times, what can be printed."""

from __future__ import annotations

import re

_HALF = re.compile("[\ud800-\udfff]")


def is_unicode(value: object) -> bool:
    """Whether this is a text that can be sent: halves of surrogate pairs, which Python's texts may hold, cannot."""
    return isinstance(value, str) and (value.isascii() or not _HALF.search(value))


def printable(text: str) -> str:
    """Return a text of somebody else without what would move a terminal's cursor, or break the line."""
    return (
        text
        if text.isprintable()
        else "".join(char if char.isprintable() else " " for char in text)
    )


def pluralize(number: int, one: str, many: str | None = None) -> str:
    """Return a number with its noun, or with what else depends on it: 1 batch, 2 batches; 1 row is held, 2 rows are held."""
    return (
        f"{number:,} {one if number == 1 else many or one + ('es' if one.endswith('h') else 's')}"
    )


def clock(seconds: float) -> str:
    """Return a time as a clock shows it: 0:07, 23:59:07."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
