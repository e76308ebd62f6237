"""Lines of Anthropic's result files: what each says of its request."""

from __future__ import annotations

from typing import Any

from batchata_tasks.common.json import as_dict
from batchata_tasks.common.text import is_unicode
from batchata_tasks.providers.result_lines import count_of, joined, text_of
from batchata_tasks.types.answer import Answer, Usage
from batchata_tasks.types.outcome import ErrorCode, Outcome, describe

_MOST_PLACES = 2**31


def answer_of(line: dict[str, Any]) -> Answer:
    """Classify a line."""
    custom_id, result = str(line["custom_id"]), line["result"]
    match result["type"]:
        case "succeeded":
            return _message(custom_id, result["message"])
        case "errored":
            error = result["error"].get("error", result["error"])  # nested twice
            wrong = error.get("type") in (
                "invalid_request_error",
                "not_found_error",
                "request_too_large",
            )
            code = ErrorCode.REQUEST if wrong else ErrorCode.PROVIDER
            return Answer(
                custom_id,
                Outcome.ERRORED,
                error=describe(code, f"{error.get('type')}: {error.get('message')}"),
            )
        case "expired":
            return Answer(
                custom_id,
                Outcome.EXPIRED,
                error=describe(ErrorCode.NEVER_RAN, "the batch expired first"),
            )
        case "canceled":
            return Answer(
                custom_id,
                Outcome.CANCELED,
                error=describe(ErrorCode.NEVER_RAN, "the batch was cancelled first"),
            )
        case other:
            # nobody knows what it cost
            return Answer(
                custom_id,
                Outcome.ERRORED,
                error=describe(ErrorCode.PROVIDER, f"unknown result type {other!r}"),
                readable=False,
            )


def _message(custom_id: str, message: dict[str, Any]) -> Answer:
    usage = usage_of(as_dict(message.get("usage")))
    blocks = [block for block in message.get("content") or () if block.get("type") == "text"]
    text = joined(text_of(block["text"]) or "" for block in blocks)
    cited = tuple(
        _citation(as_dict(found)) for block in blocks for found in block.get("citations") or ()
    )
    outcome, error = Outcome.SUCCEEDED, None
    match message.get("stop_reason"):
        case "end_turn" | "stop_sequence":
            pass
        case "max_tokens" | "model_context_window_exceeded" as reason:
            outcome, error = (
                Outcome.TRUNCATED,
                describe(ErrorCode.TRUNCATED, f"stopped by {reason}"),
            )
        case "refusal":
            why = as_dict(message.get("stop_details")).get("explanation") or "the model refused"
            outcome, error = Outcome.REFUSED, describe(ErrorCode.REFUSED, str(why))
        case other:
            outcome, error = (
                Outcome.INVALID,
                describe(ErrorCode.RESPONSE, f"stopped by {other!r}, which is no finished answer"),
            )
    return Answer(
        custom_id,
        outcome,
        text,
        error,
        usage,
        text_of(message.get("model")),
        usage != Usage(),
        cited,
    )


def _citation(found: dict[str, Any]) -> dict[str, Any]:
    """Return a row of `_citations`; what is wrong with a citation does not make its answer unreadable.

    Pages count from 1, and characters from 0; the provider's ends are exclusive.
    """
    text, document, after = (
        found.get("cited_text"),
        found.get("document_title"),
        _place(found, "end_page_number"),
    )
    return {
        "cited_text": text if is_unicode(text) else None,
        "document": document if is_unicode(document) else None,
        "page_start": _place(found, "start_page_number"),
        "page_end": after - 1 if after else None,
        "char_start": _place(found, "start_char_index"),
        "char_end": _place(found, "end_char_index"),
    }


def _place(found: dict[str, Any], name: str) -> int | None:
    value = found.get(name)
    return (
        value
        if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < _MOST_PLACES
        else None
    )


def usage_of(usage: dict[str, Any]) -> Usage:
    """Anthropic's input_tokens leave cached tokens out: add them.

    Of what was written to caches both the sum and its parts are optional.
    """
    read, parts = (
        count_of(usage.get("cache_read_input_tokens")),
        as_dict(usage.get("cache_creation")),
    )
    hour, minutes = (
        count_of(parts.get("ephemeral_1h_input_tokens")),
        count_of(parts.get("ephemeral_5m_input_tokens")),
    )
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
