"""The lines of OpenAI's result files, of either endpoint, classified."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from batchata_tasks.common.json import as_dict
from batchata_tasks.providers.result_lines import count_of, never_ran, text_of
from batchata_tasks.types.answer import Answer, Usage
from batchata_tasks.types.outcome import ErrorCode, Outcome, describe

if TYPE_CHECKING:
    from collections.abc import Iterator

# of the 4xx, those that the same request need not meet again
_PASSING_STATUSES = frozenset(
    {HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.CONFLICT, HTTPStatus.TOO_MANY_REQUESTS}
)
# errors of a response that the same request meets again; all others pass
_WRONG_REQUEST = frozenset(
    {"invalid_prompt", "data_residency_mismatch", "bio_policy", "misalignment_policy_violation"}
)


def answer_of(line: dict[str, Any]) -> Answer:
    """Classify a line."""
    custom_id, response = str(line["custom_id"]), line.get("response")
    if response is None:
        return _without_response(custom_id, line.get("error") or {})
    body = as_dict(response.get("body"))
    status = int(response.get("status_code") or 0)
    if status >= HTTPStatus.BAD_REQUEST:
        # the body has the error: the line's own `error` is null here
        error = as_dict(body.get("error"))
        final = status < HTTPStatus.INTERNAL_SERVER_ERROR and status not in _PASSING_STATUSES
        code = ErrorCode.REQUEST if final else ErrorCode.PROVIDER
        text = describe(code, f"HTTP {status}: {error.get('message') or error}")
        return Answer(custom_id, Outcome.ERRORED, error=text)
    if body.get("object") == "response":
        return _response(custom_id, body)
    return _completion(custom_id, body)


def _without_response(custom_id: str, error: dict[str, Any]) -> Answer:
    text = f"{error.get('code')}: {error.get('message')}"
    match error.get("code"):
        case "batch_expired":
            return never_ran(custom_id, Outcome.EXPIRED, text)
        case "batch_cancelled":
            return never_ran(custom_id, Outcome.CANCELED, text)
        case None:  # what it cost is unknown
            text = describe(ErrorCode.PROVIDER, "a result line with neither response nor error")
            return Answer(custom_id, Outcome.ERRORED, error=text, readable=False)
        case _:
            text = describe(ErrorCode.PROVIDER, text)
            return Answer(custom_id, Outcome.ERRORED, error=text)


def _completion(custom_id: str, body: dict[str, Any]) -> Answer:
    """Read a chat completion."""
    choice = as_dict(next(iter(body.get("choices") or ()), None))
    message = as_dict(choice.get("message"))
    usage = usage_of(as_dict(body.get("usage")))
    outcome, error = _completion_ending(choice, message)
    return Answer(
        custom_id,
        outcome,
        text_of(message.get("content")),
        error,
        usage,
        model=text_of(body.get("model")),
        readable=usage != Usage(),
    )


def _completion_ending(
    choice: dict[str, Any], message: dict[str, Any]
) -> tuple[Outcome, str | None]:
    """Return how a chat completion ended."""
    refusal, reason = message.get("refusal"), choice.get("finish_reason")
    if refusal or reason == "content_filter":
        text = str(refusal or "stopped by the content filter")
        return Outcome.REFUSED, describe(ErrorCode.REFUSED, text)
    if reason == "length":
        text = "stopped by the token cap (length)"
        return Outcome.TRUNCATED, describe(ErrorCode.TRUNCATED, text)
    if reason != "stop":
        text = f"stopped by {reason!r}, which is not a finished answer"
        return Outcome.INVALID, describe(ErrorCode.RESPONSE, text)
    return Outcome.SUCCEEDED, None


def usage_of(
    usage: dict[str, Any], sent: str = "prompt_tokens", received: str = "completion_tokens"
) -> Usage:
    """Read a usage block; `sent` and `received` are its names for input and output.

    The input includes cached tokens, and the output those of reasoning.
    """
    details = as_dict(usage.get(f"{sent}_details"))
    return Usage(
        input_tokens=count_of(usage.get(sent)),
        output_tokens=count_of(usage.get(received)),
        cache_read_tokens=count_of(details.get("cached_tokens")),
        cache_write_tokens=count_of(details.get("cache_write_tokens")),
    )


def _response(custom_id: str, body: dict[str, Any]) -> Answer:
    """Read a response of /v1/responses."""
    usage = usage_of(as_dict(body.get("usage")), "input_tokens", "output_tokens")
    parts = list(_parts(body))
    texts = [text_of(part.get("text")) or "" for part in parts if part.get("type") == "output_text"]
    refusals = [str(part.get("refusal")) for part in parts if part.get("type") == "refusal"]
    outcome, error = _response_ending(body, refusals)
    return Answer(
        custom_id,
        outcome,
        "".join(texts) if texts else None,
        error,
        usage,
        text_of(body.get("model")),
        readable=usage != Usage() or body.get("status") == "failed",
    )


def _parts(body: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the parts of the answer's messages; reasoning and commentary do not belong to it."""
    for item in body.get("output") or ():
        if item.get("type") == "message" and item.get("phase") != "commentary":
            yield from item.get("content") or ()


def _response_ending(body: dict[str, Any], refusals: list[str]) -> tuple[Outcome, str | None]:
    """Return how a response of /v1/responses ended."""
    status, reason = body.get("status"), as_dict(body.get("incomplete_details")).get("reason")
    if status == "failed":
        failure = as_dict(body.get("error"))
        code = ErrorCode.REQUEST if failure.get("code") in _WRONG_REQUEST else ErrorCode.PROVIDER
        text = f"{failure.get('code')}: {failure.get('message')}"
        if not failure:
            text = "the response failed without a reason"
        return Outcome.ERRORED, describe(code, text)
    if refusals or (status == "incomplete" and reason == "content_filter"):
        text = " ".join(refusals) or "stopped by the content filter"
        return Outcome.REFUSED, describe(ErrorCode.REFUSED, text)
    if status == "incomplete" and reason == "max_output_tokens":
        text = f"stopped by the token cap ({reason})"
        return Outcome.TRUNCATED, describe(ErrorCode.TRUNCATED, text)
    if status != "completed":
        ending = f"{status}, {reason}" if reason else str(status)
        text = f"ended as {ending!r}, which is not a finished answer"
        return Outcome.INVALID, describe(ErrorCode.RESPONSE, text)
    return Outcome.SUCCEEDED, None
