"""Bytes that may be large: held in memory while small, on disk when they grow."""

from __future__ import annotations

import mmap
import tempfile
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterator

Sealed: TypeAlias = bytes | mmap.mmap
"""Finished content: slices of both are `bytes`, and a map is read from disk page by page."""

IN_MEMORY = 1 << 20
BLOCK = 1 << 18


class Spool:
    """An append-only buffer that becomes `Sealed` content."""

    def __init__(self) -> None:
        # `seal` closes it
        self._file = tempfile.SpooledTemporaryFile(max_size=IN_MEMORY)  # noqa: SIM115 - closed
        self.size = 0

    def __del__(self) -> None:
        """Close a buffer that was not sealed, such as that of a batch which a reset dropped."""
        self._file.close()

    def write(self, block: bytes) -> None:
        """Append a block."""
        self._file.write(block)
        self.size += len(block)

    def seal(self) -> Sealed:
        """Close the buffer and return its content."""
        with self._file as file:
            if self.size <= IN_MEMORY:
                file.seek(0)
                return file.read()
            file.flush()
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


def blocks(content: Sealed, size: int = BLOCK) -> Iterator[bytes]:
    """Cut sealed content into blocks for streaming."""
    for start in range(0, len(content), size):
        yield content[start : start + size]


def lines(content: Sealed, start: int, end: int) -> Iterator[tuple[int, int]]:
    """Yield the bounds of each line of `content[start:end]`, without its line feed."""
    while start < end:
        feed = content.find(b"\n", start, end)
        stop = end if feed < 0 else feed
        yield start, stop
        start = stop + 1


def extract(content: Sealed, start: int, end: int) -> Sealed:
    """Copy a part of sealed content; a large part is copied by way of the disk."""
    spool = Spool()
    for position in range(start, end, BLOCK):
        spool.write(content[position : min(end, position + BLOCK)])
    return spool.seal()
