"""The guard: no create without its upper price bound reserved in the ledger.

What a chunk may cost at most is set aside before it is sent and settled from usage afterwards, so
spend stays under the limit whatever the answers turn out to be. A chunk that does not fit is cut
to what fits; when too little is left, the run waits for money in flight to come back.
"""

from __future__ import annotations

from dataclasses import replace
from enum import Enum
from itertools import accumulate
from typing import TYPE_CHECKING

from batchata_tasks.planning.packing import prefix_within
from batchata_tasks.types.ids import chunk_token

if TYPE_CHECKING:
    from collections.abc import Callable

    from batchata_tasks.ledger import Chunk, Lease, Ledger
    from batchata_tasks.planning.limits import SpendingLimits

SMALLEST_SHARE = 100  # a cut chunk holds at least 1 % of the run's planned rows


class Verdict(Enum):
    """What the guard says of the next chunk."""

    SEND = "send"
    WAIT = "wait"  # for this run's money in flight
    WAIT_FOR_OTHERS = "wait for others"  # for money that runs with the same budget have in flight
    ASIDE = "aside"  # these rows cannot be paid for, others may


def guard(
    ledger: Ledger,
    lease: Lease,
    chunk: Chunk,
    limits: SpendingLimits,
    planned_rows: int,
    columns: Callable[[Chunk], tuple[list[int], list[int]]],
) -> tuple[Verdict, Chunk]:
    """Reserve a chunk's bound, or the bound of its first rows; return the chunk that is next.

    It may be cut from the one given: the rest then stands in the ledger as a chunk of its own.

    `columns` gives the bounds (picodollars) and sizes (bytes) of a chunk's rows.
    """
    while True:
        left = ledger.reserve(lease, chunk, limits.run, limits.budget)
        if left is None:
            return Verdict.SEND, chunk
        bounds, sizes = columns(chunk)
        smallest = min(max(1, planned_rows // SMALLEST_SHARE), chunk.rows)
        if (rows := prefix_within(bounds, left.least)) >= smallest:
            # what stands in the ledger from here on, whether or not its money can be had
            chunk = cut(ledger, lease, chunk, rows, bounds, sizes)
            continue
        if ledger.returning(chunk.run_id):
            return Verdict.WAIT, chunk
        others = (
            ledger.others_in_flight(limits.budget, chunk.dataset_id)
            if limits.budget is not None
            else 0
        )
        dear = _payable_from(bounds, smallest, left.least_with(others))
        if dear == 0:
            return Verdict.WAIT_FOR_OTHERS, chunk
        if ledger.reserve(lease, chunk, limits.run, limits.budget) == left:
            break
        # money came back between the looks at what is left and at what is in flight
    return Verdict.ASIDE, cut(
        ledger, lease, chunk, dear, bounds, sizes
    ) if dear < chunk.rows else chunk


def _payable_from(bounds: list[int], smallest: int, money: int) -> int:
    """Return after how many rows, of which no piece can be paid for, the first piece of `smallest` rows can; else all."""
    sums = [0, *accumulate(bounds)]
    return next(
        (i for i in range(len(bounds) - smallest + 1) if sums[i + smallest] - sums[i] <= money),
        len(bounds),
    )


def cut(
    ledger: Ledger, lease: Lease, chunk: Chunk, rows: int, bounds: list[int], sizes: list[int]
) -> Chunk:
    """Make the first rows of a chunk a chunk of their own and return it; the rest is another."""
    middle, size, bound = (
        chunk.start + rows,
        sum(sizes[:rows]),
        None if chunk.bound is None else sum(bounds[:rows]),
    )
    expected = None if chunk.expected is None else chunk.expected * rows // chunk.rows
    head = replace(chunk, stop=middle, bytes=size, bound=bound, expected=expected)
    tail = replace(
        chunk,
        id=chunk_token(chunk.run_id, chunk.round, middle, chunk.kind),
        start=middle,
        bytes=chunk.bytes - size,
        bound=None if bound is None else (chunk.bound or 0) - bound,
        expected=None if expected is None else (chunk.expected or 0) - expected,
    )
    ledger.split_chunk(lease, chunk, head, tail)
    return head
