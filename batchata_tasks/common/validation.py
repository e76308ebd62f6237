"""What is wrong with a value, in one plain sentence instead of Pydantic's own words."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from pydantic import ValidationError
    from pydantic_core import ErrorDetails

_LONGEST = 60  # characters of a value that are quoted
_NUMBER = "must be a number, such as 1.5"
_WHOLE = "must be a whole number, such as 20"
_TEXT_HINT = ": put it in quotes"
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
    "string_type": f"must be a text{_TEXT_HINT}",
    "string_too_short": "must not be empty",
    "too_short": "must not be empty",
    "greater_than_equal": "must be at least {ge}",
    "greater_than": "must be more than {gt}",
    "less_than_equal": "must be at most {le}",
    "string_pattern_mismatch": "must begin with a letter or digit and have at most 100 letters, "
    "digits, `_`, `.` and `-`",
}


def first_error(
    error: ValidationError, *, unknown_first: bool = True, quote: bool = True
) -> tuple[str, ErrorDetails]:
    """Return the first error and the path of its value, joined with dots ("" for the whole value).

    `unknown_first` prefers an unknown key: if a key is misspelt, the right one is missing as well.
    Without `quote`, no sentence made of the error can hold the value, which may be a secret.
    """
    errors = error.errors(include_url=False, include_input=quote)
    unknown = (e for e in errors if unknown_first and e["type"] == "extra_forbidden")
    first = next(unknown, errors[0])
    return ".".join(str(step) for step in first["loc"]), first


def describe_error(error: ErrorDetails, reading: str | None = None) -> str:
    """Return what is wrong with a value; kinds of errors not listed above keep Pydantic's words.

    `reading` says what became of what somebody wrote; it is told if that may have been a text.
    """
    sentence = _SENTENCES.get(error["type"])
    if sentence is None:
        return error["msg"].removeprefix("Value error, ")
    value = repr(error["input"]) if "input" in error else ""
    text = sentence.format(**error.get("ctx", {}))
    if reading is not None and _may_be_text(error):
        return f"{text.removesuffix(_TEXT_HINT)} ({reading})"
    return f"{text} (it is {value})" if 0 < len(value) <= _LONGEST else text


def _may_be_text(error: ErrorDetails) -> bool:
    """Whether a text may stand where this value does."""
    choices = str(error.get("ctx", {}).get("expected", ""))
    return error["type"] in ("string_type", "list_type") or choices.startswith("'")


def describe_keys(
    error: ValidationError,
    *,
    if_unknown: Callable[[str, object], str],
    if_missing: Callable[[str], str],
    reading: str | None = None,
) -> str:
    """Return the sentence for the first thing wrong with keys and values that a person wrote.

    `if_unknown` returns the remedy for an unknown key and its value, `if_missing` the one for a
    missing key. `reading`: see `describe_error`.
    """
    key, first = first_error(error)
    if first["type"] == "extra_forbidden":
        return f"unknown key `{key}`; {if_unknown(key, first['input'])}"
    if first["type"] == "missing":
        return f"the key `{key}` is missing; {if_missing(key)}"
    text = f"{describe_error(first, reading).removesuffix('.')}."
    return f"`{key}`: {text}" if key else text
