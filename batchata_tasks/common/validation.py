"""Plain sentences for what a value should have been, instead of the validator's own words."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

_LONGEST = 60  # characters of a value that are quoted
_NUMBER = "must be a number, such as 1.5"
_WHOLE = "must be a whole number, such as 20"
_SENTENCES = {
    "int_type": _WHOLE,
    "int_parsing": _WHOLE,
    "int_from_float": _WHOLE,
    "float_type": _NUMBER,
    "float_parsing": _NUMBER,
    "finite_number": "must be a finite number",
    "bool_type": "must be true or false",
    "bool_parsing": "must be true or false",
    "literal_error": "must be {expected}",
    "list_type": "must be a list, such as [a, b]",
    "dict_type": "must be a mapping of keys to values",
    "model_type": "must be a mapping of keys to values",
    "string_type": "must be a text: put it in quotes",
    "string_too_short": "must not be empty",
    "too_short": "must not be empty",
    "greater_than_equal": "must be at least {ge}",
    "greater_than": "must be more than {gt}",
    "less_than_equal": "must be at most {le}",
    "string_pattern_mismatch": "must begin with a letter or digit and have at most 100 letters, digits, `_`, `.` and `-`",
}


def describe_error(error: ErrorDetails) -> str:
    """Return what is wrong with a value; errors of kinds that are not listed keep the validator's words."""
    sentence = _SENTENCES.get(error["type"])
    if sentence is None:
        return error["msg"].removeprefix("Value error, ")
    given = repr(error["input"]) if "input" in error else ""
    told = sentence.format(**error.get("ctx", {}))
    return f"{told} (it is {given})" if 0 < len(given) <= _LONGEST else told
