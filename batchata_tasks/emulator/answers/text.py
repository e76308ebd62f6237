"""The answers of the emulated models, which tests can recompute: pure functions of the request.

Their length and language are a setting of the emulator (`lengths.py`), the other argument. An
answer echoes a number, a hash of the request's content, not of its custom_id: so a test can see
whether a row got the answer to another one. Its other texts are words of the prompt.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import Any, Literal, NamedTuple, TypeAlias

import orjson

from batchata_tasks.emulator.answers.lengths import Lengths
from batchata_tasks.emulator.answers.reading import as_read
from batchata_tasks.emulator.answers.schema_values import Draw, echo_of
from batchata_tasks.emulator.answers.schemas import JSON, as_object, asked_for, compiled
from batchata_tasks.emulator.answers.tokens import Cached, blocks_of, cut, input_tokens, text_tokens

Provider: TypeAlias = Literal["anthropic", "openai"]
"""The two imitated providers."""

_WORDS = 8
_READ = 400  # characters of a prompt that are read: its last ones, since templates end with the row
_REASONED = {"minimal": 8, "low": 16, "medium": 32, "high": 64, "xhigh": 128, "max": 256}
"""The tokens that an OpenAI model reasons at each effort; without an effort, it does not reason."""
_NO_CAP = 1 << 30
USUAL = Lengths()
"""Short answers that echo words of their prompt."""


class Answer(NamedTuple):
    """A finished answer with the usage that is billed for it."""

    text: str
    input_tokens: int
    output_tokens: int
    truncated: bool
    cached: Cached = Cached()
    """The part of the input that was read from or written to a cache."""
    reasoned: int = 0
    """How many of the output tokens came before the text."""


def answer_text(provider: Provider, body: JSON, lengths: Lengths = USUAL) -> str:
    """Return the full answer to a request body, before its output cap cuts it.

    Drawn lengths are those of plain answers; of a structured one, the first string that its schema
    leaves free grows to the drawn length.
    """
    messages = _messages(body)
    digest = blake2b(
        orjson.dumps([body.get("system"), body.get("instructions"), messages]), digest_size=16
    ).digest()
    schema, drawn = asked_for(body), lengths.lengths != "default"
    if schema is not None:
        filler = lengths.text("", digest) if drawn else ""
        draw = Draw(digest, filler, _prompt_of(messages))
        value = compiled(orjson.dumps(schema))(draw, 0)
        return orjson.dumps(as_read(value, schema, messages)).decode()
    head = f"Echo {echo_of(digest)}:"
    text = lengths.text(head, digest) if drawn else f"{head} {_first_words(messages)}"
    if provider == "openai" and wants_json(body):
        return orjson.dumps({"echo": text}).decode()
    return text


def answer(
    provider: Provider, body: JSON, *, text: str | None = None, lengths: Lengths = USUAL
) -> Answer:
    """Answer a request under its output cap; `text` replaces the answer's usual words."""
    full = answer_text(provider, body, lengths) if text is None else text
    cap = output_cap(body)
    reasoned = min(reasoning_tokens(body), cap) if provider == "openai" else 0
    used = max(1, text_tokens(full)) + reasoned
    if used <= cap:
        return Answer(full, input_tokens(body), used, truncated=False, reasoned=reasoned)
    text = cut(full, cap - reasoned)
    return Answer(text, input_tokens(body), cap, truncated=True, reasoned=reasoned)


def reasoning_tokens(body: JSON) -> int:
    """Return how many tokens an OpenAI model reasons for a request; they count against its cap."""
    effort: Any = body.get("reasoning_effort", as_object(body.get("reasoning")).get("effort"))
    return _REASONED.get(str(effort), 0)


def output_cap(body: JSON) -> int:
    """Return the cap on output tokens under whichever name the request gives it."""
    for name in ("max_tokens", "max_completion_tokens", "max_output_tokens"):
        cap = body.get(name)
        if isinstance(cap, int):
            return cap
    return _NO_CAP


def wants_json(body: JSON) -> bool:
    """Whether an OpenAI request asks for JSON without a schema."""
    forms = (
        as_object(body.get("response_format")),
        as_object(as_object(body.get("text")).get("format")),
    )
    return any(form.get("type") == "json_object" for form in forms)


def _messages(body: JSON) -> Any:
    return body.get("messages", body.get("input"))


def _prompt_of(messages: Any) -> str:
    """Return the last text of a request's turns."""
    found = "no text"
    for block in blocks_of(messages):
        text = block.get("text")
        if isinstance(text, str) and text.strip():
            found = text
    return found[-_READ:]


def _first_words(messages: Any) -> str:
    return " ".join(_prompt_of(messages).split()[:_WORDS])
