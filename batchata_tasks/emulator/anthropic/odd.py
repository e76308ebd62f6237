"""Messages and errors in odd shapes, as Anthropic's API or a server that speaks it writes them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from batchata_tasks.emulator.core.odd_usage import odd_usage

if TYPE_CHECKING:
    from batchata_tasks.emulator.answers.schemas import JSON
    from batchata_tasks.emulator.answers.text import Answer
    from batchata_tasks.emulator.core.faults import Rule

_NO_CREDIT = (
    "Your credit balance is too low to access the Anthropic API. "
    "Please go to Plans & Billing to upgrade or purchase credits."
)
_NO_PERMISSION = "Your API key does not have permission to use the specified resource."
_WORDS = {"request_eos": "eos", "request_max_tokens": "MAX_TOKENS"}
_COMPACTION = (20_000, 350)
"""The tokens of a compaction: in, out."""
_SEARCH: list[JSON] = [
    {"type": "text", "text": "I will look that up."},
    {
        "type": "server_tool_use",
        "id": "srvtoolu_01",
        "name": "web_search",
        "input": {"query": "that"},
    },
    {"type": "web_search_tool_result", "tool_use_id": "srvtoolu_01", "content": []},
]


def odd_message(message: JSON, params: JSON, kind: str | None) -> Any:
    """Return an answer's message under the fault that struck its request (`params`), if any."""
    if kind == "request_no_answer":
        return params
    content: Any = message["content"]
    usage = odd_usage(message["usage"], kind)
    if kind == "request_parts":
        content = "".join(block.get("text", "") for block in content)
    if kind == "request_search_first":
        content = [*_SEARCH, *content]
    if kind == "request_iterations" and usage is not None:
        own = {name: usage[name] for name in ("input_tokens", "output_tokens")}
        compaction = dict(zip(own, _COMPACTION, strict=True))
        usage["iterations"] = [{"type": "compaction", **compaction}, {"type": "message", **own}]
    reason = _WORDS.get(kind or "", message["stop_reason"])
    return {**message, "content": content, "usage": usage, "stop_reason": reason}


def billed(given: Answer, kind: str | None) -> Answer:
    """Return an answer as it is billed: with a compaction, if there was one."""
    if kind != "request_iterations":
        return given
    sent, received = _COMPACTION
    return given._replace(
        input_tokens=given.input_tokens + sent, output_tokens=given.output_tokens + received
    )


def odd_error(rule: Rule) -> JSON | None:
    """Return the result of a request that failed, told in its own way; None by default."""
    if rule.kind == "request_plain_error":
        return {"type": "errored", "error": rule.message or "too long"}
    named = {
        "request_no_credit": ("invalid_request_error", _NO_CREDIT),
        "request_no_permission": ("permission_error", _NO_PERMISSION),
    }.get(rule.kind)
    if named is None:
        return None
    details: JSON = {"type": rule.error_type or named[0], "message": rule.message or named[1]}
    if rule.error_code is not None:
        details["details"] = {"error_code": rule.error_code}
    return {"type": "errored", "error": {"type": "error", "error": details, "request_id": None}}
