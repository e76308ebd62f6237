"""A small server on loopback that answers as a test says, and keeps what it was asked."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

if TYPE_CHECKING:
    from collections.abc import Callable, Generator


@dataclass(frozen=True)
class Asked:
    """A request as it came over the wire; `body` is empty if it has no length."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]  # by their names in small letters
    body: bytes


@dataclass
class Answering:
    """The server: its address, and the requests it got so far."""

    url: str
    asked: list[Asked] = field(default_factory=list[Asked])

    def of(self, method: str, path: str) -> list[Asked]:
        """Return the requests of this method whose path ends so."""
        return [one for one in self.asked if one.method == method and one.path.endswith(path)]


Answer = tuple[int, Any] | tuple[int, Any, dict[str, str]] | Iterator[bytes]
"""A status, a body (a text as it is, as HTML; everything else as JSON), and headers beside it.

Or the bytes of the answer, head and all, as they are sent until the client has enough.
"""


@contextmanager
def answering(answer: Callable[[Asked], Answer]) -> Generator[Answering, None, None]:
    """Serve until the block ends."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"  # connections serve several calls

        def _serve(self) -> None:
            headers = {name.lower(): value for name, value in self.headers.items()}
            body = self.rfile.read(int(headers.get("content-length", 0)))
            url = urlsplit(self.path)
            query = {name: values[0] for name, values in parse_qs(url.query).items()}
            asked = Asked(self.command, url.path, query, headers, body)
            served.asked.append(asked)
            answered = answer(asked)
            if not isinstance(answered, tuple):
                self.close_connection = True
                with suppress(OSError):
                    for block in answered:
                        self.wfile.write(block)
                return
            status, content, *more = answered
            kind = "text/html" if isinstance(content, str) else "application/json"
            data = content.encode() if isinstance(content, str) else json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(data)))
            for name, value in (more[0] if more else {}).items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_POST = do_DELETE = do_CONNECT = _serve  # noqa: N815 - names of the base

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    served = Answering(f"http://127.0.0.1:{server.server_address[1]}")
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield served
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
