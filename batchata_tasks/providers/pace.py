"""How slowly an answer may come in.

HTTP clients bound the wait for the next bytes, not for all of them: a server, or a proxy that keeps
a connection alive, which sends a blank every few seconds would be read for ever.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, cast

import httpx2

if TYPE_CHECKING:
    from collections.abc import Iterator

SECONDS = 120.0  # that an answer's bytes may be waited for, however few they are
BYTES_PER_SECOND = 2000.0  # beyond them; slow mobile networks are faster
# the most that one wait counts: a process that was stopped meanwhile (a laptop asleep) has waited
# for nothing
_LONGEST_WAIT = 30.0


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
        waited, size, began = 0.0, 0, time.monotonic()
        for block in self._stream:
            waited += min(time.monotonic() - began, _LONGEST_WAIT)
            size += len(block)
            if waited > SECONDS + size / BYTES_PER_SECOND:
                message = f"{size:,} bytes came in {waited:.0f} s, and more were to come"
                raise httpx2.ReadTimeout(message, request=self._request)
            yield block
            began = time.monotonic()

    def close(self) -> None:
        self._stream.close()
