"""Chunking: the rows of a plan packed into ranges under a provider's limits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from batchata_tasks.providers.base import Limits


@dataclass(frozen=True, slots=True)
class PlannedChunk:
    """The rows `start` to `stop` of a plan: the bytes of their requests, their bound, their route.

    The bound is the most that they can cost, in picodollars.
    """

    start: int
    stop: int
    bytes: int
    bound: int
    route: int = 0


class Packer:
    """Packs requests, in order, into as few chunks as the limits allow.

    Requests of different routes never share a chunk, nor do those of a `pilot` and the others.
    `limits` has those of each route.
    """

    def __init__(
        self, limits: Sequence[Limits], items_per_batch: int | None = None, pilot: int = 0
    ) -> None:
        self._limits = limits
        self._items = items_per_batch
        self.pilot = pilot  # it may be changed before the first request
        self._chunks: list[PlannedChunk] = []
        self._start = self._stop = self._route = 0  # of the chunk that is filled
        self._size = self._bound = 0

    def fits_alone(self, size: int, route: int = 0) -> bool:
        """Whether a request of `size` bytes can be sent at all."""
        return size <= self._limits[route].bytes

    def add(self, size: int, bound: int, route: int = 0) -> None:
        """Add the next request."""
        limits = self._limits[route]
        most = min(limits.requests, self._items or limits.requests)
        full = self._stop - self._start == most or self._size + size > limits.bytes
        if full or (self._stop and self._stop == self.pilot) or route != self._route:
            self.finish()
        self._route = route
        self._stop += 1
        self._size += size
        self._bound += bound

    def finish(self) -> list[PlannedChunk]:
        """Return all chunks."""
        if self._stop > self._start:
            rows = (self._start, self._stop)
            self._chunks.append(PlannedChunk(*rows, self._size, self._bound, self._route))
            self._start = self._stop
            self._size = self._bound = 0
        return self._chunks


def prefix_within(bounds: Iterable[int], money: int) -> int:
    """Return how many rows the longest prefix has whose bounds sum up to at most `money`."""
    rows = total = 0
    for bound in bounds:
        total += bound
        if total > money:
            break
        rows += 1
    return rows
