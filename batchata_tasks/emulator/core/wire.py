"""HTTP below the routes: bodies that may be huge, connections that drop, downloads that are cut."""

from __future__ import annotations

import asyncio
import zlib
from functools import partial
from typing import TYPE_CHECKING

from starlette.responses import Response
from uvicorn.protocols.http.h11_impl import H11Protocol

from batchata_tasks.emulator.core.spool import Spool, blocks

if TYPE_CHECKING:
    from typing import Any

    from starlette.requests import Request
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from batchata_tasks.emulator.core.spool import Sealed

_TRANSPORT = "batchata.transport"
_DRIP = 0.1  # seconds between two blanks
_BLOCK = 1 << 18  # bytes of an endless answer that are sent at once, before compression


class Protocol(H11Protocol):
    """uvicorn's HTTP protocol, which also hands the application its connection.

    ASGI has no way to hang up without an answer, which this emulator must do.
    """

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Bind the application to the connection."""
        super().connection_made(transport)
        self.app: Any = partial(_with_transport, self.app, transport)


async def _with_transport(
    app: ASGIApp, transport: asyncio.Transport, scope: Scope, receive: Receive, send: Send
) -> None:
    scope[_TRANSPORT] = transport
    await app(scope, receive, send)


class HangUp(Response):
    """No answer at all: the connection is closed."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Close the connection and wait until the server knows."""
        del send  # nothing is sent
        transport: asyncio.Transport = scope[_TRANSPORT]
        transport.close()
        await _gone(receive)


class HalfAnswer(Response):
    """The headers of an answer and half of its body; then the connection breaks."""

    def __init__(self, whole: Response) -> None:
        super().__init__(bytes(whole.body), whole.status_code)
        self.raw_headers = list(whole.raw_headers)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send what arrives, and break off."""
        start = {"type": "http.response.start", "status": self.status_code}
        await send({**start, "headers": self.raw_headers})
        half = bytes(self.body[: len(self.body) // 2])
        await send({"type": "http.response.body", "body": half, "more_body": True})
        await HangUp()(scope, receive, send)


class Drip(Response):
    """Another answer, after blanks that come one by one for some seconds."""

    def __init__(self, answer: Response, seconds: float) -> None:
        super().__init__(status_code=answer.status_code)
        self._answer, self._blanks = answer, round(seconds / _DRIP)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the blanks and the answer, until the client hangs up."""

        async def rest(message: Message) -> None:
            if message["type"] == "http.response.body":
                await send(message)

        headers = [one for one in self._answer.raw_headers if one[0] != b"content-length"]
        start = {"type": "http.response.start", "status": self.status_code}
        await send({**start, "headers": headers})
        gone = asyncio.ensure_future(_gone(receive))
        for _ in range(self._blanks):
            await send({"type": "http.response.body", "body": b" ", "more_body": True})
            done, _ = await asyncio.wait((gone,), timeout=_DRIP)
            if done:
                return
        gone.cancel()
        await self._answer(scope, receive, rest)


class Endless(Response):
    """Another answer, again and again until the client hangs up; or `packed`, as one stream."""

    def __init__(self, answer: Response, body: bytes, *, packed: bool) -> None:
        super().__init__(status_code=answer.status_code)
        self.raw_headers = [one for one in answer.raw_headers if one[0] == b"content-type"]
        self._body, self._packed = body, packed

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the answer until the client hangs up."""
        del scope
        body, headers = self._body, self.raw_headers
        block = (body or b" ") * (_BLOCK // max(len(body), 1) + 1)
        packer = zlib.compressobj(wbits=zlib.MAX_WBITS | 16)
        if self._packed:
            headers = [*headers, (b"content-encoding", b"gzip")]
        start = {"type": "http.response.start", "status": self.status_code}
        await send({**start, "headers": headers})
        gone = asyncio.ensure_future(_gone(receive))
        while not gone.done():
            part = block
            if self._packed:
                part = packer.compress(block) + packer.flush(zlib.Z_SYNC_FLUSH)
            await send({"type": "http.response.body", "body": part, "more_body": True})
            await asyncio.sleep(0)


async def _gone(receive: Receive) -> None:
    """Wait until the client has hung up."""
    while (await receive())["type"] != "http.disconnect":
        pass


class Download(Response):
    """Sealed content as a stream of blocks; `cut` ends it after so many bytes."""

    def __init__(self, content: Sealed, headers: dict[str, str], *, sized: bool = False) -> None:
        super().__init__(headers=headers)
        del self.headers["content-length"]
        if sized:
            self.headers["content-length"] = str(len(content))
        self._content = content
        self._cut: int | None = None
        self._clean = False

    @property
    def whole(self) -> bytes:
        """All of the content."""
        return bytes(self._content[:])

    def halve(self, *, clean: bool) -> None:
        """Stop at half of the content."""
        self.cut(len(self._content) // 2, clean=clean)

    def cut(self, after_bytes: int, *, clean: bool) -> None:
        """Stop after `after_bytes`: break the connection, or (`clean`) act as if that were all."""
        self._cut, self._clean = min(after_bytes, len(self._content)), clean
        if clean and "content-length" in self.headers:
            self.headers["content-length"] = str(self._cut)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the content."""
        start = {"type": "http.response.start", "status": self.status_code}
        await send({**start, "headers": self.raw_headers})
        content = self._content if self._cut is None else self._content[: self._cut]
        for block in blocks(content):
            await send({"type": "http.response.body", "body": block, "more_body": True})
        if self._cut is not None and not self._clean:
            await HangUp()(scope, receive, send)
            return
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def read_body(request: Request, limit: int) -> bytearray | None:
    """Read a body into memory; None if it is larger than the limit.

    A body that is too large is read to its end all the same, so that the client can read the answer
    instead of meeting a broken pipe.
    """
    body = bytearray()
    size = 0
    async for chunk in request.stream():
        size += len(chunk)
        if size <= limit:
            body += chunk
    return body if size <= limit else None


async def spool_body(request: Request, limit: int) -> Sealed | None:
    """Read a body that may be large to disk; None if it is larger than the limit."""
    spool = Spool()
    size = 0
    async for chunk in request.stream():
        size += len(chunk)
        if size <= limit:
            spool.write(chunk)
    sealed = spool.seal()
    return sealed if size <= limit else None
