"""The last moment before a create goes out: asked once more whether it may, and remembered."""

from __future__ import annotations

import os
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, BinaryIO

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator, Mapping

    import httpx2

# called when the request's first byte is about to go out, after the connection was made; it raises
# to stop that. A process may sleep for hours while it connects, and then nothing must be sent.
_GATE: ContextVar[Gate | None] = ContextVar("batchata_gate", default=None)


class Gate:
    """Called right before bytes of a create go out; it knows whether any did."""

    def __init__(self, may_send: Callable[[], None]) -> None:
        self._may_send = may_send
        self.began = False

    def __call__(self) -> None:
        """Raise an error to send nothing (more)."""
        self._may_send()
        self.began = True


@contextmanager
def gated(may_send: Callable[[], None]) -> Generator[Gate, None, None]:
    """Call `may_send` at the last moment before any byte of a create goes out."""
    gate = Gate(may_send)
    token = _GATE.set(gate)
    try:
        yield gate
    finally:
        _GATE.reset(token)


def watch(request: httpx2.Request) -> None:
    """Request hook of the SDKs' HTTP clients: call the gate once the connection has been made."""
    if (gate := _GATE.get()) is None:
        return

    before: Callable[[str, Mapping[str, Any]], None] | None = request.extensions.get("trace")

    def trace(event: str, info: Mapping[str, Any]) -> None:
        if before is not None:
            before(event, info)
        # what a proxy is asked for to reach the server is not the create itself
        is_create = getattr(info.get("request"), "method", b"POST") != b"CONNECT"
        if is_create and event.endswith("send_request_headers.started"):
            gate()

    request.extensions = {**request.extensions, "trace": trace}


class GatedFile:
    """A request file that calls the gate before each block is read, and so before it is sent."""

    def __init__(self, stream: BinaryIO, gate: Gate) -> None:
        self._stream, self._gate = stream, gate
        self.size = os.fstat(stream.fileno()).st_size

    def read(self, size: int = -1) -> bytes:
        """Return the next block."""
        self._gate()
        return self._stream.read(size)

    def __iter__(self) -> Iterator[bytes]:
        while block := self.read(1 << 16):
            yield block
