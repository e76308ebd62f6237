"""Lines of OpenAI's result files: what each says of its request, of either endpoint."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from batchata_tasks.common.json import as_dict
from batchata_tasks.providers.result_lines import count_of, text_of
from batchata_tasks.types.answer import Answer, Usage
from batchata_tasks.types.outcome import ErrorCode, Outcome, describe

if TYPE_CHECKING:
    from collections.abc import Iterator

_BAD_REQUEST, _TOO_MANY = 400, 429
# errors of a response that the same request meets again; all others pass
_WRONG = frozenset(
    {"invalid_prompt", "data_residency_mismatch", "bio_policy", "misalignment_policy_violation"}
)


def answer_of(line: dict[str, Any]) -> Answer:
    """Classify a line."""
    custom_id, response, error = str(line["custom_id"]), line.get("response"), line.get("error")
    if response is None:
        return _never_ran(custom_id, error or {})
    body = as_dict(response.get("body"))
    status = int(response.get("status_code") or 0)
    if status >= _BAD_REQUEST:
        # the code of the HTTP answer counts: the line's own `error` is null here
        said = as_dict(body.get("error"))
        wrong = _BAD_REQUEST <= status < 500 and status not in (408, 409, _TOO_MANY)  # noqa: PLR2004 - server errors
        code = ErrorCode.REQUEST if wrong else ErrorCode.PROVIDER
        return Answer(
            custom_id,
            Outcome.ERRORED,
            error=describe(code, f"HTTP {status}: {said.get('message') or said}"),
        )
    return (
        _response(custom_id, body)
        if body.get("object") == "response"
        else _completion(custom_id, body)
    )


def _never_ran(custom_id: str, error: dict[str, Any]) -> Answer:
    text = f"{error.get('code')}: {error.get('message')}"
    match error.get("code"):
        case "batch_expired":
            return Answer(custom_id, Outcome.EXPIRED, error=describe(ErrorCode.NEVER_RAN, text))
        case "batch_cancelled":
            return Answer(custom_id, Outcome.CANCELED, error=describe(ErrorCode.NEVER_RAN, text))
        case None:  # nobody knows what it cost
            text = "a result line with neither response nor error"
            return Answer(
                custom_id, Outcome.ERRORED, error=describe(ErrorCode.PROVIDER, text), readable=False
            )
        case _:
            return Answer(custom_id, Outcome.ERRORED, error=describe(ErrorCode.PROVIDER, text))


def _completion(custom_id: str, body: dict[str, Any]) -> Answer:
    """Read a chat completion."""
    choice = as_dict(next(iter(body.get("choices") or ()), None))
    message = as_dict(choice.get("message"))
    text, refusal = text_of(message.get("content")), message.get("refusal")
    outcome, error = Outcome.SUCCEEDED, None
    if refusal or choice.get("finish_reason") == "content_filter":
        outcome, error = (
            Outcome.REFUSED,
            describe(ErrorCode.REFUSED, str(refusal or "stopped by the content filter")),
        )
    elif choice.get("finish_reason") == "length":
        outcome, error = (
            Outcome.TRUNCATED,
            describe(ErrorCode.TRUNCATED, "stopped by the token cap (length)"),
        )
    elif choice.get("finish_reason") != "stop":
        reason = f"stopped by {choice.get('finish_reason')!r}, which is no finished answer"
        outcome, error = Outcome.INVALID, describe(ErrorCode.RESPONSE, reason)
    usage = usage_of(as_dict(body.get("usage")))
    return Answer(
        custom_id,
        outcome,
        text,
        error,
        usage,
        text_of(body.get("model")),
        readable=usage != Usage(),
    )


def usage_of(
    usage: dict[str, Any], sent: str = "prompt_tokens", received: str = "completion_tokens"
) -> Usage:
    """Read a usage block: what was sent holds cached tokens already, what was received those that were reasoned."""
    details = as_dict(usage.get(f"{sent}_details"))
    return Usage(
        input_tokens=count_of(usage.get(sent)),
        output_tokens=count_of(usage.get(received)),
        cache_read_tokens=count_of(details.get("cached_tokens")),
        cache_write_tokens=count_of(details.get("cache_write_tokens")),
    )


def _response(custom_id: str, body: dict[str, Any]) -> Answer:
    """Read the body of an answer."""
    usage, status = (
        usage_of(as_dict(body.get("usage")), "input_tokens", "output_tokens"),
        body.get("status"),
    )
    parts = list(_parts(body))
    texts = [text_of(part.get("text")) or "" for part in parts if part.get("type") == "output_text"]
    refusals = [str(part.get("refusal")) for part in parts if part.get("type") == "refusal"]
    outcome, error = _ending(body, refusals)
    return Answer(
        custom_id,
        outcome,
        "".join(texts) if texts else None,
        error,
        usage,
        text_of(body.get("model")),
        readable=usage != Usage() or status == "failed",
    )


def _parts(body: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the parts of all messages that belong to the answer; reasoning and commentary on the way to it do not."""
    for item in body.get("output") or ():
        if item.get("type") == "message" and item.get("phase") != "commentary":
            yield from item.get("content") or ()


def _ending(body: dict[str, Any], refusals: list[str]) -> tuple[Outcome, str | None]:
    status, reason = body.get("status"), as_dict(body.get("incomplete_details")).get("reason")
    if status == "failed":
        wrong = as_dict(body.get("error"))
        code = ErrorCode.REQUEST if wrong.get("code") in _WRONG else ErrorCode.PROVIDER
        text = (
            f"{wrong.get('code')}: {wrong.get('message')}"
            if wrong
            else "the response failed without a reason"
        )
        return Outcome.ERRORED, describe(code, text)
    if refusals or (status == "incomplete" and reason == "content_filter"):
        return Outcome.REFUSED, describe(
            ErrorCode.REFUSED, " ".join(refusals) or "stopped by the content filter"
        )
    if status == "incomplete" and reason == "max_output_tokens":
        return Outcome.TRUNCATED, describe(
            ErrorCode.TRUNCATED, f"stopped by the token cap ({reason})"
        )
    if status != "completed":
        what = f"{status}, {reason}" if reason else str(status)
        return Outcome.INVALID, describe(
            ErrorCode.RESPONSE, f"ended as {what!r}, which is no finished answer"
        )
    return Outcome.SUCCEEDED, None
