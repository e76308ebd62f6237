"""Lines of OpenAI's result files: what each says of its request, and the answers of chat completions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from batchata_tasks.jobs import Answer, ErrorCode, Outcome, Usage, as_dict, count_of, describe, text_of

if TYPE_CHECKING:
    from collections.abc import Callable

_BAD_REQUEST, _TOO_MANY = 400, 429


def answer_of(line: dict[str, Any], finished: Callable[[str, dict[str, Any]], Answer]) -> Answer:
    """Classify a line; `finished` reads the body of an answer, which is the endpoint's own."""
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
        return Answer(custom_id, Outcome.ERRORED, error=describe(code, f"HTTP {status}: {said.get('message') or said}"))
    return finished(custom_id, body)


def _never_ran(custom_id: str, error: dict[str, Any]) -> Answer:
    text = f"{error.get('code')}: {error.get('message')}"
    match error.get("code"):
        case "batch_expired":
            return Answer(custom_id, Outcome.EXPIRED, error=describe(ErrorCode.NEVER_RAN, text))
        case "batch_cancelled":
            return Answer(custom_id, Outcome.CANCELED, error=describe(ErrorCode.NEVER_RAN, text))
        case None:  # nobody knows what it cost
            text = "a result line with neither response nor error"
            return Answer(custom_id, Outcome.ERRORED, error=describe(ErrorCode.PROVIDER, text), readable=False)
        case _:
            return Answer(custom_id, Outcome.ERRORED, error=describe(ErrorCode.PROVIDER, text))


def completion(custom_id: str, body: dict[str, Any]) -> Answer:
    """Read a chat completion."""
    usage = usage_of(as_dict(body.get("usage")))
    choice = as_dict(next(iter(body.get("choices") or ()), None))
    message = as_dict(choice.get("message"))
    text, refusal = text_of(message.get("content")), message.get("refusal")
    outcome, error = Outcome.SUCCEEDED, None
    if refusal or choice.get("finish_reason") == "content_filter":
        outcome, error = Outcome.REFUSED, describe(ErrorCode.REFUSED, str(refusal or "stopped by the content filter"))
    elif choice.get("finish_reason") == "length":
        outcome, error = Outcome.TRUNCATED, describe(ErrorCode.TRUNCATED, "stopped by the token cap (length)")
    elif choice.get("finish_reason") != "stop":
        reason = f"stopped by {choice.get('finish_reason')!r}, which is no finished answer"
        outcome, error = Outcome.INVALID, describe(ErrorCode.RESPONSE, reason)
    return Answer(custom_id, outcome, text, error, usage, text_of(body.get("model")))


def usage_of(usage: dict[str, Any]) -> Usage:
    """OpenAI's prompt_tokens hold cached tokens already, completion_tokens what was reasoned."""
    details = as_dict(usage.get("prompt_tokens_details"))
    return Usage(
        input_tokens=count_of(usage.get("prompt_tokens")),
        output_tokens=count_of(usage.get("completion_tokens")),
        cache_read_tokens=count_of(details.get("cached_tokens")),
        cache_write_tokens=count_of(details.get("cache_write_tokens")),
    )
