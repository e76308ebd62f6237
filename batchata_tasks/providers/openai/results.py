"""The lines of OpenAI's result files, of either endpoint, classified.

Usage, the reason for the end, text and model are read each by itself: what is odd in one of them
spoils no other. Servers that speak this API differ in all of them.
"""

from __future__ import annotations

from functools import partial
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from batchata_tasks.providers.endings import (
    blocks_of,
    content_text,
    ending_of,
    last_speech,
    last_text,
)
from batchata_tasks.providers.line_errors import LineError, told
from batchata_tasks.providers.result_json import count_of, leniently, list_of, name_of, object_of
from batchata_tasks.providers.result_lines import custom_id_of, unread
from batchata_tasks.types.answer import Answer, Usage
from batchata_tasks.types.outcome import ErrorCode, Outcome, describe

if TYPE_CHECKING:
    from collections.abc import Callable

_NAMES = (("prompt_tokens", "completion_tokens"), ("input_tokens", "output_tokens"))
_TOTAL = "total_tokens"
_FILTERED = "stopped by the content filter"
_ANSWER = frozenset({"choices", "output"})
_BODY = _ANSWER | {"usage"}
_EMPTY = frozenset({"status_code", "request_id", "body"})
_ERROR_WORDS = frozenset({"detail", "message", "msg"})  # of a body that is an error itself


def answer_of(line: dict[str, Any]) -> Answer:
    """Classify a line."""
    custom_id, response = custom_id_of(line), _response_of(line)
    body, status = _body(response), _status(response)
    usage, stated = stated_usage(body.get("usage") or response.get("usage") or line.get("usage"))
    if status is None or status < HTTPStatus.BAD_REQUEST:
        read = _response if _is_response(body) else _completion
        answer = read(custom_id, body, usage, stated=stated)
        if answer is not None:
            return answer
    answer = _without_completion(custom_id, line, response, status)
    return answer._replace(usage=usage) if usage != Usage() else answer


def _response_of(line: dict[str, Any]) -> dict[str, Any]:
    """Return a line's response; some servers write its body into the line, or in its place."""
    if response := object_of(line.get("response")):
        return response
    places = (line.get("body"), line.get("result"), line)
    bodies = (place for place in places if _ANSWER & object_of(place).keys())
    return {"body": body} if (body := next(bodies, None)) is not None else {}


def _body(response: dict[str, Any]) -> dict[str, Any]:
    """Return the body of a response, which some servers leave out: the response is the answer."""
    body = object_of(response.get("body"))
    return response if not body and _BODY & response.keys() else body


def _status(response: dict[str, Any]) -> int | None:
    """Return the HTTP status of a response, None if it states none."""
    try:
        return count_of(response.get("status_code")) or None
    except ValueError:
        return None


def _without_completion(
    custom_id: str, line: dict[str, Any], response: dict[str, Any], status: int | None
) -> Answer:
    """Read a line that holds no answer of a model: an error, in the server's own words.

    A refused request has them in its body, and the line's own `error` is null. Of a request that
    never ran, `error` is set and the response null.
    """
    came = response.get("body")
    body, refused = object_of(came), status is not None and status >= HTTPStatus.BAD_REQUEST
    error = told(line.get("error"), body.get("error"), response.get("error"))
    if error is None and (refused or _ERROR_WORDS & body.keys()):
        error = told(came) or LineError("an error without any words")
    if error is not None:
        shown = f"HTTP {status}: {error.message}" if refused else None
        return error.answer(custom_id, status=status if refused else None, shown=shown)
    if response and status is None and not came and response.keys() <= _EMPTY:
        # seen as status 0 with an empty body
        return LineError("the provider lost the request (no status, no body)").answer(custom_id)
    what = f"HTTP {status}" if response else "no response"
    told_instead = {name: line[name] for name in line if name != "custom_id"}
    return unread(custom_id, what, came if response else line.get("response") or told_instead)


def _completion(
    custom_id: str, body: dict[str, Any], usage: Usage, *, stated: bool
) -> Answer | None:
    """Read a chat completion; None if the body is none."""
    choices = (object_of(item) for item in list_of(body.get("choices")))
    choice = next(filter(None, choices), dict[str, Any]())
    message = object_of(choice.get("message"))
    text = content_text(message.get("content"))
    if text is None:
        text = content_text(choice.get("text"))
    reason, refusal = choice.get("finish_reason"), message.get("refusal")
    if not message and text is None and reason is None:
        return None
    outcome, error = ending_of(reason, text, f"stopped by the token cap ({reason})")
    if refusal or outcome is Outcome.REFUSED:
        outcome = Outcome.REFUSED
        error = describe(ErrorCode.REFUSED, str(refusal or _FILTERED))
    model, last = name_of(body.get("model")), last_text(message.get("content"))
    return Answer(custom_id, outcome, text, error, usage, model, stated, last=last)


def stated_usage(block: object) -> tuple[Usage, bool]:
    """Return a usage block's counts, and whether it states all that was billed."""
    usage = object_of(block)
    counted, valid = leniently(partial(usage_of, usage))
    received = any(usage.get(name) is not None for _, name in _NAMES)
    return counted, valid and received and counted.input_tokens > 0


def usage_of(usage: dict[str, Any], count: Callable[[object], int] = count_of) -> Usage:
    """Read a usage block, which names its counts as either endpoint does.

    The input includes cached tokens, and the output those of reasoning; some servers count either
    apart, or so that only the total has them.
    """
    sent, received = _NAMES[0]
    if usage.get(sent) is None and usage.get(received) is None:
        sent, received = _NAMES[1]
    details = object_of(usage.get(f"{sent}_details"))
    read, written = count(usage.get(sent)), count(usage.get(received))
    cached, stored = count(details.get("cached_tokens")), count(details.get("cache_write_tokens"))
    if cached + stored > read:  # they stand beside the input
        read += cached + stored
    written = max(written, _with_reasoning(usage, received, written), _count(usage, _TOTAL) - read)
    return Usage(read, written, cached, stored)


def _with_reasoning(usage: dict[str, Any], received: str, written: int) -> int:
    """Return the output with tokens of reasoning that it cannot include, as they are more."""
    reasoning = _count(object_of(usage.get(f"{received}_details")), "reasoning_tokens")
    return written + reasoning if reasoning > written else written


def _count(holder: dict[str, Any], name: str) -> int:
    """Return a count that nothing depends on if it is absent or none."""
    try:
        return count_of(holder.get(name))
    except ValueError:
        return 0


def _is_response(body: dict[str, Any]) -> bool:
    return body.get("object") == "response" or ("output" in body and "choices" not in body)


def _response(custom_id: str, body: dict[str, Any], usage: Usage, *, stated: bool) -> Answer | None:
    """Read a response of /v1/responses; None if the body is none."""
    items = [object_of(item) for item in list_of(body.get("output"))]
    said = ((_is_speech(item), item) for item in items if item.get("type") != "reasoning")
    parts = [part for item in last_speech(said) for part in blocks_of(item.get("content"))]
    text = content_text(list(parts)) if parts else content_text(body.get("output_text"))
    refusals = [str(part.get("refusal")) for part in parts if part.get("type") == "refusal"]
    status = str(body.get("status") or "").lower()
    if status == "failed":
        return _failed(custom_id, body, usage)
    if not parts and text is None and (not status or told(body.get("error"))):
        return None
    outcome, error = _response_ending(body, status, text, refusals)
    model, last = name_of(body.get("model")), last_text(list(parts))
    return Answer(custom_id, outcome, text, error, usage, model, stated, last=last)


def _is_speech(item: dict[str, Any]) -> bool:
    """Whether an item belongs to the answer; commentary does not."""
    kind = item.get("type")
    is_message = kind is None or str(kind).lower() == "message"
    return is_message and item.get("phase") != "commentary"


def _failed(custom_id: str, body: dict[str, Any], usage: Usage) -> Answer:
    """Read a response whose own status is that it failed."""
    error = told(body.get("error")) or LineError("the response failed without a reason")
    return error.answer(custom_id)._replace(usage=usage, model=name_of(body.get("model")))


def _response_ending(
    body: dict[str, Any], status: str, text: str | None, refusals: list[str]
) -> tuple[Outcome, str | None]:
    """Return how a response of /v1/responses ended; `status` is its own, in small letters."""
    if refusals:
        return Outcome.REFUSED, describe(ErrorCode.REFUSED, " ".join(refusals))
    details = object_of(body.get("incomplete_details"))
    if status != "incomplete" and not (details.get("reason") and not status):
        outcome, error = ending_of(status, text, f"stopped by the token cap ({status})")
        if outcome is Outcome.INVALID:
            error = _unfinished(body.get("status"))
        return outcome, error
    reason = details.get("reason")
    outcome, error = ending_of(reason, None, f"stopped by the token cap ({reason})")
    if outcome is Outcome.REFUSED:
        return outcome, describe(ErrorCode.REFUSED, _FILTERED)
    if outcome is Outcome.TRUNCATED:
        return outcome, error
    return Outcome.INVALID, _unfinished(f"incomplete, {reason}" if reason else "incomplete")


def _unfinished(ending: object) -> str:
    why = f"ended as {ending!r:.100}, which is not a finished answer"
    return describe(ErrorCode.RESPONSE, why)
