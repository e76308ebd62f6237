"""The rules for a create call of the OpenAI Batch API."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from batchata_tasks.emulator.answers.schemas import as_object
from batchata_tasks.emulator.core.refusals import ApiError
from batchata_tasks.emulator.openai.rules import ENDPOINTS

if TYPE_CHECKING:
    from batchata_tasks.emulator.answers.schemas import JSON

_METADATA = (16, 64, 512)
"""The most pairs, and the longest key and value."""

_LIFETIMES = (3_600, 2_592_000)
"""The shortest and the longest life of a file, in seconds."""

_KINDS: dict[type, str] = {
    list: "an array",
    int: "an integer",
    float: "a decimal number",
    bool: "a boolean",
    type(None): "null",
}


def check_create(given: JSON) -> float | None:
    """Refuse an invalid create call; return the lifetime of its output files in seconds."""
    for name in ("input_file_id", "endpoint", "completion_window"):
        if not isinstance(given.get(name), str):
            message = f"Missing required parameter: '{name}'."
            raise ApiError(400, message, param=name, code="missing_required_parameter")
    endpoint, window = given["endpoint"], given["completion_window"]
    for name, value, supported in (
        ("endpoint", endpoint, ENDPOINTS),
        ("completion_window", window, ("24h",)),
    ):
        if value not in supported:
            names = ", ".join(f"'{item}'" for item in supported)
            message = f"Invalid value: '{value}'. Supported values are: {names}."
            raise ApiError(400, message, param=name, code="invalid_value")
    names = ("input_file_id", "endpoint", "completion_window", "metadata", "output_expires_after")
    extra = next((name for name in given if name not in names), None)
    if extra is not None:
        message = f"Unknown parameter: '{extra}'."
        raise ApiError(400, message, param=extra, code="unknown_parameter")
    _check_metadata(given.get("metadata"))
    expires = given.get("output_expires_after")
    return None if expires is None else expiry_seconds(as_object(expires), "output_expires_after")


def expiry_seconds(given: JSON, name: str) -> float:
    """Return the lifetime of a file by its `expires_after` object, or refuse that."""
    seconds = str(given.get("seconds"))
    if given.get("anchor") != "created_at" or not seconds.isdigit():
        raise ApiError(400, f"Invalid '{name}'.", param=name, code="invalid_value")
    shortest, longest = _LIFETIMES
    if not shortest <= int(seconds) <= longest:
        message = f"Invalid '{name}.seconds': expected {shortest} to {longest}."
        raise ApiError(400, message, param=f"{name}.seconds", code="invalid_value")
    return float(seconds)


def _check_metadata(metadata: Any) -> None:
    if metadata is None:
        return
    if not isinstance(metadata, dict):
        message = "Invalid type for 'metadata': expected an object."
        raise ApiError(400, message, param="metadata", code="invalid_type")
    pairs, longest_key, longest_value = _METADATA
    given = cast("dict[str, object]", metadata)
    if len(given) > pairs:
        message = f"Invalid 'metadata': too many properties. Expected at most {pairs}."
        raise ApiError(400, message, param="metadata", code="object_above_max_properties")
    for key, value in given.items():
        param = f"metadata.{key}"
        if not isinstance(value, str):
            shown = _KINDS.get(type(value), "an object")
            message = f"Invalid type for '{param}': expected a string, but got {shown} instead."
            raise ApiError(400, message, param=param, code="invalid_type")
        if len(key) > longest_key or len(value) > longest_value:
            message = f"Invalid '{param}': string too long."
            raise ApiError(400, message, param=param, code="string_above_max_length")
