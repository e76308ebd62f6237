"""Usage blocks that are odd, for both providers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from batchata_tasks.emulator.answers.schemas import JSON

_ABSURD = 10**11


def odd_usage(usage: JSON, kind: str | None) -> JSON | None:
    """Return a usage block under the fault that struck its request, if any."""
    if kind == "request_no_usage":
        return None
    if kind == "request_float_usage":
        return _each(usage, float)
    if kind == "request_text_usage":
        return _each(usage, str)
    if kind == "request_absurd_usage":
        output = "completion_tokens" if "completion_tokens" in usage else "output_tokens"
        searches = {"web_search_requests": _ABSURD, "web_fetch_requests": 0}
        claude = "cache_creation_input_tokens" in usage
        return {**usage, **({"server_tool_use": searches} if claude else {output: _ABSURD})}
    return usage


def _each(value: Any, change: Any) -> Any:
    """Return JSON with each of its integers changed."""
    if isinstance(value, dict):
        return {name: _each(item, change) for name, item in cast("JSON", value).items()}
    return change(value) if isinstance(value, int) else value
