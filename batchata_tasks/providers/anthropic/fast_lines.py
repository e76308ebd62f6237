"""The plain line of Anthropic's results, read at once; all others are read as ever.

Most lines hold one text and plain counts. `answer_of` reads whatever servers write, and takes
longer. What is read here reads alike there, to the last field.
"""

from __future__ import annotations

from typing import Any

from batchata_tasks.providers.result_json import name_of, plain_count
from batchata_tasks.providers.result_lines import plain_custom_id
from batchata_tasks.types.answer import Answer, Usage
from batchata_tasks.types.outcome import Outcome


def plain_answer(line: Any, models: dict[str, str | None]) -> Answer | None:
    """Read a plain line; None, or an error as for `read_lines`, if it is another one.

    `models` holds the names of models as they were read before.
    """
    result = line["result"]
    message = result["message"]
    (block,) = message["content"]
    text, model = block["text"], message["model"]
    plain = (
        message["stop_reason"] == "end_turn"
        and result["type"] == "succeeded"
        and block["type"] == "text"
        and not block.get("citations")
        and type(text) is str
        and type(model) is str
    )
    usage = _usage(message["usage"]) if plain else None
    if usage is None:
        return None
    if model not in models:
        models[model] = name_of(model)
    return Answer(plain_custom_id(line), Outcome.SUCCEEDED, text, None, usage, models[model])


def _usage(usage: dict[str, Any]) -> Usage | None:
    """Read plain counts that state all that was billed; None if there is more to read."""
    if usage.get("iterations") or usage.get("server_tool_use"):
        return None
    if usage.get("inference_geo") == "us":
        return None
    hour = minutes = 0
    if parts := usage.get("cache_creation"):
        hour = plain_count(parts.get("ephemeral_1h_input_tokens"))
        minutes = plain_count(parts.get("ephemeral_5m_input_tokens"))
    sent, received = plain_count(usage.get("input_tokens")), plain_count(usage["output_tokens"])
    cached = plain_count(usage.get("cache_read_input_tokens"))
    stored = plain_count(usage.get("cache_creation_input_tokens"))
    if min(sent, received, cached, stored, hour, minutes) < 0 or usage["output_tokens"] is None:
        return None
    stored = max(stored, hour + minutes)
    whole = sent + cached + stored
    return Usage(whole, received, cached, stored - hour, hour) if whole else None
