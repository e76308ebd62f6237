"""The bodies that the emulated OpenAI models answer with."""

from __future__ import annotations

from typing import TYPE_CHECKING

from batchata_tasks.emulator.openai_rules import CHAT

if TYPE_CHECKING:
    from batchata_tasks.emulator.answers import Answer
    from batchata_tasks.emulator.openai_rules import BodyError
    from batchata_tasks.emulator.schemas import JSON

_REFUSAL = "I'm sorry, I can't help with that."


def answer_body(
    endpoint: str, unique: str, created: int, model: str, given: Answer, *, refused: bool
) -> JSON:
    """Return the answer of an endpoint."""
    build = _chat if endpoint == CHAT else _response
    return build(unique, created, model, given, refused=refused)


def _chat(unique: str, created: int, model: str, given: Answer, *, refused: bool) -> JSON:
    message: JSON = {
        "role": "assistant",
        "content": None if refused else given.text,
        "refusal": _REFUSAL if refused else None,
        "annotations": [],
    }
    return {
        "id": f"chatcmpl-{unique}",
        "object": "chat.completion",
        "created": created,
        "model": model,
        "choices": [
            {
                "index": 0,
                "message": message,
                "logprobs": None,
                "finish_reason": "length" if given.truncated else "stop",
            }
        ],
        "usage": {
            "prompt_tokens": given.input_tokens,
            "completion_tokens": given.output_tokens,
            "total_tokens": given.input_tokens + given.output_tokens,
            "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
            "completion_tokens_details": {
                "reasoning_tokens": 0,
                "audio_tokens": 0,
                "accepted_prediction_tokens": 0,
                "rejected_prediction_tokens": 0,
            },
        },
        "service_tier": "default",
        "system_fingerprint": None,
    }


def _response(unique: str, created: int, model: str, given: Answer, *, refused: bool) -> JSON:
    part: JSON = {"type": "output_text", "annotations": [], "logprobs": [], "text": given.text}
    status = "incomplete" if given.truncated else "completed"
    return {
        "id": f"resp_{unique}",
        "object": "response",
        "created_at": created,
        "status": status,
        "background": False,
        "completed_at": created + 1,
        "error": None,
        "incomplete_details": {"reason": "max_output_tokens"} if given.truncated else None,
        "instructions": None,
        "max_output_tokens": None,
        "metadata": {},
        "model": model,
        "output": [
            {
                "id": f"msg_{unique}",
                "type": "message",
                "status": status,
                "content": [{"type": "refusal", "refusal": _REFUSAL} if refused else part],
                "role": "assistant",
            }
        ],
        "parallel_tool_calls": True,
        "previous_response_id": None,
        "service_tier": "default",
        "store": False,
        "temperature": 1.0,
        "tool_choice": "auto",
        "tools": [],
        "top_p": 1.0,
        "truncation": "disabled",
        "usage": {
            "input_tokens": given.input_tokens,
            "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
            "output_tokens": given.output_tokens,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": given.input_tokens + given.output_tokens,
        },
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
