"""Null in a template: none to every test, and an empty text to all that makes text.

Jinja's own none prints "None", and it breaks what templates do with texts: loops, `!= ""`,
`.strip()`. This null does neither, so a template may ask for it (`is none`) or just print it.
"""

from __future__ import annotations

import json
from datetime import date, time, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any, NoReturn, cast
from uuid import UUID

from jinja2.tests import TESTS

if TYPE_CHECKING:
    from collections.abc import Callable


_SHOWN = 40  # characters of a value in an error


class Null(str):
    """The value of a null: an empty text that equals none, too, and is no number."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "None"  # as a null looks in a printed list or object

    def __eq__(self, other: object) -> bool:
        return other is None or other == ""

    def __ne__(self, other: object) -> bool:
        return not self == other

    def __hash__(self) -> int:
        return hash("")

    def __lt__(self, other: object) -> bool:
        return other > "" if isinstance(other, str) else _refused("compared with", other)

    def __gt__(self, other: object) -> bool:
        return False if isinstance(other, str) else _refused("compared with", other)

    def __le__(self, other: object) -> bool:
        return True if isinstance(other, str) else _refused("compared with", other)

    def __ge__(self, other: object) -> bool:
        return other == "" if isinstance(other, str) else _refused("compared with", other)

    def __add__(self, other: object) -> str:
        return str(other) if isinstance(other, str) else _refused("added to", other)

    def __radd__(self, other: object) -> str:
        return str(other) if isinstance(other, str) else _refused("added to", other)


NULL = Null()


def _refused(what: str, other: object) -> NoReturn:
    message = (
        f"a null cannot be {what} {repr(other)[:_SHOWN]}; ask for it first, as in "
        "`{% if n is not none and n > 3 %}`, or give it a value: `n | default(0, true)`"
    )
    raise TypeError(message)


def to_json(value: object, indent: int | None = None) -> str:
    """Return the JSON that `| tojson` prints, for a model to read: a null is null, an ä an ä.

    Jinja's own filter writes for HTML: it escapes letters beyond ASCII, quotes and `<`.
    """
    return json.dumps(_restored(value), ensure_ascii=False, indent=indent, default=_text)


def _text(value: object) -> str:
    """Return a value that JSON lacks as the text that it prints."""
    if isinstance(value, date | time):
        return value.isoformat()
    if isinstance(value, Decimal | timedelta | UUID):
        return str(value)
    message = f"{type(value).__name__} is not JSON; print it by itself"
    raise TypeError(message)


def _restored(value: object) -> object:
    match value:
        case Null():
            return None
        case dict():
            return {key: _restored(item) for key, item in cast("dict[Any, Any]", value).items()}
        case list() | tuple():
            return [_restored(item) for item in cast("list[Any]", value)]
        case _:
            return value


def _is_none(value: object) -> bool:
    return value is None or value is NULL


def _is_string(value: object) -> bool:
    return isinstance(value, str) and value is not NULL


def _is_same(value: object, other: object) -> bool:
    return value is other or (_is_none(value) and _is_none(other))


TESTS_OF_NULL: dict[str, Callable[..., bool]] = {
    **TESTS,
    "none": _is_none,
    "string": _is_string,
    "sameas": _is_same,
}
