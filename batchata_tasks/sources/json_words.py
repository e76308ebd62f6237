"""What is wrong with a value of a JSON line, in words for people."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, cast

import pyarrow as pa

from batchata_tasks.common.arrow_types import is_list
from batchata_tasks.common.json_columns import MOST_LEVELS, is_json, levels
from batchata_tasks.common.text import is_unicode

if TYPE_CHECKING:
    from collections.abc import Container, Iterable

_WORDS: dict[type, str] = {
    str: "text",
    bool: "true or false",
    int: "a number",
    float: "a number",
    list: "a list",
    dict: "an object",
}


def described(kind: pa.DataType, value: object) -> tuple[str, str]:
    """Return what a value is that does not fit its column, in words, and the remedy."""
    word = _WORDS.get(type(value), "of another type")
    if pa.types.is_floating(kind) and type(value) is int:
        return "an integer that would be rounded", "write all of the column in quotes"
    if pa.types.is_string(kind) and type(value) in (bool, int, float):
        return word, "fix it, or write it in quotes"
    return word, "fix it"


def named(kind: pa.DataType, found: Container[type]) -> str:
    """Return a column's type in words for people; `found` are the kinds of its values."""
    if pa.types.is_string(kind):
        return "text"
    if pa.types.is_integer(kind) or pa.types.is_floating(kind):
        return "a number"
    if pa.types.is_boolean(kind):
        return "true or false"
    if is_json(kind):
        return " or ".join(_WORDS[one] for one in (dict, list) if one in found)
    return f"a list{_items(kind.value_type)}" if is_list(kind) else str(kind)


def _items(kind: pa.DataType) -> str:
    """Return what the items of a list are; nothing of a list that has had none."""
    if pa.types.is_null(kind):
        return ""
    if pa.types.is_string(kind):
        return " of texts"
    return " of true and false" if pa.types.is_boolean(kind) else " of numbers"


def unusable(value: object, kind: pa.DataType) -> tuple[str, str] | None:
    """Return what no column of a type can hold of a value, and the remedy; None if it is fine."""
    if levels(value) > MOST_LEVELS:
        return f"a value nested deeper than {MOST_LEVELS} levels", "write it as a text, in quotes"
    return _unusable(value, is_json=is_json(kind))


def _unusable(value: object, *, is_json: bool) -> tuple[str, str] | None:
    match value:
        case str() if not is_unicode(value):
            return f"a text with half of a surrogate pair ({value!a:.60})", "fix it"
        case int() if not -(2**63) <= value < (2**64 if is_json else 2**63):
            what = f"an integer beyond 64 bits ({value!s:.60})"
            return what, "write it as a text, in quotes"
        case float() if is_json and not math.isfinite(value):
            return f"{value}, which is no JSON", "write null, or a text"
        case list():
            parts: Iterable[object] = cast("list[object]", value)
        case dict():
            pairs = cast("dict[str, object]", value)
            parts = [*pairs, *pairs.values()]
        case _:
            return None
    problems = (_unusable(part, is_json=is_json) for part in parts)
    return next((problem for problem in problems if problem is not None), None)
