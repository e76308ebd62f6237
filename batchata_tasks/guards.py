"""The guard: no create without its upper price bound reserved in the ledger.

What a chunk may cost at most is set aside before it is sent and settled from usage afterwards, so
spend stays under the limit whatever the answers turn out to be. A chunk that does not fit is cut
to what fits; when too little is left, the run waits for money in flight to come back.
"""

from __future__ import annotations

from dataclasses import replace
from enum import Enum
from typing import TYPE_CHECKING

from batchata_tasks.chunk import chunk_token, prefix_within

if TYPE_CHECKING:
    from collections.abc import Callable

    from batchata_tasks.ledger import Chunk, Lease, Ledger

SMALLEST_SHARE = 100  # a cut chunk holds at least 1 % of the run's planned rows


class Verdict(Enum):
    """What the guard says of the next chunk."""

    SEND = "send"
    WAIT = "wait"  # for money in flight
    ASIDE = "aside"  # these rows cannot be paid for, others may
    STOP = "stop"  # the limit is reached


def guard(
    ledger: Ledger, lease: Lease, chunk: Chunk, limit: int | None, planned_rows: int,
    columns: Callable[[Chunk], tuple[list[int], list[int]]],
) -> tuple[Verdict, Chunk]:
    """Reserve a chunk's bound, or the bound of its first rows; return the chunk that is next.

    It may be cut from the one given: the rest then stands in the ledger as a chunk of its own.

    `columns` gives the bounds (picodollars) and sizes (bytes) of a chunk's rows.
    """
    left = ledger.reserve(lease, chunk, limit)
    if left is None:
        return Verdict.SEND, chunk
    bounds, sizes = columns(chunk)
    rows = prefix_within(bounds, left)
    smallest = min(max(1, planned_rows // SMALLEST_SHARE), chunk.rows)
    if rows >= smallest:
        # what stands in the ledger from here on, whether or not its money can be had
        chunk = cut(ledger, lease, chunk, rows, bounds, sizes)
        bounds, sizes = bounds[:rows], sizes[:rows]
        if ledger.reserve(lease, chunk, limit) is None:
            return Verdict.SEND, chunk
    _, in_flight = ledger.money(chunk.run_id)
    if in_flight:
        return Verdict.WAIT, chunk
    dear = next((i for i, bound in enumerate(bounds) if bound <= left), len(bounds))
    if not dear:
        return Verdict.STOP, chunk
    return Verdict.ASIDE, cut(ledger, lease, chunk, dear, bounds, sizes) if dear < chunk.rows else chunk


def cut(ledger: Ledger, lease: Lease, chunk: Chunk, rows: int, bounds: list[int], sizes: list[int]) -> Chunk:
    """Make the first rows of a chunk a chunk of their own and return it; the rest is another."""
    middle, size, bound = chunk.start + rows, sum(sizes[:rows]), sum(bounds[:rows])
    head = replace(chunk, stop=middle, bytes=size, bound=bound)
    tail = replace(
        chunk, id=chunk_token(chunk.run_id, chunk.round, middle, chunk.kind), start=middle,
        bytes=chunk.bytes - size, bound=(chunk.bound or 0) - bound,
    )
    ledger.split_chunk(lease, chunk, head, tail)
    return head
