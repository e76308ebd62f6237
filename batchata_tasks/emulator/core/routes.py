"""How every route answers: keys, faults, and errors in the provider's form."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from starlette.requests import ClientDisconnect
from starlette.routing import Route

from batchata_tasks.emulator.core.calls import Call
from batchata_tasks.emulator.core.effects import misbehave
from batchata_tasks.emulator.core.refusals import ApiError, ProxyPage
from batchata_tasks.emulator.core.shapes import reshape
from batchata_tasks.emulator.core.state import Created
from batchata_tasks.emulator.core.wire import HangUp

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

    from batchata_tasks.emulator.core.calls import Handler

INVALID_KEY = "invalid"
_SCOPES = ("openai-organization", "openai-project", "anthropic-workspace-id")
"""The headers that select a part of an account, if the server has such parts."""


class Style(Protocol):
    """What differs between providers in every call."""

    provider: str

    def authenticate(self, request: Request) -> str:
        """Return the key that the call carries, or raise the provider's refusal."""
        ...

    def invalid_key(self) -> ApiError:
        """Return the error for a key that is not valid (any more)."""
        ...

    def error(self, error: ApiError) -> Response:
        """Return an error in the provider's form."""
        ...

    def headers(self, response: Response) -> dict[str, str]:
        """Return the headers of every answer."""
        ...


def route(path: str, method: str, name: str, style: Style, handler: Handler) -> Route:
    """Return a route that authenticates, applies faults, and gives errors the provider's form."""

    async def respond(request: Request) -> Response:
        call = Call(request, request.app.state.shared, account="")
        # A reset starts a new list: calls that began before it do not count there.
        creates = call.shared.creates
        try:
            response = await _answer(call, name, style, handler)
            await call.drain()
        except ClientDisconnect:
            response, call.consumed = HangUp(), True
        if name == "create":
            status = None if isinstance(response, HangUp) else response.status_code
            seen = Created(style.provider, call.now, call.batch_id, call.size, status)
            creates.append(seen)
        if name == "list" and _shows_all(call, style.provider):
            is_odd = any(rule.kind == "odd_objects" for rule in call.shapes)
            response.headers["x-batchata-lists"] = "complete" if is_odd else "exact"
        if not isinstance(response, ProxyPage):
            response.headers.update(style.headers(response))
        return response

    return Route(path, respond, methods=[method])


def _shows_all(call: Call, provider: str) -> bool:
    """Whether the server says of a list that it shows all batches of the account."""
    odd = any(rule.kind.startswith("list_") for rule in call.shapes)
    return not odd and call.shared.faults.for_server(provider, "lists_unproven") is None


def account_of(key: str) -> str:
    """Return the account of an API key: `acct:<name>:<anything>` names it, others share one."""
    match key.split(":"):
        case ["acct", name, _, *_]:
            return name
        case _:
            return "default"


async def _answer(call: Call, name: str, style: Style, handler: Handler) -> Response:
    try:
        call.account = account_of(style.authenticate(call.request))
        if (style.provider, call.account) in call.shared.revoked:
            raise style.invalid_key()
        faults, size = call.shared.faults, call.body_size
        projects = faults.for_server(style.provider, "projects")
        if projects is not None:
            call.account = _scoped(call, projects.header)
        call.rule = faults.for_call(style.provider, name, size)
        call.shapes = faults.for_answer(style.provider, name, size)
        if call.rule is None:
            return reshape(await handler(call), call.shapes)
        return await misbehave(call, call.rule, style.provider, handler)
    except ApiError as error:
        return style.error(error)


def _scoped(call: Call, header: str | None) -> str:
    """Return the account and the part of it that the call's headers select."""
    given = (call.request.headers.get(name) for name in (*_SCOPES, header) if name)
    return "/".join([call.account, *filter(None, given)])
