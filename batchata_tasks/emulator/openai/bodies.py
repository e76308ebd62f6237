"""The bodies of the emulated OpenAI models' answers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from batchata_tasks.emulator.openai.response import REFUSAL, response_body
from batchata_tasks.emulator.openai.rules import CHAT

if TYPE_CHECKING:
    from batchata_tasks.emulator.answers.schemas import JSON
    from batchata_tasks.emulator.answers.text import Answer
    from batchata_tasks.emulator.core.faults import Faults
    from batchata_tasks.emulator.openai.rules import BodyError

_CAPS = ("max_tokens", "max_completion_tokens")


def answer_body(
    endpoint: str, unique: str, created: int, body: JSON, given: Answer, fault: str | None = None
) -> JSON:
    """Return the answer of an endpoint to a request's body, under the fault that struck it."""
    build = _chat if endpoint == CHAT else response_body
    return build(unique, created, body, given, fault)


def _chat(unique: str, created: int, body: JSON, given: Answer, fault: str | None) -> JSON:
    refused, filtered = fault == "request_refusal", fault == "request_filtered"
    message: JSON = {
        "role": "assistant",
        "content": None if refused else given.text,
        "refusal": REFUSAL if refused else None,
        "annotations": [],
    }
    ending = "length" if given.truncated else "stop"
    return {
        "id": f"chatcmpl-{unique}",
        "object": "chat.completion",
        "created": created,
        "model": body["model"],
        "choices": [
            {
                "index": 0,
                "message": message,
                "logprobs": None,
                "finish_reason": "content_filter" if filtered else ending,
            }
        ],
        "usage": {
            "prompt_tokens": given.input_tokens,
            "completion_tokens": given.output_tokens,
            "total_tokens": given.input_tokens + given.output_tokens,
            "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
            "completion_tokens_details": {
                "reasoning_tokens": given.reasoned,
                "audio_tokens": 0,
                "accepted_prediction_tokens": 0,
                "rejected_prediction_tokens": 0,
            },
        },
        "service_tier": "default",
        "system_fingerprint": None,
    }


def error_body(problem: BodyError, kind: str = "invalid_request_error") -> JSON:
    """Return the envelope of an error."""
    return {
        "error": {
            "message": problem.message,
            "type": kind,
            "param": problem.param,
            "code": problem.code,
        }
    }


def heard(body: JSON, faults: Faults) -> JSON:
    """Return a chat body as the server reads it: some know only the older name of the cap."""
    if "messages" not in body or faults.for_server("openai", "max_tokens_only") is None:
        return body
    known = {name: value for name, value in body.items() if name not in _CAPS}
    cap = body.get("max_tokens")
    return known if cap is None else {**known, "max_completion_tokens": cap}
