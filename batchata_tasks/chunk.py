"""Chunking: rows of a plan packed into ranges under a provider's limits, then into request files."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from batchata_tasks.fingerprint import base32, digest
from batchata_tasks.storage import durable

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from batchata_tasks.providers import Framing

TOKEN_CHARS = 20  # 100 bits
ROW_ID_CHARS = 24  # 120 bits
CUSTOM_ID_CHARS = TOKEN_CHARS + 1 + ROW_ID_CHARS  # both providers take up to 64
_BYTES_A_WRITE = 1 << 20
_CUSTOM_ID = re.compile(f"[a-z2-7]{{{TOKEN_CHARS}}}-[a-z2-7]{{{ROW_ID_CHARS}}}")


@dataclass(frozen=True, slots=True)
class Limits:
    """What one batch may hold: requests, bytes of its file."""

    requests: int
    bytes: int


@dataclass(frozen=True, slots=True)
class Span:
    """Rows `start` to `stop` of a plan, the bytes of their requests, their upper price bound, their route."""

    start: int
    stop: int
    bytes: int
    bound: int
    route: int = 0


class Packer:
    """Packs requests, in order, into as few spans as the limits allow.

    Requests of different routes never share a span, nor do those of a `pilot` and the others.
    `limits` are those of each route.
    """

    def __init__(self, limits: Sequence[Limits], items_per_batch: int | None = None, pilot: int | None = None) -> None:
        self._limits, self._items, self._pilot = limits, items_per_batch, pilot
        self.spans: list[Span] = []
        self._start = self._stop = self._size = self._bound = self._route = 0

    def fits_alone(self, size: int, route: int = 0) -> bool:
        """Whether a request of `size` bytes can be sent at all."""
        return size <= self._limits[route].bytes

    def add(self, size: int, bound: int, route: int = 0) -> None:
        """Add the next request."""
        limits = self._limits[route]
        most = min(limits.requests, self._items or limits.requests)
        full = self._stop - self._start == most or self._size + size > limits.bytes
        if full or self._stop == self._pilot or route != self._route:
            self.finish()
        self._route = route
        self._stop += 1
        self._size += size
        self._bound += bound

    def finish(self) -> list[Span]:
        """Return all spans."""
        if self._stop > self._start:
            self.spans.append(Span(self._start, self._stop, self._size, self._bound, self._route))
            self._start, self._size, self._bound = self._stop, 0, 0
        return self.spans


def prefix_within(bounds: Iterable[int], money: int) -> int:
    """Return how many rows the longest prefix has whose bounds add up to at most `money`."""
    rows = total = 0
    for bound in bounds:
        total += bound
        if total > money:
            break
        rows += 1
    return rows


def chunk_token(run_id: str, round_number: int, start: int, kind: str) -> str:
    """Return the token of a chunk, which is its id: the same when a crashed run is carried on."""
    parts = (run_id, str(round_number), str(start), kind)
    return base32(digest("chunk", *(part.encode() for part in parts))[:13])[:TOKEN_CHARS]


def custom_id(token: str, row_id: str) -> str:
    """Return the provider-side name of a row's request: `<chunk token>-<row id>`."""
    return f"{token}-{row_id}"


def is_custom_id(name: str) -> bool:
    """Whether a request's name is of the form that this program gives, under whatever ledger."""
    return _CUSTOM_ID.fullmatch(name) is not None


def write_request_file(path: Path, framing: Framing, token: str, bodies: Iterable[tuple[str, bytes]]) -> None:
    """Write what will go over the wire for rows, byte for byte."""
    write_requests(path, framing, ((custom_id(token, row_id), body) for row_id, body in bodies))


def write_requests(path: Path, framing: Framing, requests: Iterable[tuple[str, bytes]]) -> None:
    """Write requests as they go over the wire: (custom_id, body) each."""
    with durable(path) as stream:
        stream.write(framing.head)
        block: list[bytes] = []
        size, first = 0, True
        for name, body in requests:
            line = framing.line(name, body)
            block.append(line if first else framing.joint + line)
            size, first = size + len(line), False
            if size > _BYTES_A_WRITE:
                stream.write(b"".join(block))
                block.clear()
                size = 0
        stream.write(b"".join(block) + framing.tail)
