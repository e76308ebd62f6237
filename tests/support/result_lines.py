"""One line of results for each API, as its documentation has them: a whole answer, `fine`."""

from __future__ import annotations

from typing import Any

LINES: dict[str, dict[str, Any]] = {
    "anthropic": {
        "custom_id": "r1",
        "result": {
            "type": "succeeded",
            "message": {
                "id": "msg_01",
                "type": "message",
                "role": "assistant",
                "model": "claude-haiku-5-5",
                "content": [{"type": "text", "text": "fine"}],
                "stop_reason": "end_turn",
                "stop_sequence": None,
                "stop_details": None,
                "usage": {
                    "input_tokens": 11,
                    "cache_creation_input_tokens": 4,
                    "cache_read_input_tokens": 5,
                    "cache_creation": {
                        "ephemeral_5m_input_tokens": 1,
                        "ephemeral_1h_input_tokens": 3,
                    },
                    "output_tokens": 36,
                    "server_tool_use": None,
                    "service_tier": "batch",
                    "inference_geo": None,
                },
            },
        },
    },
    "openai": {
        "id": "batch_req_1",
        "custom_id": "r1",
        "response": {
            "status_code": 200,
            "request_id": "req_1",
            "body": {
                "id": "chatcmpl-1",
                "object": "chat.completion",
                "created": 1,
                "model": "gpt-6-luna",
                "choices": [
                    {
                        "index": 0,
                        "message": {"role": "assistant", "content": "fine", "refusal": None},
                        "logprobs": None,
                        "finish_reason": "stop",
                    }
                ],
                "usage": {
                    "prompt_tokens": 22,
                    "completion_tokens": 12,
                    "total_tokens": 34,
                    "prompt_tokens_details": {"cached_tokens": 7},
                    "completion_tokens_details": {"reasoning_tokens": 2},
                },
            },
        },
        "error": None,
    },
    "responses": {
        "id": "batch_req_1",
        "custom_id": "r1",
        "response": {
            "status_code": 200,
            "request_id": "req_1",
            "body": {
                "id": "resp_1",
                "object": "response",
                "status": "completed",
                "error": None,
                "incomplete_details": None,
                "model": "gpt-6-luna",
                "output": [
                    {"id": "rs_1", "type": "reasoning", "content": [], "summary": []},
                    {
                        "id": "msg_1",
                        "type": "message",
                        "status": "completed",
                        "role": "assistant",
                        "content": [{"type": "output_text", "annotations": [], "text": "fine"}],
                    },
                ],
                "usage": {
                    "input_tokens": 18,
                    "input_tokens_details": {"cache_write_tokens": 2, "cached_tokens": 3},
                    "output_tokens": 9,
                    "output_tokens_details": {"reasoning_tokens": 4},
                    "total_tokens": 27,
                },
            },
        },
        "error": None,
    },
}
