"""The lines of Anthropic's result files, classified.

Usage, stop reason, text, model and citations are read each by itself: what is odd in one of them
spoils no other.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from batchata_tasks.common.text import is_unicode
from batchata_tasks.providers.endings import (
    blocks_of,
    content_text,
    ending_of,
    is_text,
    last_speech,
    last_text,
)
from batchata_tasks.providers.line_errors import told
from batchata_tasks.providers.result_json import count_of, leniently, list_of, name_of, object_of
from batchata_tasks.providers.result_lines import custom_id_of, never_ran, unread
from batchata_tasks.types.answer import Answer, Usage, summed
from batchata_tasks.types.outcome import ErrorCode, Outcome, describe

if TYPE_CHECKING:
    from collections.abc import Callable

_MOST_PLACES = 2**31
_KNOWN_TYPES = frozenset({"errored", "succeeded", "none"})  # what another one cost is unknown
_BESIDE_TOTALS = ("compaction", "advisor_message")  # a type may be anything, also a list
_CAP = "stopped by max_tokens"


def answer_of(line: dict[str, Any]) -> Answer:
    """Classify a line."""
    custom_id, result = custom_id_of(line), object_of(line.get("result"))
    message, kind = object_of(result.get("message")), str(result.get("type")).lower()
    usage, stated = stated_usage(message.get("usage"))
    answered = "content" in message or message.get("stop_reason") is not None
    if answered and kind in ("succeeded", "none"):
        return _message(custom_id, message, usage, stated=stated)
    answer = _without_message(custom_id, kind, line, result)
    return answer._replace(usage=usage) if usage != Usage() else answer


def _without_message(
    custom_id: str, kind: str, line: dict[str, Any], result: dict[str, Any]
) -> Answer:
    """Read the result of a request that brought no message."""
    if kind == "expired":
        return never_ran(custom_id, Outcome.EXPIRED, "the batch expired first")
    if kind in ("canceled", "cancelled"):
        return never_ran(custom_id, Outcome.CANCELED, "the batch was cancelled first")
    error = told(result.get("error"), line.get("error"))
    if error is None and kind != "errored":
        error = told(_error_in(result.get("message")), _error_in(line.get("result")))
    if error is not None:
        shown = f"{error.kind}: {error.message}" if error.kind and not error.code else None
        answer = error.answer(custom_id, shown=shown)
        return answer._replace(readable=kind in _KNOWN_TYPES)
    if kind == "errored":
        text = describe(ErrorCode.PROVIDER, "an error of the provider without any words")
        return Answer(custom_id, Outcome.ERRORED, error=text)
    return unread(custom_id, f"result type {result.get('type')!r:.100}", line.get("result"))


def _error_in(value: object) -> object:
    """Return the error that stands where a message or a result should."""
    held = object_of(value)
    return value if held.get("type") == "error" else held.get("error")


def _message(custom_id: str, message: dict[str, Any], usage: Usage, *, stated: bool) -> Answer:
    blocks = blocks_of(message.get("content"))
    spoken = last_speech((is_text(block), block) for block in blocks)
    text = content_text(list(spoken)) if spoken else None
    citations = (object_of(item) for block in spoken for item in list_of(block.get("citations")))
    outcome, error = _ending(message, text)
    return Answer(
        custom_id,
        outcome,
        text=text,
        error=error,
        usage=usage,
        model=name_of(message.get("model")),
        readable=stated,
        citations=tuple(_citation(citation) for citation in citations if citation),
        last=last_text(list(spoken)),
    )


def _ending(message: dict[str, Any], text: str | None) -> tuple[Outcome, str | None]:
    """Return how an answer ended, by its stop reason."""
    reason = message.get("stop_reason")
    outcome, error = ending_of(reason, text, f"stopped by {reason}")
    if outcome is Outcome.REFUSED:
        why = object_of(message.get("stop_details")).get("explanation") or "the model refused"
        error = describe(ErrorCode.REFUSED, str(why))
    return outcome, error


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


def stated_usage(block: object) -> tuple[Usage, bool]:
    """Return a usage block's counts, and whether it states all that was billed."""
    usage = object_of(block)
    counted, valid = leniently(partial(usage_of, usage))
    return counted, valid and usage.get("output_tokens") is not None and counted.input_tokens > 0


def usage_of(usage: dict[str, Any], count: Callable[[object], int] = count_of) -> Usage:
    """Read a usage block. Its `input_tokens` leave out cached tokens, which are added here.

    For tokens written to caches, both the sum and its parts are optional. If the answer took
    several iterations, each is priced by itself: a compaction is billed, and not in the totals
    (https://platform.claude.com/docs/en/build-with-claude/compaction).
    """
    us_only = usage.get("inference_geo") == "us"
    searches = count(object_of(usage.get("server_tool_use")).get("web_search_requests"))
    top = _tokens(usage, count, searches, us_only=us_only)
    if not (entries := [object_of(entry) for entry in list_of(usage.get("iterations"))]):
        return top
    whole = top._replace(web_searches=0)
    inside = [_tokens(each, count, us_only=us_only) for each in entries if not _is_beside(each)]
    beside = [_tokens(each, count, us_only=us_only) for each in entries if _is_beside(each)]
    parts = (*(inside if _covers(summed(inside), whole) else [whole]), *beside)
    if len(parts) == 1:
        return parts[0]._replace(web_searches=searches)
    return summed(parts)._replace(us_only=us_only, web_searches=searches, iterations=parts)


def _is_beside(entry: dict[str, Any]) -> bool:
    """Whether an iteration is one that the totals leave out."""
    return entry.get("type") in _BESIDE_TOTALS


def _covers(parts: Usage, whole: Usage) -> bool:
    """Whether iterations together hold all tokens of the totals, of each kind."""
    return (
        parts.input_tokens >= whole.input_tokens
        and parts.output_tokens >= whole.output_tokens
        and parts.cache_write_tokens >= whole.cache_write_tokens
        and parts.cache_write_1h_tokens >= whole.cache_write_1h_tokens
    )


def _tokens(
    usage: dict[str, Any],
    count: Callable[[object], int],
    searches: int = 0,
    *,
    us_only: bool,
) -> Usage:
    """Read the tokens of an answer, or of one of its iterations."""
    read = count(usage.get("cache_read_input_tokens"))
    parts = object_of(usage.get("cache_creation"))
    hour = count(parts.get("ephemeral_1h_input_tokens"))
    minutes = count(parts.get("ephemeral_5m_input_tokens"))
    written = max(count(usage.get("cache_creation_input_tokens")), hour + minutes)
    return Usage(
        count(usage.get("input_tokens")) + read + written,
        count(usage.get("output_tokens")),
        read,
        written - hour,
        hour,
        searches,
        us_only,
    )
