"""How large an answer may be.

A server, or a page in between, may send bytes without an end: in memory, where an answer is read
whole, or on the disk, where results are saved. What counts are the bytes after decompression, since
a few kilobytes can expand to any size.
"""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import httpx2

from batchata_tasks.common.errors import TerminalError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

# bytes of an answer that is read whole: a list of 100 batches, with the longest ids and errors that
# are known, has less than one of these
WHOLE = 64 * 10**6
# bytes of one request's results: 32,768 tokens (the most of a model that tells log probabilities)
# with 20 alternatives each take 75 MB, 128,000 tokens of thinking one, quoted documents some more
PER_REQUEST = 128 * 10**6
# bytes that results leave free on a disk, so that other programs go on; half of what is free if
# that is less
FREE = 10**9
_STEP = 1 << 24  # bytes between two looks at the disk


def bound(response: httpx2.Response) -> None:
    """Response hook of the SDKs' HTTP clients: read no answer whole that is larger than `WHOLE`.

    Reading it then raises httpx2.DecodingError. A stream is not bounded.
    """
    read, iter_bytes = response.read, response.iter_bytes

    def some(chunk_size: int | None = None) -> Iterator[bytes]:
        size = 0
        for block in iter_bytes(chunk_size):
            size += len(block)
            if size > WHOLE:
                message = f"it is longer than {_spell(WHOLE)}"
                raise httpx2.DecodingError(message, request=response.request)
            yield block

    def read_some() -> bytes:
        response.iter_bytes = some
        try:
            return read()
        finally:
            response.iter_bytes = iter_bytes

    response.read = read_some


def first_of(blocks: Iterable[bytes]) -> Iterator[bytes]:
    """Yield the first blocks of a stream, `WHOLE` bytes or a little more."""
    size = 0
    for block in blocks:
        yield block
        size += len(block)
        if size > WHOLE:
            return


def bounded(blocks: Iterable[bytes], requests: int, folder: Path) -> Iterator[bytes]:
    """Yield the blocks of a batch's results while they can be that, and the disk has room.

    Raises:
        TerminalError: they, or one line of them, are larger than results of so many requests can
            be; or the disk of `folder` is nearly full.
    """
    most, least = (requests + 1) * PER_REQUEST, min(FREE, shutil.disk_usage(folder).free // 2)
    size = line = 0
    looked_at = 0
    for block in blocks:
        size += len(block)
        end = block.rfind(b"\n")
        line = line + len(block) if end < 0 else len(block) - end - 1
        if size > most or line > PER_REQUEST:
            what = "the results" if size > most else "a line of the results"
            message = f"{what} took more than {_spell(most if size > most else PER_REQUEST)}, "
            raise TerminalError(message + "and more was to come: nobody sends so much.")
        if size - looked_at >= _STEP:
            looked_at = size
            if shutil.disk_usage(folder).free < least:
                message = (
                    f"after {_spell(size)} of results the disk had less than {_spell(least)} left: "
                    "make room on it."
                )
                raise TerminalError(message)
        yield block


def _spell(size: int) -> str:
    return f"{size / 1e9:,.1f} GB" if size >= 10**9 else f"{size / 1e6:,.1f} MB"
