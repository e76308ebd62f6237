"""Answers that quote: their fields, and beside them the passages of documents that say these.

No provider cites passages for single fields: Anthropic refuses citations of answers that have a
form, OpenAI has none (https://platform.claude.com/docs/en/build-with-claude/citations). So the form
itself asks for the passages, in one request. What is quoted is checked against the documents' own
text (`citations`).
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, cast

from batchata_tasks.common.json import as_dict
from batchata_tasks.common.text import is_unicode

if TYPE_CHECKING:
    from collections.abc import Mapping

QUOTED = "x-batchata-quoted"
"""The keyword that marks a stored response model whose answers quote: true, or their `MinGrade`."""
MinGrade = Literal["high", "medium", "low"]
"""The grade of evidence that each value of an answer needs."""
_FIELDS, _QUOTES = "fields", "quotes"
_ABOUT = (
    "For each value in `fields` that a document states: the passage that states it. Leave out "
    "values that no document states."
)
_QUOTE: dict[str, Any] = {
    "type": "object",
    "properties": {
        "field": {
            "type": "string",
            "description": "Path of the value in `fields`, such as total, address.city, "
            "items[0].price.",
        },
        "quote": {
            "type": "string",
            "description": "The passage, copied word for word, as short as it can be: the value "
            "with its label.",
        },
        "page": {
            "type": "integer",
            "description": "The page of the document on which it stands, from 1; 0 without pages.",
        },
    },
    "required": ["field", "quote", "page"],
    "additionalProperties": False,
}


class Quote(NamedTuple):
    """A passage that a model says to have read: `page` counts from 1, and may be unknown."""

    field: str
    text: str
    page: int | None


def quoting(wire: dict[str, Any]) -> dict[str, Any]:
    """Return the strict JSON Schema of an answer that has these fields, and quotes for them."""
    return {
        "type": "object",
        "properties": {
            _FIELDS: wire,
            _QUOTES: {"type": "array", "items": _QUOTE, "description": _ABOUT},
        },
        "required": [_FIELDS, _QUOTES],
        "additionalProperties": False,
    }


def fields_text(text: str) -> str:
    """Return the fields of an answer that quotes, as JSON; the text as it is if it has none."""
    parts = _parts(text)
    if _FIELDS not in parts:
        return text
    # not by orjson, which refuses integers that only exact columns hold, and halves of pairs, which
    # the response model is to refuse
    return json.dumps(parts[_FIELDS])


def quotes_in(text: str) -> list[Quote]:
    """Return the quotes of an answer; what is odd among them is left out."""
    listed = _parts(text).get(_QUOTES)
    if not isinstance(listed, list):
        return []
    found = list[Quote]()
    for one in map(as_dict, cast("list[object]", listed)):
        field, quote, page = one.get("field"), one.get("quote"), one.get("page")
        if not (isinstance(field, str) and isinstance(quote, str)):
            continue
        if quote.strip() and is_unicode(quote):
            is_page = isinstance(page, int) and not isinstance(page, bool) and page > 0
            found.append(Quote(field, quote, page if is_page else None))
    return found


def _parts(text: str) -> Mapping[str, Any]:
    try:
        return as_dict(json.loads(text))
    except (ValueError, RecursionError):
        return {}
