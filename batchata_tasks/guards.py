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
    rows, size, bound = prefix_within(bounds, sizes, left)
    smallest = min(max(1, planned_rows // SMALLEST_SHARE), chunk.rows)
    if rows >= smallest:
        middle = chunk.start + rows
        head = replace(chunk, stop=middle, bytes=size, bound=bound)
        tail = replace(
            chunk, id=chunk_token(chunk.run_id, chunk.round, middle, chunk.kind), start=middle,
            bytes=chunk.bytes - size, bound=(chunk.bound or 0) - bound,
        )
        ledger.split_chunk(lease, chunk, head, tail)
        chunk = head  # what stands in the ledger now, whether or not its money can be had
        if ledger.reserve(lease, head, limit) is None:
            return Verdict.SEND, head
    _, in_flight = ledger.money(chunk.run_id)
    return (Verdict.WAIT if in_flight else Verdict.STOP), chunk
