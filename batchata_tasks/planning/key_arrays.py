"""Digests of keys as arrays: millions of them are sorted, and looked up a block at a time."""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from batchata_tasks.planning.fingerprint import OTHERS_FROM
from batchata_tasks.planning.texts import Codes

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

SORTED_AT_ONCE = 500_000  # keys: sorting them takes some 30 MB


class Keys(NamedTuple):
    """Digests of 16 bytes, as their first and their last eight."""

    high: NDArray[np.uint64]
    low: NDArray[np.uint64]

    @classmethod
    def of(cls, digests: Sequence[bytes]) -> Keys:
        """Return digests of 16 bytes as arrays."""
        pairs = np.frombuffer(b"".join(digests), ">u8").reshape(-1, 2).astype(np.uint64)
        return cls(pairs[:, 0], pairs[:, 1])

    def digest(self, place: int) -> bytes:
        """Return one of the digests."""
        return b"".join(int(half[place]).to_bytes(8, "big") for half in self)

    def find(self, wanted: Keys) -> NDArray[np.int64]:
        """Return the place of each wanted key in these, which are sorted; -1 if it is not there."""
        places = np.full(len(wanted.high), -1, np.int64)
        if not len(self.high):
            return places
        at = np.searchsorted(self.high, wanted.high)
        open_ones = np.flatnonzero(at < len(self.high))
        while len(open_ones):
            here, keys = at[open_ones], open_ones
            same = self.high[here] == wanted.high[keys]
            hit = same & (self.low[here] == wanted.low[keys])
            places[keys[hit]] = here[hit]
            at[keys] += 1  # two keys may share their first half, however unlikely that is
            open_ones = keys[same & ~hit & (at[keys] < len(self.high))]
        return places


class SentRow(NamedTuple):
    """A row that was sent and did not land yet, by the digest of its key.

    No run waits for one that is held. One that is only planned is to be sent by the run that is
    open.
    """

    key: bytes
    is_held: bool
    fingerprint: str
    is_planned: bool = False


class InFlight:
    """The rows that were sent and did not land yet; there may be millions of them."""

    def __init__(self, rows: Iterable[SentRow]) -> None:
        known: dict[bytes, int] = {}
        held, planned, heads, others = bytearray(), bytearray(), bytearray(), array("i")
        self._others = Codes()  # few, while each row has a head of its own
        for row in rows:
            if known.setdefault(row.key, len(known)) == len(held):
                held.append(row.is_held)
                planned.append(row.is_planned)
                heads += row.fingerprint[:OTHERS_FROM].encode().ljust(OTHERS_FROM, b"\0")
                others.append(self._others.of(row.fingerprint[OTHERS_FROM:]))
        digests = sorted(known)
        order = np.array([known[digest] for digest in digests], np.int64)
        self._keys = Keys.of(digests)
        self._held = np.frombuffer(held, np.bool_)[order]
        self._planned = np.frombuffer(planned, np.bool_)[order]
        self._heads = np.frombuffer(heads, f"S{OTHERS_FROM}")[order]
        self._rests = np.frombuffer(others, np.int32)[order]

    def __len__(self) -> int:
        return len(self._held)

    def find(self, wanted: Keys) -> NDArray[np.int64]:
        """Return the places of keys among these; -1 if one is not in flight."""
        return self._keys.find(wanted)

    def held(self, places: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Return which rows are held, by their places; none at -1 is."""
        return (places >= 0) & self._held[places] if len(self) else places >= 0

    def planned(self, places: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Return which rows are only planned, by their places; none at -1 is."""
        return (places >= 0) & self._planned[places] if len(self) else places >= 0

    def fingerprint(self, place: int) -> str:
        """Return the fingerprint with which a row was sent."""
        head: bytes = self._heads[place]
        return head.decode() + self._others.texts[int(self._rests[place])]


class SourceKeys:
    """The keys of a source's rows with their numbers, on disk until they are compared."""

    _ROW = np.dtype([("high", "<u8"), ("low", "<u8"), ("number", "<i8")])

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stream = path.open("wb")
        self._rows = 0

    def close(self) -> None:
        """Delete the file."""
        self._stream.close()
        self._path.unlink(missing_ok=True)

    def add(self, keys: Keys, numbers: Sequence[int]) -> None:
        """Add the keys of rows, in the order of their numbers."""
        rows = np.empty(len(numbers), self._ROW)
        rows["high"], rows["low"], rows["number"] = keys.high, keys.low, numbers
        self._stream.write(rows.tobytes())
        self._rows += len(numbers)

    def first_double(self) -> tuple[int, int] | None:
        """Return the numbers of the first row whose key came before, and of the row before.

        None if all keys are unique.
        """
        self._stream.flush()
        if not self._rows:
            return None
        rows = np.memmap(self._path, self._ROW, "r")
        found = [
            pair
            for places in shares(rows["high"])
            if (pair := self._double(rows[places])) is not None
        ]
        return min(found, default=None)

    def _double(self, rows: NDArray[np.void]) -> tuple[int, int] | None:
        rows = rows[np.lexsort((rows["number"], rows["low"], rows["high"]))]
        same = np.ones(max(len(rows) - 1, 0), np.bool_)
        for half in ("high", "low"):
            same &= rows[half][1:] == rows[half][:-1]
        if not (doubles := np.flatnonzero(same)).size:
            return None
        later = rows["number"][1:][doubles]
        at = int(np.argmin(later))
        return int(later[at]), int(rows["number"][doubles[at]])


def shares(high: NDArray[np.uint64]) -> Iterator[NDArray[np.int64]]:
    """Yield the places of keys in shares that can be sorted one after another, in little memory."""
    count = len(high) // SORTED_AT_ONCE + 1
    if count == 1:
        yield np.arange(len(high))
        return
    for share in range(count):
        first = np.uint64(share * 2**64 // count)
        last = np.uint64((share + 1) * 2**64 // count - 1)
        yield np.flatnonzero((high >= first) & (high <= last))
