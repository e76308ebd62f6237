"""The rules of the emulated Anthropic API: for a create call, and for one request's params."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any, NamedTuple, cast

import orjson

from batchata_tasks.emulator.answers.schemas import JSON, as_object
from batchata_tasks.emulator.answers.tokens import blocks_of
from batchata_tasks.emulator.anthropic.schemas import schema_problem

CUSTOM_ID = re.compile(r"[a-zA-Z0-9_-]{1,64}\Z")
_CUSTOM_ID_LENGTH = 64
_ITEM = frozenset({"custom_id", "params"})

MODELS: dict[str, int] = {
    # id: the largest max_tokens
    "claude-fable-5-2": 128_000,
    "claude-mythos-5-2": 128_000,
    "claude-haiku-5-5": 64_000,
    "claude-sonnet-5-5": 128_000,
    "claude-fable-5-1": 128_000,
    "claude-opus-5-5": 128_000,
    "claude-mythos-5-1": 128_000,
    "claude-sonnet-5": 128_000,
    "claude-opus-5": 128_000,
    "claude-opus-4-8": 128_000,
    "claude-opus-4-7": 128_000,
    "claude-opus-4-6": 128_000,
    "claude-sonnet-4-6": 64_000,
    "claude-haiku-4-5": 64_000,
    "claude-opus-4-5": 64_000,
    "claude-sonnet-4-5": 64_000,
}
_SERVED = re.compile(r"claude-(?:fable|mythos|haiku|sonnet|opus)-(\d)(?:-(\d)(?!\d))?")
_OLDEST_SERVED = (4, 5)
_LARGEST_CAP = 128_000
_NO_PREFILL_SINCE = (4, 6)


def _words(names: str) -> frozenset[str]:
    return frozenset(names.split())


SAMPLING = frozenset({"temperature", "top_p", "top_k"})
WITHOUT_SAMPLING = "2026-10-21"
"""The first API version that refuses the sampling parameters."""

_PARAMS = _words(
    "model max_tokens messages system metadata stop_sequences thinking tools tool_choice "
    "output_config service_tier stream cache_control container inference_geo speed diagnostics "
    "user_profile_id workspace_id output_format context_management mcp_servers"
)


class Problem(NamedTuple):
    """Why a request is refused."""

    kind: str
    message: str


def check_item(index: int, item: Any, seen: set[str]) -> str | None:
    """Return why one entry of `requests` is invalid, which makes the whole create call fail."""
    if not isinstance(item, dict):
        return f"requests.{index}: Input should be a valid dictionary"
    entry = cast("JSON", item)
    problem = None if entry.keys() == _ITEM else _key_problem(entry)
    if problem is None:
        custom_id = entry["custom_id"]
        if not isinstance(custom_id, str) or CUSTOM_ID.match(custom_id) is None:
            problem = f"custom_id: {_custom_id_problem(custom_id)}"
        elif custom_id in seen:
            problem = f"custom_id: Duplicate custom_id '{custom_id}' in the batch"
        elif not isinstance(entry["params"], dict):
            problem = "params: Input should be a valid dictionary"
    return None if problem is None else f"requests.{index}.{problem}"


def _key_problem(entry: JSON) -> str:
    missing = [name for name in ("custom_id", "params") if name not in entry]
    if missing:
        return f"{missing[0]}: Field required"
    extra = next(name for name in entry if name not in _ITEM)
    return f"{extra}: Extra inputs are not permitted"


def _custom_id_problem(custom_id: Any) -> str:
    if not isinstance(custom_id, str):
        return "Input should be a valid string"
    if not custom_id:
        return "String should have at least 1 character"
    if len(custom_id) > _CUSTOM_ID_LENGTH:
        return f"String should have at most {_CUSTOM_ID_LENGTH} characters"
    return "String should match pattern '^[a-zA-Z0-9_-]{1,64}$'"


def check_params(params: JSON, version: str, *, batch: bool = True) -> Problem | None:
    """Return why a request's params are refused; in a batch, only that request fails."""
    for name in ("model", "max_tokens", "messages"):
        if name not in params:
            return _invalid(f"{name}: Field required")
    if not _PARAMS.issuperset(params):
        problem = _extra(params, version)
        if problem is not None:
            return problem
    return (
        _check_model(params["model"], params["max_tokens"])
        or (_check_batch_only(params) if batch else None)
        or _check_messages(params)
        or _check_format(params)
    )


def _check_model(model: Any, cap: Any) -> Problem | None:
    if not isinstance(model, str) or _number(model) < _OLDEST_SERVED:
        return Problem("not_found_error", f"model: {model}")
    if not isinstance(cap, int) or isinstance(cap, bool):
        return _invalid("max_tokens: Input should be a valid integer")
    if cap < 1:
        return _invalid("max_tokens: Input should be greater than or equal to 1")
    most = MODELS.get(model, _LARGEST_CAP)
    if cap <= most:
        return None
    return _invalid(
        f"max_tokens: {cap} > {most}, which is the maximum allowed number of output tokens "
        f"for {model}"
    )


@lru_cache(maxsize=256)
def _number(model: str) -> tuple[int, int]:
    """Return the version number in a model's name; zero if it names no model."""
    served = _SERVED.match(model)
    return (int(served[1]), int(served[2] or 0)) if served else (0, 0)


def _check_batch_only(params: JSON) -> Problem | None:
    for name in ("stream", "speed"):
        if params.get(name):
            return _invalid(f"{name}: This parameter is not supported in the Message Batches API")
    return None


def _invalid(message: str) -> Problem:
    return Problem("invalid_request_error", message)


def _extra(params: JSON, version: str) -> Problem | None:
    for name in params:
        if name in SAMPLING:
            if version >= WITHOUT_SAMPLING:
                return _invalid(f"{name}: This parameter is not supported by {version}")
        elif name not in _PARAMS:
            return _invalid(f"{name}: Extra inputs are not permitted")
    return None


def _check_messages(params: JSON) -> Problem | None:
    messages = params["messages"]
    if not isinstance(messages, list):
        return _invalid("messages: Input should be a valid list")
    if not messages:
        return _invalid("messages: at least one message is required")
    items = cast("list[Any]", messages)
    for index, item in enumerate(items):
        message = as_object(item)
        if message.get("role") not in ("user", "assistant"):
            return _invalid(f"messages.{index}.role: Input should be 'user' or 'assistant'")
        if problem := _content_problem(message.get("content")):
            return _invalid(f"messages.{index}: {problem}")
    if items[-1]["role"] == "assistant" and _number(params["model"]) >= _NO_PREFILL_SINCE:
        return _invalid(
            "This model does not support assistant message prefill. "
            "The conversation must end with a user message."
        )
    return None


def _content_problem(content: Any) -> str | None:
    if not content:
        return "all messages must have non-empty content"
    texts = [content] if isinstance(content, str) else map(_text_of, content)
    if any(not text.strip() for text in texts):
        return "text content blocks must contain non-whitespace text"
    return None


def _text_of(block: Any) -> str:
    """Return the text of a block; that of other blocks does not count."""
    part = as_object(block)
    return str(part.get("text")) if part.get("type") == "text" else "x"


def wants_citations(params: JSON) -> bool:
    """Whether a document in the request asks for citations."""
    if b'"citations"' not in orjson.dumps(params.get("messages")):
        return False
    return any(
        block.get("type") == "document" and as_object(block.get("citations")).get("enabled") is True
        for block in blocks_of(params.get("messages"))
    )


def _check_format(params: JSON) -> Problem | None:
    form = as_object(params.get("output_config")).get("format")
    if form is None:
        return None
    form = as_object(form)
    if form.get("type") != "json_schema" or not isinstance(form.get("schema"), dict):
        return _invalid("output_config.format: Input should be a json_schema format")
    if wants_citations(params):
        return _invalid("citations: Citations are not compatible with structured outputs")
    problem = schema_problem(orjson.dumps(form["schema"]))
    return None if problem is None else _invalid(f"output_config.format.schema: {problem}")
