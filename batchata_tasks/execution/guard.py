"""The guard: no create without its upper price bound reserved in the ledger.

The most that a chunk can cost is reserved before it is sent and settled from usage afterwards, so
spend stays under the limit whatever the answers turn out to be. Of a chunk that does not fit, only
the rows that do are sent; if too few do, the run waits for money in flight to come back.
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
    from typing import TypeAlias

    from batchata_tasks.ledger import Chunk, Lease, Ledger
    from batchata_tasks.planning.limits import SpendingLimits

    Columns: TypeAlias = Callable[[Chunk], tuple[list[int], list[int]]]

SMALLEST_SHARE = 100  # a part of a chunk holds at least 1 % of the run's planned rows


class Verdict(Enum):
    """What is to be done with the next chunk."""

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
    columns: Columns,
    *,
    watched: bool = False,
) -> tuple[Verdict, Chunk]:
    """Reserve a chunk's bound, or that of its first rows; return the verdict and the next chunk.

    The next chunk may be split off from the one given: the rest is then a chunk of its own in the
    ledger. `columns` returns the bounds (picodollars) and sizes (bytes) of a chunk's rows. If the
    ledger is `watched`, the batches of runs without a process return their money as well.
    """
    while True:
        remaining = ledger.reserve(lease, chunk, limits.run, limits.budget)
        if remaining is None:
            return Verdict.SEND, chunk
        bounds, sizes = columns(chunk)
        smallest = _smallest(chunk, planned_rows)
        rows = prefix_within(bounds, remaining.least)
        if rows >= smallest:
            # the split stands in the ledger from here on, whether or not its money can be had
            chunk = split_chunk(ledger, lease, chunk, rows, bounds, sizes)
            continue
        if ledger.returning(chunk.run_id):
            return Verdict.WAIT, chunk
        others = 0
        if limits.budget is not None:
            others = ledger.others_in_flight(limits.budget, chunk.dataset_id, watched=watched)
        unpayable = _payable_from(bounds, smallest, remaining.least_with(others))
        if unpayable == 0:
            return Verdict.WAIT_FOR_OTHERS, chunk
        if ledger.reserve(lease, chunk, limits.run, limits.budget) == remaining:
            break
        # money came back between the reads of what remains and of what is in flight
    if unpayable < chunk.rows:
        chunk = split_chunk(ledger, lease, chunk, unpayable, bounds, sizes)
    return Verdict.ASIDE, chunk


def waits_for_others(
    ledger: Ledger, chunks: list[Chunk], limits: SpendingLimits, planned_rows: int, columns: Columns
) -> bool:
    """Whether the guard would have a run wait for others, if it asked in a watched ledger now.

    `chunks` are those that the run has not sent, in order. Nothing is reserved or split.
    """
    if not chunks or limits.budget is None or ledger.returning(chunks[0].run_id):
        return False
    others = ledger.others_in_flight(limits.budget, chunks[0].dataset_id, watched=True)
    remaining = ledger.remaining(chunks[0].run_id, limits.run, limits.budget)
    for chunk in chunks:
        bounds, smallest = columns(chunk)[0], _smallest(chunk, planned_rows)
        begin = _payable_from(bounds, smallest, remaining.least_with(others))
        if begin < chunk.rows:  # the rows before it are set aside
            return prefix_within(bounds[begin:], remaining.least) < smallest
    return False


def _smallest(chunk: Chunk, planned_rows: int) -> int:
    """Return how many of a chunk's rows are sent at least."""
    return min(max(1, planned_rows // SMALLEST_SHARE), chunk.rows)


def _payable_from(bounds: list[int], smallest: int, money: int) -> int:
    """Return the position of the first `smallest` rows that the money pays for; all rows if none.

    No piece of the rows before it can be paid for.
    """
    sums = [0, *accumulate(bounds)]
    return next(
        (i for i in range(len(bounds) - smallest + 1) if sums[i + smallest] - sums[i] <= money),
        len(bounds),
    )


def split_chunk(
    ledger: Ledger, lease: Lease, chunk: Chunk, rows: int, bounds: list[int], sizes: list[int]
) -> Chunk:
    """Split a chunk in the ledger after its first rows; return the chunk of these.

    `bounds` (picodollars) and `sizes` (bytes) are those of the chunk's rows.
    """
    middle = chunk.start + rows
    size = sum(sizes[:rows])
    bound = None if chunk.bound is None else sum(bounds[:rows])
    expected = None if chunk.expected is None else chunk.expected * rows // chunk.rows
    tokens = None if chunk.tokens is None else chunk.tokens * size // max(chunk.bytes, 1)
    head = replace(chunk, stop=middle, bytes=size, bound=bound, expected=expected, tokens=tokens)
    tail = replace(
        chunk,
        id=chunk_token(chunk.run_id, chunk.round, middle, chunk.kind),
        start=middle,
        bytes=chunk.bytes - size,
        bound=None if bound is None else (chunk.bound or 0) - bound,
        expected=None if expected is None else (chunk.expected or 0) - expected,
        tokens=None if tokens is None else (chunk.tokens or 0) - tokens,
    )
    ledger.split_chunk(lease, chunk, head, tail)
    return head
