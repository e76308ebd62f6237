"""Answers as faults want them: refused, cut short, or not what was asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from batchata_tasks.emulator.answers import (
    Answer,
    Provider,
    answer,
    answer_text,
    output_cap,
    wants_json,
)
from batchata_tasks.emulator.schemas import asked_for

if TYPE_CHECKING:
    from batchata_tasks.emulator.schemas import JSON

_NOT_JSON = 'Sure! Here is the JSON you asked for: {"unfinished": '
_OTHER_JSON = '["not what the schema asks for"]'


def answer_to(provider: Provider, body: JSON, kind: str | None) -> Answer:
    """Answer a request under the fault it met, if any."""
    if kind == "request_refusal":
        return answer(provider, body, text="")
    if kind == "request_truncated":
        return _truncated(provider, body)
    if kind == "request_invalid_answer":
        return _invalid(provider, body)
    return answer(provider, body)


def _truncated(provider: Provider, body: JSON) -> Answer:
    """Cut the answer in half; it used its whole cap, as thinking counts against the cap too."""
    full = answer(provider, body)
    half = full.text[: len(full.text) // 2]
    used = min(output_cap(body), max(full.output_tokens, 1 << 7))
    return Answer(half, full.input_tokens, used, truncated=True)


def _invalid(provider: Provider, body: JSON) -> Answer:
    if asked_for(body) is None and not wants_json(body):
        return answer(provider, body)
    usual = answer_text(provider, body)
    wrong = _NOT_JSON if len(usual) % 2 else _OTHER_JSON
    return answer(provider, body, text=wrong)
