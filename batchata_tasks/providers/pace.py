"""How slowly an answer may come in, and until when it is waited for.

HTTP clients bound the wait for the next bytes, not for all of them: a server, or a proxy that keeps
a connection alive, which sends a blank or a provisional answer (1xx) every few seconds would be
read for ever. And while one is waited for, nobody sees that a run has reached its time limit.
"""

from __future__ import annotations

import math
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol, cast

import httpx2

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Mapping

SECONDS = 120.0  # that an answer's bytes may be waited for, however few they are
BYTES_PER_SECOND = 2000.0  # beyond them; slow mobile networks are faster
# the most that one wait counts: a process that was stopped meanwhile (a laptop asleep) has waited
# for nothing
_LONGEST_WAIT = 30.0
# seconds until the head of an answer, or the next block of its body, is whole: as long as the SDKs
# wait for a server that says nothing
WHOLE = 600.0
SOON = 10.0  # seconds that an answer may take beyond the time in which it is wanted
_AT_ONCE = 0.01  # seconds


class _Waiting(threading.local):
    # by the monotonic clock, of what this thread waits for
    ends: float | None = None
    until: float = math.inf


_WAITING = _Waiting()


@contextmanager
def within(seconds: float) -> Generator[None, None, None]:
    """Let calls of this thread end `SOON` after so many seconds, as at a server that says nothing.

    For calls that cost nothing: an answer that is not read says nothing of what was done.
    """
    before = _WAITING.until
    _WAITING.until = min(before, time.monotonic() + seconds + SOON)
    try:
        yield
    finally:
        _WAITING.until = before


def timeouts(given: Mapping[str, float | None]) -> dict[str, float | None]:
    """Return a request's time-outs, as HTTP clients name them, none beyond what is left."""
    left = max(_WAITING.until - time.monotonic(), _AT_ONCE)
    if left == math.inf:
        return dict(given)
    return {name: left if most is None else min(most, left) for name, most in given.items()}


class _Stream(Protocol):
    """A connection's bytes."""

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes: ...


def trace(event: str, info: Mapping[str, Any]) -> None:
    """Trace extension of the SDKs' requests: end the reading of a head that does not end.

    The call then raises httpx2.ReadTimeout, as for a server that says nothing.
    https://www.encode.io/httpcore/extensions/ describes the events.
    """
    if event.endswith(("connect_tcp.complete", "start_tls.complete")):
        _bound_reads(info["return_value"])
    elif event.endswith("receive_response_headers.started"):
        _WAITING.ends = min(time.monotonic() + WHOLE, _WAITING.until)
    elif "receive_response_headers" in event:  # complete or failed
        _WAITING.ends = None


def _bound_reads(stream: _Stream) -> None:
    """Let no read of a new connection go on beyond what its thread waits for.

    Events tell the start and the end of a head only, and httpx2 takes no streams of one's own.
    """
    unbounded = stream.read

    def read(max_bytes: int, timeout: float | None = None) -> bytes:
        if (ends := _WAITING.ends) is None:
            return unbounded(max_bytes, timeout)
        left = ends - time.monotonic()
        if left <= 0:
            message = "bytes came, but no whole answer in time"
            raise httpx2.ReadTimeout(message)
        return unbounded(max_bytes, left if timeout is None else min(timeout, left))

    stream.read = read


def bound(response: httpx2.Response) -> None:
    """Response hook of the SDKs' HTTP clients: end the reading of an answer that drips.

    Reading it then raises httpx2.ReadTimeout, like an answer that stops coming.
    """
    stream = cast("httpx2.SyncByteStream", response.stream)
    response.stream = _Bounded(stream, response.request)


class _Bounded(httpx2.SyncByteStream):
    """The bytes of an answer, as long as they come fast enough."""

    def __init__(self, stream: httpx2.SyncByteStream, request: httpx2.Request) -> None:
        self._stream, self._request = stream, request

    def __iter__(self) -> Iterator[bytes]:
        waited, size, blocks = 0.0, 0, iter(self._stream)
        while True:
            began = time.monotonic()
            # not all bytes are a block's: a chunk's size, or a trailer, may drip, too
            _WAITING.ends = min(began + WHOLE, _WAITING.until)
            try:
                block = next(blocks, None)
            finally:
                _WAITING.ends = None
            if block is None:
                return
            waited += min(time.monotonic() - began, _LONGEST_WAIT)
            size += len(block)
            if waited > SECONDS + size / BYTES_PER_SECOND:
                message = f"{size:,} bytes came in {waited:.0f} s, and more were to come"
                raise httpx2.ReadTimeout(message, request=self._request)
            yield block

    def close(self) -> None:
        self._stream.close()
