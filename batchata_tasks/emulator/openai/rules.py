"""The rules of the emulated OpenAI API: for a line of an input file, and for one request's body."""

from __future__ import annotations

import re
from typing import Any, NamedTuple, cast

import orjson

from batchata_tasks.emulator.answers.schemas import JSON, as_object
from batchata_tasks.emulator.openai.schemas import schema_problem

CHAT = "/v1/chat/completions"
RESPONSES = "/v1/responses"
ENDPOINTS = (
    RESPONSES,
    CHAT,
    "/v1/embeddings",
    "/v1/completions",
    "/v1/moderations",
    "/v1/images/generations",
    "/v1/images/edits",
    "/v1/videos",
)

MODELS = (
    "gpt-6-astra",
    "gpt-6.2-sol",
    "gpt-6.1-terra",
    "gpt-6-sol",
    "gpt-6-luna",
    "gpt-5.6-sol",
    "gpt-5.6-terra",
    "gpt-5.6-luna",
    "gpt-5.5",
    "gpt-5.4",
    "gpt-5.4-mini",
    "gpt-5.4-nano",
    "gpt-5-mini",
    "gpt-5-nano",
    "gpt-4.1",
    "gpt-4.1-mini",
    "gpt-4.1-nano",
    "gpt-4o",
    "gpt-4o-mini",
    "o4-mini",
    "o3",
)
_KNOWN = re.compile(r"(?:ft:)?(?:gpt-[3-9]|o[1-9](?:-|\Z)|chatgpt-)")
_REASONING = re.compile(r"(?:ft:)?(?:gpt-(?:[5-9]|\d\d)(?!.*-chat)|o[1-9](?:-|\Z))")
_QUIET = re.compile(r"gpt-5\.[1-4](?:-mini|-nano)?(?:-\d{4}-|\Z)")
"""Models that reason only if they are told to."""
_UNREASONED = ("stop", "presence_penalty", "frequency_penalty", "logit_bias")
"""Parameters that models do not take while they reason."""
_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}\Z")


class LineError(NamedTuple):
    """Why a line fails the validation of the whole batch."""

    code: str
    message: str
    param: str | None


NOT_JSON = LineError("invalid_json_line", "This line is not parseable as valid JSON.", None)

_NEEDS = {CHAT: ("messages", "Chat Completions"), RESPONSES: ("input", "Responses")}


_FOREIGN = {
    CHAT: frozenset(
        {"input", "instructions", "max_output_tokens", "output_config", "system", "text"}
    ),
    RESPONSES: frozenset(
        {
            *("functions", "logit_bias", "max_completion_tokens", "max_tokens", "messages", "n"),
            *("output_config", "reasoning_effort", "response_format", "seed", "stop", "verbosity"),
        }
    ),
}
"""Parameters of another endpoint or provider: common mistakes."""


_ROLES = ("user", "assistant", "system", "developer")
_PARTS = ("input_text", "input_image", "input_file")
_PARTS_OF_ANSWERS = ("output_text", "refusal")
"""The kinds of content in a Responses request: `_PARTS_OF_ANSWERS` in the assistant's turns."""
_LEAST_CAPS = {"max_output_tokens": 16}


class BodyError(NamedTuple):
    """Why a request is answered with a 400."""

    message: str
    param: str | None
    code: str | None


def known_model(model: object) -> bool:
    """Whether the emulator accepts the name of a model."""
    return isinstance(model, str) and _KNOWN.match(model) is not None


def check_line(line: Any, endpoint: str, seen: set[str], model: str | None) -> LineError | None:
    """Return why one parsed line fails the batch; `model` is that of the lines before."""
    if not isinstance(line, dict):
        return NOT_JSON
    entry = cast("JSON", line)
    for name in ("custom_id", "method", "url", "body"):
        if name not in entry:
            message = f"Missing required parameter: '{name}'."
            return LineError("missing_required_parameter", message, name)
    return _check_envelope(entry, endpoint, seen) or _check_body(entry["body"], endpoint, model)


def _check_envelope(entry: JSON, endpoint: str, seen: set[str]) -> LineError | None:
    custom_id = entry["custom_id"]
    if not isinstance(custom_id, str):
        return LineError("invalid_type", "Invalid type for 'custom_id'.", "custom_id")
    if custom_id in seen:
        message = f"The custom_id '{custom_id}' is used by more than one request in this batch."
        return LineError("duplicate_custom_id", message, "custom_id")
    if entry["method"] != "POST":
        return LineError("invalid_method", "Only the method POST is supported.", "method")
    if entry["url"] != endpoint:
        message = "The URL provided for this request does not match the batch endpoint."
        return LineError("invalid_url", message, "url")
    if not isinstance(entry["body"], dict):
        return LineError("invalid_type", "Invalid type for 'body': expected an object.", "body")
    return None


def _check_body(body: JSON, endpoint: str, model: str | None) -> LineError | None:
    name = body.get("model")
    if not name:
        return LineError("invalid_request", "Model parameter is required.", "body.model")
    if not known_model(name):
        message = f"The provided model '{name}' is not supported by the Batch API."
        return LineError("model_not_found", message, "body.model")
    if model not in (None, name):
        message = "Each input file can only include requests to a single model."
        return LineError("mismatched_model", message, "body.model")
    field, title = _NEEDS.get(endpoint, ("model", ""))
    if field not in body:
        message = f"{field.title()} parameter is required."
        return LineError("invalid_request", message, f"body.{field}")
    if body.get("stream"):
        message = f"{title}: Streaming is not supported in the Batch API."
        return LineError("streaming_unsupported", message, "body.stream")
    return None


def check_body(body: JSON, endpoint: str) -> BodyError | None:
    """Return why a request's body is answered with a 400 when it runs."""
    if endpoint not in _FOREIGN:
        return BodyError(f"The emulator does not answer {endpoint}.", "url", "not_emulated")
    foreign = _FOREIGN[endpoint].intersection(body)
    if foreign:
        name = min(foreign)
        return BodyError(f"Unknown parameter: '{name}'.", name, "unknown_parameter")
    field = "messages" if endpoint == CHAT else "input"
    messages = body.get(field)
    if isinstance(messages, list) and not messages:
        message = (
            f"Invalid '{field}': empty array. Expected an array with minimum length 1, "
            "but got an empty array instead."
        )
        return BodyError(message, field, "empty_array")
    accepted = list if endpoint == CHAT else (list, str)
    if not isinstance(messages, accepted):
        return BodyError(f"Invalid type for '{field}': expected an array.", field, "invalid_type")
    turns = None if endpoint == CHAT else _check_turns(messages)
    return turns or _check_reasoning(body) or _check_cap(body) or _check_format(body)


def _check_turns(items: Any) -> BodyError | None:
    """Check roles and kinds of content of a Responses request; items without a role are skipped."""
    turns = enumerate(cast("list[Any]", items) if isinstance(items, list) else [])
    for place, turn in ((place, as_object(item)) for place, item in turns):
        role: Any = turn.get("role")
        if role is None and turn.get("type", "message") != "message":
            continue
        if role not in _ROLES:
            return _unsupported(role, _ROLES, f"input[{place}].role")
        content: Any = turn.get("content")
        supported = _PARTS_OF_ANSWERS if role == "assistant" else _PARTS
        for at, part in enumerate(cast("list[Any]", content) if isinstance(content, list) else []):
            kind: Any = as_object(part).get("type")
            if kind not in supported:
                return _unsupported(kind, supported, f"input[{place}].content[{at}]")
    return None


def _unsupported(value: object, supported: tuple[str, ...], param: str) -> BodyError:
    names = ", ".join(f"'{name}'" for name in supported)
    message = f"Invalid value: '{value}'. Supported values are: {names}."
    return BodyError(message, param, "invalid_value")


def _check_reasoning(body: JSON) -> BodyError | None:
    if _REASONING.match(str(body.get("model"))) is None:
        return None
    if body.get("max_tokens") is not None:
        message = (
            "Unsupported parameter: 'max_tokens' is not supported with this model. "
            "Use 'max_completion_tokens' instead."
        )
        return BodyError(message, "max_tokens", "unsupported_parameter")
    effort = body.get("reasoning_effort", as_object(body.get("reasoning")).get("effort"))
    return None if effort == "none" else _check_unreasoned(body, effort)


def _check_unreasoned(body: JSON, effort: object) -> BodyError | None:
    """Return which parameter a model does not take while it reasons."""
    for name in _UNREASONED:
        if body.get(name):
            message = f"Unsupported parameter: '{name}' is not supported with this model."
            return BodyError(message, name, "unsupported_parameter")
    if effort is None and _QUIET.match(str(body.get("model"))):
        return None
    for name in ("temperature", "top_p"):
        value = body.get(name)
        if value is not None and value != 1:
            message = (
                f"Unsupported value: '{name}' does not support {value} with this model. "
                "Only the default (1) value is supported."
            )
            return BodyError(message, name, "unsupported_value")
    return None


def _check_cap(body: JSON) -> BodyError | None:
    for name in ("max_tokens", "max_completion_tokens", "max_output_tokens"):
        cap = body.get(name)
        least = _LEAST_CAPS.get(name, 1)
        if cap is not None and (not isinstance(cap, int) or isinstance(cap, bool) or cap < least):
            message = (
                f"Invalid '{name}': integer below minimum value. "
                f"Expected a value >= {least}, but got {cap} instead."
            )
            return BodyError(message, name, "integer_below_min_value")
    return None


def _check_format(body: JSON) -> BodyError | None:
    where, form = "response_format", as_object(body.get("response_format"))
    schema = as_object(form.get("json_schema"))
    if not form:
        where, form = "text.format", as_object(as_object(body.get("text")).get("format"))
        schema = form
    if form.get("type") != "json_schema":
        return None
    if not isinstance(schema.get("schema"), dict):
        param = f"{where}.schema"
        return BodyError(f"Missing required parameter: '{param}'.", param, "missing_parameter")
    if not isinstance(schema.get("name"), str) or _NAME.match(schema["name"]) is None:
        message = f"Invalid '{where}.name': string does not match pattern '^[a-zA-Z0-9_-]+$'."
        return BodyError(message, f"{where}.name", "invalid_value")
    problem = schema_problem(orjson.dumps(schema["schema"]), strict=schema.get("strict") is True)
    if problem is None:
        return None
    message = f"Invalid schema for response_format '{schema['name']}': {problem}"
    return BodyError(message, where, "invalid_json_schema")
