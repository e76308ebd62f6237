"""The plain chat completion among OpenAI's results, read at once.

Most lines hold one text and plain counts. `answer_of` reads whatever servers write, and takes
longer. What is read here reads alike there, to the last field.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from batchata_tasks.providers.result_json import name_of, plain_count
from batchata_tasks.providers.result_lines import plain_custom_id
from batchata_tasks.types.answer import Answer, Usage
from batchata_tasks.types.outcome import Outcome


def plain_answer(line: Any, models: dict[str, str | None]) -> Answer | None:
    """Read a plain line; None, or an error as for `read_lines`, if it is another one.

    `models` holds the names of models as they were read before.
    """
    response = line["response"]
    body = response["body"]
    (choice,) = body["choices"]
    message, model = choice["message"], body["model"]
    text = message["content"]
    plain = (
        choice["finish_reason"] == "stop"
        and response["status_code"] == HTTPStatus.OK
        and body["object"] == "chat.completion"
        and not message.get("refusal")
        and type(text) is str
        and type(model) is str
    )
    usage = _usage(body["usage"]) if plain else None
    if usage is None:
        return None
    if model not in models:
        models[model] = name_of(model)
    return Answer(plain_custom_id(line), Outcome.SUCCEEDED, text, None, usage, models[model])


def _usage(usage: dict[str, Any]) -> Usage | None:
    """Read plain counts that state all that was billed and agree; None if there is more to read."""
    sent, received = plain_count(usage["prompt_tokens"]), plain_count(usage["completion_tokens"])
    total = plain_count(usage.get("total_tokens"))
    cached = stored = reasoning = 0
    if details := usage.get("prompt_tokens_details"):
        cached = plain_count(details.get("cached_tokens"))
        stored = plain_count(details.get("cache_write_tokens"))
    if details := usage.get("completion_tokens_details"):
        reasoning = plain_count(details.get("reasoning_tokens"))
    if min(total, cached, stored, reasoning) < 0 or sent <= 0 or received <= 0:
        return None
    if cached + stored > sent or reasoning > received or total > sent + received:
        return None  # some servers count these apart
    return Usage(sent, received, cached, stored)
