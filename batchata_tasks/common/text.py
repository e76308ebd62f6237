"""Texts for people and terminals: numbers with nouns, times, printable texts."""

from __future__ import annotations

import codecs
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal

# what stands for our own characters where a stream cannot have them
_NEAREST = {"→": "->", "…": "...", "━": "=", "╍": "-", "─": "-", "·": "-"}
NEAREST = "batchata"
"""The name of the error handler of encodings that writes the nearest characters instead."""
_SHOWN = 80  # characters of a value in an error
_NAME_CHARS = 12  # of a provider's name before what it said


def is_unicode(value: object) -> bool:
    """Whether this is a text that can be sent: Python's may hold surrogates, which cannot."""
    if not isinstance(value, str):
        return False
    try:
        return value.isascii() or value.encode() != b""
    except UnicodeEncodeError:  # UTF-8 has no surrogates
        return False


def printable(text: str) -> str:
    """Return a foreign text with blanks for what would move the cursor or break the line."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else " " for char in text)


def printable_lines(text: str) -> str:
    """Return a text of ours that quotes foreign ones, printable; it may have several lines."""
    return "\n".join(map(printable, text.split("\n")))


def encodable(text: str, encoding: str | None) -> str:
    """Return a text of which a stream of this encoding can write each character."""
    if text.isascii():
        return text
    encoding = encoding or "utf-8"
    return text.encode(encoding, NEAREST).decode(encoding)


def _nearest(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    unknown = error.object[error.start : error.end]
    return "".join(_NEAREST.get(char, "?") for char in unknown), error.end


codecs.register_error(NEAREST, _nearest)


def capitalized(text: str) -> str:
    """Return a text with a capital first, unless it begins with a name: `openai: HTTP 404 …`."""
    return text if ": " in text[:_NAME_CHARS] else f"{text[:1].upper()}{text[1:]}"


def literal(value: object) -> str:
    """Return a value of a table as an error shows it: texts in quotes, all else as it prints."""
    if isinstance(value, bool):
        return str(value).lower()
    is_plain = isinstance(value, date | time | timedelta | Decimal)
    text = printable(str(value) if is_plain else repr(value))
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


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


def minute(seconds: float) -> str:
    """Return a moment, in seconds since 1970, to the minute."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M UTC")


def duration(seconds: float) -> str:
    """Return a time in words: 0 min, 2 h 10 min."""
    hours, minutes = divmod(int(max(seconds, 0) // 60), 60)
    return f"{hours:,} h {minutes} min" if hours else f"{minutes} min"


def clock(seconds: float) -> str:
    """Return a time as a clock shows it: 0:07, 23:59:07."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
