"""The guard: no create without its upper price bound reserved in the ledger.

What a chunk may cost at most is set aside before it is sent and settled from usage afterwards, so
spend stays under the limit whatever the answers turn out to be. A chunk that does not fit is cut
to what fits; when too little is left, the run waits for money in flight to come back.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum
from itertools import accumulate
from typing import TYPE_CHECKING

from batchata_tasks.chunk import chunk_token, prefix_within
from batchata_tasks.ledger import OVER_BOUND
from batchata_tasks.money import pico_from_usd
from batchata_tasks.storage import DatasetFolder

if TYPE_CHECKING:
    from collections.abc import Callable

    from batchata_tasks.ledger import BudgetTerms, Chunk, Lease, Ledger
    from batchata_tasks.run_spec import RunSpec
    from batchata_tasks.session import ChunkSession, Session

OUTGROWN = "another run had answers above the upper bounds that this one planned with"
SMALLEST_SHARE = 100  # a cut chunk holds at least 1 % of the run's planned rows


@dataclass(frozen=True, slots=True)
class Limits:
    """What binds a run's spending: its own limit in picodollars, and the budget that it shares."""

    run: int | None = None
    budget: BudgetTerms | None = None


def limits_of(spec: RunSpec) -> Limits:
    """Return what binds the spending of a spec's runs."""
    run = pico_from_usd(spec.cost_limit_usd) if spec.cost_limit_usd is not None else None
    return Limits(run, spec.budget.terms() if spec.budget is not None else None)


def speaker(spec: RunSpec) -> str:
    """Return who a spec is where it speaks of a budget: two may have one name, but not one dataset."""
    return f"{spec.name} for {DatasetFolder(spec.output).url}"


class Verdict(Enum):
    """What the guard says of the next chunk."""

    SEND = "send"
    WAIT = "wait"  # for this run's money in flight
    WAIT_FOR_OTHERS = "wait for others"  # for money that runs with the same budget have in flight
    ASIDE = "aside"  # these rows cannot be paid for, others may


def guard(
    ledger: Ledger, lease: Lease, chunk: Chunk, limits: Limits, planned_rows: int,
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
        others = ledger.others_in_flight(limits.budget, chunk.dataset_id) if limits.budget is not None else 0
        dear = _payable_from(bounds, smallest, left.least_with(others))
        if dear == 0:
            return Verdict.WAIT_FOR_OTHERS, chunk
        if ledger.reserve(lease, chunk, limits.run, limits.budget) == left:
            break
        # money came back between the looks at what is left and at what is in flight
    return Verdict.ASIDE, cut(ledger, lease, chunk, dear, bounds, sizes) if dear < chunk.rows else chunk


def _payable_from(bounds: list[int], smallest: int, money: int) -> int:
    """Return after how many rows, of which no piece can be paid for, the first piece of `smallest` rows can; else all."""
    sums = [0, *accumulate(bounds)]
    return next((i for i in range(len(bounds) - smallest + 1) if sums[i + smallest] - sums[i] <= money), len(bounds))


def stop_over_bound(session: ChunkSession, chunk: Chunk, answers: int, excess: int) -> None:
    """Take notice of answers that cost more than their bound: bounds of the model grow, and under a limit nothing more is sent.

    `excess` is the largest cost of one, in millionths of its bound. What is under way lands; the
    next run plans with the corrected bounds.
    """
    factor = session.ledger.correct_bounds(chunk.provider, chunk.model, session.taken.factor, excess, chunk.id)
    grown = f"bounds of {chunk.model} are multiplied by {factor / 10**6:.2f} from now on"
    text = f"{answers:,} answers cost more than their upper bound; {grown}."
    if session.spec.limited:
        session.ledger.request_stop(session.run_id, OVER_BOUND)
        text += " Nothing more is sent in this run, so that the limit holds."
    session.say(text)


def heed_corrections(session: Session) -> None:
    """Let a run under a limit send nothing more where another run found since that the bounds it planned with are too low."""
    if session.spec.limited and session.stop_reason() is None and outgrown(session):
        session.ledger.request_stop(session.run_id, OVER_BOUND)
        session.say(f"{OUTGROWN}: nothing more is sent in this run, so that the limit holds.")


def outgrown(session: Session) -> bool:
    """Whether bounds of a model of the run are larger by now than those that it planned with."""
    planned = session.plan().factors
    return any(
        session.ledger.bounds_factor(to.provider, to.model) > planned.get(f"{to.provider}/{to.model}", 10**6)
        for to in session.spec.destinations()
    )


def cut(ledger: Ledger, lease: Lease, chunk: Chunk, rows: int, bounds: list[int], sizes: list[int]) -> Chunk:
    """Make the first rows of a chunk a chunk of their own and return it; the rest is another."""
    middle, size, bound = chunk.start + rows, sum(sizes[:rows]), None if chunk.bound is None else sum(bounds[:rows])
    expected = None if chunk.expected is None else chunk.expected * rows // chunk.rows
    head = replace(chunk, stop=middle, bytes=size, bound=bound, expected=expected)
    tail = replace(
        chunk, id=chunk_token(chunk.run_id, chunk.round, middle, chunk.kind), start=middle,
        bytes=chunk.bytes - size, bound=None if bound is None else (chunk.bound or 0) - bound,
        expected=None if expected is None else (chunk.expected or 0) - expected,
    )
    ledger.split_chunk(lease, chunk, head, tail)
    return head
