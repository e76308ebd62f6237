"""The answers to calls that a fault refuses."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, NamedTuple

from starlette.responses import HTMLResponse, Response

from batchata_tasks.emulator.core.fault_kinds import KINDS

if TYPE_CHECKING:
    from batchata_tasks.emulator.core.faults import Rule

RATE_LIMIT = "rate_limit_exceeded"
"""The code of an ordinary 429, which only OpenAI sends."""


class ApiError(Exception):
    """An error that is sent to the client in the provider's own format."""

    def __init__(
        self,
        status: int,
        message: str,
        kind: str = "invalid_request_error",
        *,
        param: str | None = None,
        code: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.kind = kind
        self.param = param
        self.code = code
        self.headers = headers or {}


class ProxyPage(HTMLResponse):
    """A page from a proxy in front of the API: it lacks the API's headers."""


class _Words(NamedTuple):
    status: int
    message: str
    kind: str
    code: str | None = None


_INTERNAL = _Words(500, "Internal server error", "api_error")
_ANYWHERE: dict[str, _Words] = {
    "http_429": _Words(429, "Rate limit reached.", "rate_limit_error", RATE_LIMIT),
    "not_found": _Words(404, "Not found.", "not_found_error"),
    "cancel_conflict": _Words(
        409, "Cannot cancel a batch with status 'finalizing'.", "invalid_request_error"
    ),
    "length_required": _Words(411, "Length Required", "invalid_request_error"),
}
_BY_PROVIDER: dict[tuple[str, str], _Words] = {
    ("spend_cap", "anthropic"): _Words(
        429,
        "This organization has reached its monthly spend limit.",
        "rate_limit_error",
        "enforced_spend_limit_reached",
    ),
    ("spend_cap", "openai"): _Words(
        429,
        "You exceeded your current quota, please check your plan and billing details.",
        "insufficient_quota",
        "insufficient_quota",
    ),
    ("hard_limit", "anthropic"): _Words(
        400, "You have reached your specified API usage limits.", "invalid_request_error"
    ),
    ("hard_limit", "openai"): _Words(
        400,
        "Billing hard limit has been reached",
        "invalid_request_error",
        "billing_hard_limit_reached",
    ),
}
_PROXY_PAGE = """<html>\r
<head><title>413 Request Entity Too Large</title></head>\r
<body>\r
<center><h1>413 Request Entity Too Large</h1></center>\r
<hr><center>cloudflare</center>\r
</body>\r
</html>\r
"""


def instead_of_json(
    rule: Rule, status: int, headers: dict[str, str] | None = None
) -> Response | None:
    """Return the page, the empty body or the text that a rule wants; None for JSON."""
    if rule.html:
        page = f"<html><body><h1>{status} {rule.message or 'Error'}</h1></body></html>"
        return HTMLResponse(page, status, headers)
    if rule.empty:
        return Response(status_code=status, headers=headers)
    if rule.body is not None:
        kind = "application/json" if rule.body.startswith(("{", "[")) else "text/plain"
        return Response(rule.body, status, headers, media_type=kind)
    return None


def file_not_ready(rule: Rule, file_id: object) -> Response:
    """Answer a create whose input file is not processed yet, or raise the ApiError for it.

    Azure's words: https://github.com/openai/openai-dotnet/issues/312
    """
    status = KINDS[rule.kind].status if rule.status is None else rule.status
    instead = instead_of_json(rule, status)
    if instead is not None:
        return instead
    pending = f"File '{file_id}' is in state 'pending'. It must be processed before it is used."
    message, code = (
        (f"File '{file_id}' was not found.", "not_found")
        if status == HTTPStatus.NOT_FOUND
        else (pending, "invalidPayload")
    )
    raise ApiError(
        status,
        rule.message or message,
        rule.error_type or "invalid_request_error",
        code=rule.error_code or code,
    )


def refuse(rule: Rule, provider: str) -> Response:
    """Answer a call as its fault demands, or raise the ApiError for it."""
    if rule.kind == "html_413":
        return ProxyPage(_PROXY_PAGE, status_code=413, headers={"server": "cloudflare"})
    if rule.kind in ("http_error", "http_error_after"):
        usual = _Words(KINDS[rule.kind].status, "Error.", "api_error")
    else:
        usual = _ANYWHERE.get(rule.kind) or _BY_PROVIDER.get((rule.kind, provider), _INTERNAL)
    status = usual.status if rule.status is None else rule.status
    headers = {} if rule.retry_after is None else {"retry-after": f"{rule.retry_after:g}"}
    instead = instead_of_json(rule, status, headers)
    if instead is not None:
        return instead
    raise ApiError(
        status,
        rule.message or usual.message,
        rule.error_type or usual.kind,
        code=rule.error_code or usual.code,
        headers=headers,
    )
