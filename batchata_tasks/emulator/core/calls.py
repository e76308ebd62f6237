"""One HTTP call: its account, the fault that strikes it, and how errors are returned."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import orjson
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.routing import Route

from batchata_tasks.emulator.core.fate import fate_of
from batchata_tasks.emulator.core.refusals import ApiError, ProxyPage, refuse
from batchata_tasks.emulator.core.state import Created
from batchata_tasks.emulator.core.wire import Download, HangUp, read_body, spool_body

if TYPE_CHECKING:
    from starlette.requests import Request

    from batchata_tasks.emulator.core.batches import Batch
    from batchata_tasks.emulator.core.faults import Rule
    from batchata_tasks.emulator.core.spool import Sealed
    from batchata_tasks.emulator.core.state import Shared

INVALID_KEY = "invalid"
_REFUSED = frozenset(
    {
        "http_429",
        "http_error",
        "http_500_before",
        "html_413",
        "not_found",
        "spend_cap",
        "hard_limit",
    }
)
"""Faults that refuse a call without looking at it."""


class Json(Response):
    """A JSON answer."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        """Encode the content."""
        return orjson.dumps(content)


@dataclass
class Call:
    """An authenticated call, and its consequences so far."""

    request: Request
    shared: Shared
    account: str
    rule: Rule | None = None
    consumed: bool = False
    batch_id: str | None = None
    size: int = 0

    @property
    def now(self) -> float:
        """The moment of the call on the emulator's clock."""
        return self.shared.clock.now()

    @property
    def origin(self) -> str:
        """The scheme, host and port that the client reached us by."""
        return f"{self.request.url.scheme}://{self.request.url.netloc}"

    @property
    def acceptance(self) -> float:
        """When a batch created by this call comes into existence."""
        return self.now + self._seconds("accept_delay")

    @property
    def list_lag(self) -> float:
        """How long lists leave out a batch created by this call."""
        return self._seconds("list_lag")

    @property
    def body_size(self) -> int:
        """The size of the body as the client announced it, 0 if it did not."""
        announced = self.request.headers.get("content-length", "")
        return int(announced) if announced.isdigit() else 0

    def start(self, batch: Batch) -> None:
        """Set when the batch that this call creates can be seen, and how it ends."""
        if self.acceptance > self.now:
            batch.appears_at = self.acceptance
        if self.list_lag:
            batch.listed_at = batch.created_at + self.list_lag
        batch.fate = fate_of(self.shared.faults.for_batch(batch.provider))
        batch.lengths = self.shared.lengths
        self.batch_id, self.size = batch.id, batch.size

    def _seconds(self, kind: str) -> float:
        return self.rule.seconds if self.rule is not None and self.rule.kind == kind else 0.0

    async def body(self, limit: int) -> bytearray | None:
        """Read the body into memory; None when it is too large."""
        self.consumed = True
        return await read_body(self.request, limit)

    async def spool(self, limit: int) -> Sealed | None:
        """Read the body to disk; None when it is too large."""
        self.consumed = True
        return await spool_body(self.request, limit)

    async def drain(self) -> None:
        """Read the rest of the body, so that the client gets to read the answer."""
        if not self.consumed:
            await self.body(0)


Handler: TypeAlias = Callable[[Call], Awaitable[Response]]


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
        # faults of this kind make lists that hide batches
        if name == "list" and not (call.rule and call.rule.kind.startswith("list_")):
            response.headers["x-batchata-lists"] = "complete"
        if not isinstance(response, ProxyPage):
            response.headers.update(style.headers(response))
        return response

    return Route(path, respond, methods=[method])


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
        call.rule = call.shared.faults.for_call(style.provider, name, call.body_size)
        if call.rule is None:
            return await handler(call)
        return await _misbehave(call, call.rule, style.provider, handler)
    except ApiError as error:
        return style.error(error)


async def _misbehave(call: Call, rule: Rule, provider: str, handler: Handler) -> Response:
    creates = call.shared.creates
    if rule.kind == "slow":
        await asyncio.sleep(rule.seconds)
        if creates is not call.shared.creates:
            # The emulator was reset in between: this call belongs to a test that has ended.
            return HangUp()
    elif rule.kind == "drop_before":
        await call.drain()
        return HangUp()
    elif rule.kind in _REFUSED:
        return refuse(rule, provider)
    response = await handler(call)
    if rule.kind == "slow_after":
        await asyncio.sleep(rule.seconds)
    if rule.kind == "http_500_after":
        return refuse(rule, provider)
    if rule.kind in ("drop_after", "accept_delay"):
        return HangUp()
    if rule.kind == "cut_download" and isinstance(response, Download):
        response.cut(rule.after_bytes, clean=rule.clean)
    return response
