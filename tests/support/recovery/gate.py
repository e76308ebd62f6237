"""A door to the emulator that shuts after the first call.

Later connections wait to be made, as on a bad network.
"""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from typing import Self
from urllib.parse import urlsplit


class Gate:
    """Forwards TCP connections of `url` to the emulator: two calls, then none until it is opened.

    A run asks who answers, and for the newest batches, before it connects for its create.
    """

    def __init__(self, url: str) -> None:
        self._target = (str(urlsplit(url).hostname), int(urlsplit(url).port or 0))
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=0)
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._stopper: socket.socket | None = None
        threading.Thread(target=self._first_calls, name="gate", daemon=True).start()

    def _first_calls(self) -> None:
        with (
            suppress(OSError),
            self._listener.accept()[0] as inner,
            socket.create_connection(self._target) as outer,
        ):
            inner.sendall(_answer(inner, outer))
            answer = _answer(inner, outer)
            # without a backlog, one connection that nobody accepts keeps out all others
            self._stopper = socket.create_connection(self._listener.getsockname())
            inner.sendall(answer)

    def open(self) -> None:
        self._shut_no_more()
        threading.Thread(target=self._accept, name="gate", daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._shut_no_more()
        self._listener.close()

    def _shut_no_more(self) -> None:
        if self._stopper is not None:
            self._stopper.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                inner = self._listener.accept()[0]
                outer = socket.create_connection(self._target)
                for source, target in ((inner, outer), (outer, inner)):
                    threading.Thread(
                        target=_pump, args=(source, target), name="pump", daemon=True
                    ).start()


def _pump(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while block := source.recv(1 << 16):
            target.sendall(block)
    for end in (source, target):
        with suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)


def _answer(inner: socket.socket, outer: socket.socket) -> bytes:
    """Pass a call on; return its answer, which has ended if nothing more comes for a while."""
    outer.sendall(inner.recv(1 << 16))
    outer.settimeout(None)
    answer = outer.recv(1 << 16)
    outer.settimeout(0.2)
    with suppress(TimeoutError):
        while block := outer.recv(1 << 16):
            answer += block
    return answer
