"""The plain answer of either endpoint among OpenAI's results, read at once.

Most lines hold one text and plain counts. `answer_of` reads whatever servers write, and takes
longer. What is read here reads alike there, to the last field.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import Any, NamedTuple

from batchata_tasks.providers.result_json import name_of, plain_count
from batchata_tasks.providers.result_lines import plain_custom_id
from batchata_tasks.types.answer import Answer, Usage
from batchata_tasks.types.outcome import Outcome


class _Names(NamedTuple):
    """What an endpoint calls the counts of its usage."""

    sent: str
    received: str
    sent_details: str
    received_details: str


_CHAT = _Names(
    "prompt_tokens", "completion_tokens", "prompt_tokens_details", "completion_tokens_details"
)
_RESPONSES = _Names(
    "input_tokens", "output_tokens", "input_tokens_details", "output_tokens_details"
)


def plain_answer(line: Any, models: dict[str, str | None]) -> Answer | None:
    """Read a plain line; None, or an error as for `read_lines`, if it is another one.

    `models` holds the names of models as they were read before.
    """
    response = line["response"]
    body = response["body"]
    kind, model = body["object"], body["model"]
    if response["status_code"] != HTTPStatus.OK or type(model) is not str:
        return None
    if kind == "chat.completion":
        text, usage = _text_of_chat(body), _usage(body["usage"], _CHAT)
    elif kind == "response":
        text, usage = _text_of_response(body), _usage_of_response(body["usage"])
    else:
        return None
    if type(text) is not str or usage is None:
        return None
    if model not in models:
        models[model] = name_of(model)
    return Answer(plain_custom_id(line), Outcome.SUCCEEDED, text, None, usage, models[model])


def _text_of_chat(body: dict[str, Any]) -> object:
    """Return the text of a chat completion that ended by itself; None if there is more to read."""
    (choice,) = body["choices"]
    message = choice["message"]
    is_plain = choice["finish_reason"] == "stop" and not message.get("refusal")
    return message["content"] if is_plain else None


def _text_of_response(body: dict[str, Any]) -> object:
    """Return the one text of a completed response; None if there is more to read.

    What a model thought before it stands in items of their own, which are no part of the answer.
    """
    (item,) = (item for item in body["output"] if item["type"] != "reasoning")
    (block,) = item["content"]
    is_plain = (
        body["status"] == "completed"
        and item["type"] == "message"
        and item.get("phase") != "commentary"
        and block["type"] == "output_text"
    )
    return block["text"] if is_plain else None


def _usage_of_response(usage: dict[str, Any]) -> Usage | None:
    """Read the counts of a response; None if they have the names of the other endpoint, too."""
    if usage.get(_CHAT.sent) is not None or usage.get(_CHAT.received) is not None:
        return None
    return _usage(usage, _RESPONSES)


def _usage(usage: dict[str, Any], names: _Names) -> Usage | None:
    """Read plain counts that state all that was billed and agree; None if there is more to read."""
    sent, received = plain_count(usage[names.sent]), plain_count(usage[names.received])
    total = plain_count(usage.get("total_tokens"))
    cached = stored = reasoning = 0
    if details := usage.get(names.sent_details):
        cached = plain_count(details.get("cached_tokens"))
        stored = plain_count(details.get("cache_write_tokens"))
    if details := usage.get(names.received_details):
        reasoning = plain_count(details.get("reasoning_tokens"))
    if min(total, cached, stored, reasoning) < 0 or sent <= 0 or received <= 0:
        return None
    if cached + stored > sent or reasoning > received or total > sent + received:
        return None  # some servers count these apart
    return Usage(sent, received, cached, stored)
