"""Answers under faults: refused, cut short, or other than requested."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import orjson

from batchata_tasks.emulator.answers.odd_bytes import MARK, MARKED
from batchata_tasks.emulator.answers.schemas import JSON, as_object, asked_for
from batchata_tasks.emulator.answers.text import (
    USUAL,
    Answer,
    Provider,
    answer,
    answer_text,
    output_cap,
    wants_json,
)

if TYPE_CHECKING:
    from batchata_tasks.emulator.answers.lengths import Lengths

_NOT_JSON = 'Sure! Here is the JSON you asked for: {"unfinished": '
_SEPARATORS = " one\u2028two\u2029three\u0085four"
"""Characters that `str.splitlines` takes for line ends, and JSON allows unescaped in strings."""

_WITHOUT_WORDS = {"request_refusal": "", "request_empty": "", "request_blank": " \n\u200b"}

_ECHO: JSON = {"properties": {"echo": {"type": "string"}}}
_FREE = frozenset({"type", "description", "title"})
_OTHER_JSON = '["not what the schema asks for"]'


def answer_to(provider: Provider, body: JSON, kind: str | None, lengths: Lengths = USUAL) -> Answer:
    """Answer a request under the fault it met, if any."""
    if kind in _WITHOUT_WORDS:
        return answer(provider, body, text=_WITHOUT_WORDS[kind])
    if kind in ("request_truncated", "request_max_tokens"):
        return _truncated(provider, body, lengths)
    if kind == "request_invalid_answer":
        return _invalid(provider, body, lengths)
    if kind == "request_dear":
        return _dear(provider, body, lengths)
    reworded = _REWORDED.get(kind or "")
    text = None if reworded is None else reworded(provider, body, lengths)
    return answer(provider, body, text=text, lengths=lengths)


def _truncated(provider: Provider, body: JSON, lengths: Lengths) -> Answer:
    """Cut the answer in half; it used its whole cap, as thinking counts against the cap too."""
    full = answer(provider, body, lengths=lengths)
    half = full.text[: len(full.text) // 2]
    used = min(output_cap(body), max(full.output_tokens, 1 << 7))
    return Answer(half, full.input_tokens, used, truncated=True)


def _dear(provider: Provider, body: JSON, lengths: Lengths) -> Answer:
    """Bill four times the request's bytes and its cap, which no bound from these foresees."""
    return answer(provider, body, lengths=lengths)._replace(
        input_tokens=4 * len(orjson.dumps(body)),
        output_tokens=4 * min(output_cap(body), 1 << 20),
    )


def _invalid(provider: Provider, body: JSON, lengths: Lengths) -> Answer:
    if asked_for(body) is None and not wants_json(body):
        return answer(provider, body, lengths=lengths)
    usual = answer_text(provider, body)
    wrong = _NOT_JSON if len(usual) % 2 else _OTHER_JSON
    return answer(provider, body, text=wrong)


def _in_capitals(provider: Provider, body: JSON, lengths: Lengths) -> str:
    """Return the answer with the values of enums in capitals."""
    return answer_text(provider, _capital(body), lengths)


def _capital(value: Any, *, enum: bool = False) -> Any:
    """Return JSON with the strings of all enums in capitals."""
    if isinstance(value, dict):
        return {
            key: _capital(item, enum=key == "enum") for key, item in cast("JSON", value).items()
        }
    if isinstance(value, list):
        return [_capital(item, enum=enum) for item in cast("list[Any]", value)]
    return value.upper() if enum and isinstance(value, str) else value


def _separated(provider: Provider, body: JSON, lengths: Lengths) -> str:
    """Return the answer with separators in it."""
    return _inserted(provider, body, lengths, _SEPARATORS)


def _marked(provider: Provider, body: JSON, lengths: Lengths) -> str:
    """Return the answer with a mark in it, which odd bytes replace on the wire."""
    return _inserted(provider, body, lengths, MARK)


def _inserted(provider: Provider, body: JSON, lengths: Lengths, what: str) -> str:
    """Return the answer with a text in it; under a schema, in the strings left free by it."""
    text, schema = answer_text(provider, body, lengths), asked_for(body)
    if schema is None and provider == "openai" and wants_json(body):
        schema = _ECHO
    if schema is None:
        return text + what
    value = as_object(orjson.loads(text))
    for name, field_schema in as_object(schema.get("properties")).items():
        if as_object(field_schema).keys() <= _FREE and isinstance(value.get(name), str):
            value[name] += what
    return orjson.dumps(value).decode() if value else text


def _misread(provider: Provider, body: JSON, lengths: Lengths) -> str:
    """Return the answer with the first two digits of each fraction exchanged: 92.16 for 29.16."""
    value = _quoting(text := answer_text(provider, body, lengths))
    if value is None:
        return text
    return orjson.dumps({**value, "fields": _exchanged(value["fields"])}).decode()


def _quoting(text: str) -> JSON | None:
    """Return an answer that quotes; None if it is another one."""
    try:
        value = as_object(orjson.loads(text))
    except ValueError:
        return None
    return value if value.keys() == {"fields", "quotes"} else None


def _exchanged(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _exchanged(item) for key, item in cast("JSON", value).items()}
    if not isinstance(value, float) or (digits := repr(value))[1:2] == ".":
        return value
    return float(digits[1] + digits[0] + digits[2:])


def _mispaged(provider: Provider, body: JSON, lengths: Lengths) -> str:
    """Return the answer with the page after the right one in each of its quotes."""
    value = _quoting(text := answer_text(provider, body, lengths))
    if value is None:
        return text
    quotes = [{**one, "page": one["page"] + 1} for one in value["quotes"]]
    return orjson.dumps({**value, "quotes": quotes}).decode()


_REWORDED = {
    "request_misread": _misread,
    "request_other_page": _mispaged,
    "request_separators": _separated,
    "request_other_case": _in_capitals,
    **dict.fromkeys(MARKED, _marked),
}
