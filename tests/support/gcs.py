"""A stand-in for Google Cloud Storage: what its clients ask to list and read objects, over HTTP."""

from __future__ import annotations

import json
import re
import sys
from contextlib import contextmanager
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, unquote, urlsplit

if TYPE_CHECKING:
    from collections.abc import Generator

_OBJECTS = re.compile(r"(/download)?/storage/v1/b/([^/]+)/o(?:/(.+))?")
_RANGE = re.compile(r"bytes=(\d+)-(\d*)")


class Gcs(ThreadingHTTPServer):
    """Serves the objects of buckets; `refuses` is the status that all calls get, if any."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.objects = dict[tuple[str, str], bytes]()  # by bucket and name
        self.refuses: HTTPStatus | None = None

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Pass over clients that went away, which close their connections as they like."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)

    @property
    def url(self) -> str:
        """The address for STORAGE_EMULATOR_HOST."""
        return f"http://127.0.0.1:{self.server_port}"


@contextmanager
def serving() -> Generator[Gcs, None, None]:
    """Serve until the block ends."""
    with Gcs() as server:
        thread = Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


class _Handler(BaseHTTPRequestHandler):
    server: Gcs  # pyright: ignore[reportIncompatibleVariableOverride] - the one that made it

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        asked = {name: values[0] for name, values in parse_qs(url.query).items()}
        match = _OBJECTS.fullmatch(url.path)
        if (status := self.server.refuses) is not None:
            self._json({"error": {"code": status, "message": status.phrase}}, status)
        elif match is None:
            self._not_found()
        elif match[3] is None:
            self._json(self._listed(match[2], asked))
        elif (content := self.server.objects.get((match[2], unquote(match[3])))) is None:
            self._not_found()
        elif match[1] or asked.get("alt") == "media":
            self._content(content)
        else:
            self._json(_facts(match[2], unquote(match[3]), content))

    def _listed(self, bucket: str, asked: dict[str, str]) -> dict[str, Any]:
        prefix, items, folders = asked.get("prefix", ""), list[Any](), set[str]()
        for (place, name), content in sorted(self.server.objects.items()):
            if place != bucket or not name.startswith(prefix):
                continue
            head, is_deeper, _ = name.removeprefix(prefix).partition("/")
            if is_deeper and asked.get("delimiter") == "/":
                folders.add(f"{prefix}{head}/")
            else:
                items.append(_facts(bucket, name, content))
        return {"kind": "storage#objects", "items": items, "prefixes": sorted(folders)}

    def _content(self, content: bytes) -> None:
        given = _RANGE.fullmatch(self.headers.get("Range", ""))
        status = HTTPStatus.OK
        first, last = 0, len(content) - 1
        if given is not None:
            status = HTTPStatus.PARTIAL_CONTENT
            first, last = int(given[1]), min(int(given[2] or last), last)
        self._answer(content[first : last + 1], status, "application/octet-stream")

    def _not_found(self) -> None:
        status = HTTPStatus.NOT_FOUND
        self._json({"error": {"code": status, "message": "Not Found"}}, status)

    def _json(self, value: dict[str, Any], status: HTTPStatus = HTTPStatus.OK) -> None:
        self._answer(json.dumps(value).encode(), status, "application/json")

    def _answer(self, body: bytes, status: HTTPStatus, kind: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base's name
        """Write nothing."""


def _facts(bucket: str, name: str, content: bytes) -> dict[str, Any]:
    at = "2026-01-01T00:00:00.000Z"
    return {
        "kind": "storage#object",
        "id": f"{bucket}/{name}/1",
        "name": name,
        "bucket": bucket,
        "generation": "1",
        "size": str(len(content)),
        "timeCreated": at,
        "updated": at,
    }
