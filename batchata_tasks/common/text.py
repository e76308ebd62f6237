"""Texts for people and terminals: numbers with nouns, times, printable texts."""

from __future__ import annotations

import re

_SURROGATE = re.compile("[\ud800-\udfff]")


def is_unicode(value: object) -> bool:
    """Whether this is a text that can be sent: Python's may hold surrogates, which cannot."""
    return isinstance(value, str) and (value.isascii() or not _SURROGATE.search(value))


def printable(text: str) -> str:
    """Return a foreign text with blanks for what would move the cursor or break the line."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else " " for char in text)


def sentence(text: str) -> str:
    """Return a foreign text so that another sentence can follow it."""
    text = text.rstrip()
    return text if text.endswith((".", "!", "?", ".)", '."')) else f"{text}."


def pluralize(number: int, one: str, many: str | None = None) -> str:
    """Return a number with its noun, and with any words that depend on it.

    For example 1 batch, 2 batches; with `many`: 1 row is held, 2 rows are held.
    """
    if number == 1:
        return f"{number:,} {one}"
    return f"{number:,} {many or one + ('es' if one.endswith('h') else 's')}"


def clock(seconds: float) -> str:
    """Return a time as a clock shows it: 0:07, 23:59:07."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
