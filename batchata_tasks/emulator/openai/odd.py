"""Bodies of answers and errors in the shapes that other servers of OpenAI's API write."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson

from batchata_tasks.emulator.core.odd_usage import odd_usage

if TYPE_CHECKING:
    from collections.abc import Callable

    from batchata_tasks.emulator.answers.schemas import JSON
    from batchata_tasks.emulator.core.faults import Rule

_ACCOUNT = {
    "request_no_credit": (
        429,
        "You exceeded your current quota, please check your plan and billing details.",
        "insufficient_quota",
    ),
    "request_no_permission": (403, "You have insufficient permissions for this operation.", None),
}
"""Status, words and name of trouble of the account."""
_WORDS = {"request_eos": "eos", "request_max_tokens": "MAX_TOKENS"}


def odd_body(content: JSON, body: JSON, kind: str | None) -> Any:
    """Return an answer's body under the fault that struck its request (`body`), if any."""
    if kind == "request_no_answer":
        return body
    changed = {**content, "usage": odd_usage(content["usage"], kind)}
    for choice in changed.get("choices", ()):
        choice["finish_reason"] = _WORDS.get(kind or "", choice["finish_reason"])
        message = choice["message"]
        if kind == "request_parts" and message["content"] is not None:
            message["content"] = [{"type": "text", "text": message["content"]}]
    if kind == "request_max_tokens" and "incomplete_details" in changed:
        changed["incomplete_details"] = {"reason": "MAX_TOKENS"}
    if kind == "request_body_text":
        return orjson.dumps(changed).decode()
    return changed


def odd_error(rule: Rule, response: Callable[[int, Any], JSON]) -> tuple[Any, Any] | None:
    """Return (response, error) of a line that tells an error in its own way; None by default."""
    words = rule.message or "too long"
    match rule.kind:
        case "request_lost":
            return {"status_code": 0, "request_id": "", "body": {}}, None
        case "request_plain_error":
            return None, words
        case "request_error_beside":
            error = {"message": words, "type": "BadRequestError", "code": 400}
            return response(400, None), error
        case "request_error_in_body":
            error = {"message": words, "code": rule.error_code}
            return response(200, {"error": error}), None
        case "request_no_credit" | "request_no_permission":
            return _account(rule, response), None
        case _:
            return None


def _account(rule: Rule, response: Callable[[int, Any], JSON]) -> JSON:
    status, words, name = _ACCOUNT[rule.kind]
    error = {
        "message": rule.message or words,
        "type": rule.error_type or name or "invalid_request_error",
        "param": None,
        "code": rule.error_code or name,
    }
    return response(status, {"error": error})
