"""The lines of Anthropic's result files, classified."""

from __future__ import annotations

from typing import Any

from batchata_tasks.common.json import as_dict
from batchata_tasks.common.text import is_unicode
from batchata_tasks.providers.result_lines import count_of, joined, never_ran, text_of
from batchata_tasks.types.answer import Answer, Usage
from batchata_tasks.types.outcome import ErrorCode, Outcome, describe

_MOST_PLACES = 2**31
_WRONG_REQUEST = frozenset({"invalid_request_error", "not_found_error", "request_too_large"})


def answer_of(line: dict[str, Any]) -> Answer:
    """Classify a line."""
    custom_id, result = str(line["custom_id"]), line["result"]
    match result["type"]:
        case "succeeded":
            return _message(custom_id, result["message"])
        case "errored":
            error = result["error"].get("error", result["error"])  # nested twice
            kind = error.get("type")
            code = ErrorCode.REQUEST if kind in _WRONG_REQUEST else ErrorCode.PROVIDER
            text = describe(code, f"{kind}: {error.get('message')}")
            return Answer(custom_id, Outcome.ERRORED, error=text)
        case "expired":
            return never_ran(custom_id, Outcome.EXPIRED, "the batch expired first")
        case "canceled":
            return never_ran(custom_id, Outcome.CANCELED, "the batch was cancelled first")
        case other:  # what it cost is unknown
            text = describe(ErrorCode.PROVIDER, f"unknown result type {other!r}")
            return Answer(custom_id, Outcome.ERRORED, error=text, readable=False)


def _message(custom_id: str, message: dict[str, Any]) -> Answer:
    usage = usage_of(as_dict(message.get("usage")))
    blocks = [block for block in message.get("content") or () if block.get("type") == "text"]
    citations = (as_dict(item) for block in blocks for item in block.get("citations") or ())
    outcome, error = _ending(message)
    return Answer(
        custom_id,
        outcome,
        text=joined(text_of(block["text"]) or "" for block in blocks),
        error=error,
        usage=usage,
        model=text_of(message.get("model")),
        readable=usage != Usage(),
        citations=tuple(map(_citation, citations)),
    )


def _ending(message: dict[str, Any]) -> tuple[Outcome, str | None]:
    """Return how an answer ended, by its stop reason."""
    match message.get("stop_reason"):
        case "end_turn" | "stop_sequence":
            return Outcome.SUCCEEDED, None
        case "max_tokens" | "model_context_window_exceeded" as reason:
            return Outcome.TRUNCATED, describe(ErrorCode.TRUNCATED, f"stopped by {reason}")
        case "refusal":
            why = as_dict(message.get("stop_details")).get("explanation") or "the model refused"
            return Outcome.REFUSED, describe(ErrorCode.REFUSED, str(why))
        case other:
            text = f"stopped by {other!r}, which is not a finished answer"
            return Outcome.INVALID, describe(ErrorCode.RESPONSE, text)


def _citation(citation: dict[str, Any]) -> dict[str, Any]:
    """Return a row of `_citations`; an invalid citation does not make its answer unreadable.

    Pages count from 1, and characters from 0; the provider's ends are exclusive.
    """
    text, document = citation.get("cited_text"), citation.get("document_title")
    page_after = _place(citation, "end_page_number")
    return {
        "cited_text": text if is_unicode(text) else None,
        "document": document if is_unicode(document) else None,
        "page_start": _place(citation, "start_page_number"),
        "page_end": page_after - 1 if page_after else None,
        "char_start": _place(citation, "start_char_index"),
        "char_end": _place(citation, "end_char_index"),
    }


def _place(citation: dict[str, Any], name: str) -> int | None:
    value = citation.get(name)
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < _MOST_PLACES:
        return value
    return None


def usage_of(usage: dict[str, Any]) -> Usage:
    """Read a usage block. Its `input_tokens` leave out cached tokens, which are added here.

    For tokens written to caches, both the sum and its parts are optional.
    """
    read = count_of(usage.get("cache_read_input_tokens"))
    parts = as_dict(usage.get("cache_creation"))
    hour = count_of(parts.get("ephemeral_1h_input_tokens"))
    minutes = count_of(parts.get("ephemeral_5m_input_tokens"))
    written = max(count_of(usage.get("cache_creation_input_tokens")), hour + minutes)
    return Usage(
        input_tokens=count_of(usage.get("input_tokens")) + read + written,
        output_tokens=count_of(usage.get("output_tokens")),
        cache_read_tokens=read,
        cache_write_tokens=written - hour,
        cache_write_1h_tokens=hour,
        web_searches=count_of(as_dict(usage.get("server_tool_use")).get("web_search_requests")),
        us_only=usage.get("inference_geo") == "us",
    )
