"""Plain sentences for what a value should have been, in place of the validator's own words."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

_HALF = re.compile("[\ud800-\udfff]")
_LONGEST = 60  # characters of a value that are quoted
_NUMBER = "must be a number, such as 1.5"
_WHOLE = "must be a whole number, such as 20"
_SENTENCES = {
    "int_type": _WHOLE, "int_parsing": _WHOLE, "int_from_float": _WHOLE, "float_type": _NUMBER, "float_parsing": _NUMBER,
    "finite_number": "must be a finite number", "bool_type": "must be true or false", "bool_parsing": "must be true or false",
    "literal_error": "must be {expected}", "list_type": "must be a list, such as [a, b]",
    "dict_type": "must be a mapping of keys to values", "model_type": "must be a mapping of keys to values",
    "string_type": "must be a text: put it in quotes", "string_too_short": "must not be empty", "too_short": "must not be empty",
    "greater_than_equal": "must be at least {ge}", "greater_than": "must be more than {gt}", "less_than_equal": "must be at most {le}",
    "string_pattern_mismatch": "must begin with a letter or digit and have at most 100 letters, digits, `_`, `.` and `-`",
}


def plain(error: ErrorDetails) -> str:
    """Return what is wrong with a value; errors of kinds that are not listed keep the validator's words."""
    sentence = _SENTENCES.get(error["type"])
    if sentence is None:
        return error["msg"].removeprefix("Value error, ")
    given = repr(error["input"]) if "input" in error else ""
    told = sentence.format(**error.get("ctx", {}))
    return f"{told} (it is {given})" if 0 < len(given) <= _LONGEST else told


def is_unicode(value: object) -> bool:
    """Whether this is a text that can be sent: halves of surrogate pairs, which Python's texts may hold, cannot."""
    return isinstance(value, str) and (value.isascii() or not _HALF.search(value))


def shown(text: str) -> str:
    """Return a text of somebody else without what would move a terminal's cursor, or break the line."""
    return text if text.isprintable() else "".join(char if char.isprintable() else " " for char in text)


def not_json(value: object) -> str | None:
    """Return what of a value JSON cannot say, such as `nan`; None where it can say all of it."""
    if value is None or isinstance(value, int) or is_unicode(value) or (isinstance(value, float) and math.isfinite(value)):
        return None
    if isinstance(value, list | tuple):
        parts = cast("list[object]", value)
    elif isinstance(value, dict):
        named = cast("dict[object, object]", value)
        if strange := [name for name in named if not is_unicode(name)]:
            return f"the name {strange[0]!r:.60}"
        parts = list(named.values())
    else:
        return f"{value!r:.60}"
    return next((wrong for part in parts if (wrong := not_json(part)) is not None), None)
