"""The bodies of the emulated OpenAI models' answers at /v1/responses."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from batchata_tasks.emulator.answers.schemas import as_object

if TYPE_CHECKING:
    from batchata_tasks.emulator.answers.schemas import JSON
    from batchata_tasks.emulator.answers.text import Answer

REFUSAL = "I'm sorry, I can't help with that."
_FAILURE = {"code": "server_error", "message": "The model failed to generate a response."}


def response_body(unique: str, created: int, body: JSON, given: Answer, fault: str | None) -> JSON:
    """Return the answer to a request's body, under the fault that struck it."""
    reason = "max_output_tokens" if given.truncated else None
    if fault == "request_filtered":
        reason = "content_filter"
    status = "incomplete" if reason else "completed"
    part: JSON = {"type": "output_text", "annotations": [], "logprobs": [], "text": given.text}
    if fault == "request_refusal":
        part = {"type": "refusal", "refusal": REFUSAL}
    message: JSON = {"id": f"msg_{unique}", "type": "message", "status": status, "content": [part]}
    output: list[JSON] = []
    if given.reasoned:
        output.append({"id": f"rs_{unique}", "type": "reasoning", "content": [], "summary": []})
    # reasoning that uses up the cap leaves no message at all
    if given.text or fault == "request_refusal" or not given.truncated:
        output.append({**message, "role": "assistant", "phase": "final_answer"})
    return {
        **_frame(unique, created, body, status),
        "completed_at": created + 1,
        "incomplete_details": {"reason": reason} if reason else None,
        "output": output,
        "usage": {
            "input_tokens": given.input_tokens,
            "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
            "output_tokens": given.output_tokens,
            "output_tokens_details": {"reasoning_tokens": given.reasoned},
            "total_tokens": given.input_tokens + given.output_tokens,
        },
    }


def failed_body(unique: str, created: int, body: JSON) -> JSON:
    """Return a response whose status is `failed`; its line in the output file is a success."""
    return {**_frame(unique, created, body, "failed"), "error": _FAILURE}


def _frame(unique: str, created: int, body: JSON, status: str) -> JSON:
    """Return a response without its output: the request's parameters, and defaults for others."""
    text, reasoning = as_object(body.get("text")), as_object(body.get("reasoning"))
    given: dict[str, Any] = {name: body[name] for name in _ECHOED if name in body}
    return {
        "id": f"resp_{unique}",
        "object": "response",
        "created_at": created,
        "status": status,
        "background": False,
        "completed_at": None,
        "error": None,
        "incomplete_details": None,
        "instructions": None,
        "max_output_tokens": None,
        "metadata": {},
        "model": body["model"],
        "output": [],
        "parallel_tool_calls": True,
        "previous_response_id": None,
        "reasoning": {"effort": None, "summary": None, **reasoning},
        "service_tier": "default",
        "store": True,
        "temperature": 1.0,
        "text": {"format": {"type": "text"}, "verbosity": "medium", **text},
        "tool_choice": "auto",
        "tools": [],
        "top_p": 1.0,
        "truncation": "disabled",
        "usage": None,
        "user": None,
        **given,
    }


_ECHOED = (
    *("instructions", "max_output_tokens", "metadata", "safety_identifier", "store"),
    *("temperature", "top_p", "truncation", "user"),
)
