"""The guard: nothing is sent without a reservation, the limit holds, and it is used."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batchata_tasks.execution.guard import Verdict, guard, split_chunk
from batchata_tasks.ledger import Chunk, Ledger, OutcomeTotals
from batchata_tasks.planning.limits import SpendingLimits
from batchata_tasks.types.ids import chunk_token
from tests.support.chunks import planned_chunk

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.ledgers import Databases

RUN: dict[str, Any] = {"name": "n", "spec": "{}", "spec_digest": "s" * 64}


def empty(url: str) -> None:
    """Make an empty ledger."""
    Ledger(url).close()


class Run:
    """A run whose one chunk has rows of the given bounds; row n has n+1 bytes."""

    def __init__(
        self, databases: Databases, bounds: list[int], in_flight: int = 0, settled: int = 0
    ) -> None:
        self.bounds, self.sizes = bounds, list(range(1, len(bounds) + 1))
        url, _ = databases.copy(empty)
        self.ledger = Ledger(url)
        self.dataset = self.ledger.dataset_id("file:///d", None)
        self.lease = self.ledger.acquire_lease(self.dataset, 3600)
        self.id = self.ledger.begin_run(self.lease, RUN)
        self.chunk = self.make(0, len(bounds))
        others = [
            replace(self.make(0, 1), id=f"other-{n}", round=2, bound=bound)
            for n, bound in enumerate((in_flight, settled))
        ]
        self.ledger.fix_plan(self.lease, self.id, {}, [self.chunk, *others])
        if in_flight:
            self.ledger.reserve(self.lease, others[0], None)
        if settled:
            self.ledger.reserve(self.lease, others[1], None)
            self.ledger.collect(
                self.lease, others[1], {"succeeded": OutcomeTotals(1, cost=settled)}, 0
            )

    def make(self, start: int, stop: int) -> Chunk:
        token = chunk_token(self.id, 1, start, "batch")
        size, bound = sum(self.sizes[start:stop]), sum(self.bounds[start:stop])
        rows = range(start, stop)
        return planned_chunk(token, self.id, self.dataset, rows, bytes=size, bound=bound)

    def columns(self, chunk: Chunk) -> tuple[list[int], list[int]]:
        return self.bounds[chunk.start : chunk.stop], self.sizes[chunk.start : chunk.stop]

    def ask(
        self, chunk: Chunk, limit: int | None, planned: int | None = None
    ) -> tuple[Verdict, Chunk]:
        return guard(
            self.ledger,
            self.lease,
            chunk,
            SpendingLimits(limit),
            planned or len(self.bounds),
            self.columns,
        )

    def listed(self) -> list[Chunk]:
        return [chunk for chunk in self.ledger.chunks(self.id) if chunk.round == 1]


TEN = [10] * 10
WAIT = Verdict.WAIT
SEND = Verdict.SEND
ASIDE = Verdict.ASIDE


@pytest.mark.parametrize(
    ("bounds", "limit", "in_flight", "settled", "planned", "verdict", "rows"),
    [
        (TEN, None, 0, 0, 10, SEND, 10),
        (TEN, 1000, 0, 0, 10, SEND, 10),
        (TEN, 100, 0, 0, 10, SEND, 10),
        (TEN, 99, 0, 0, 10, SEND, 9),
        (TEN, 90, 0, 0, 10, SEND, 9),
        (TEN, 10, 0, 0, 10, SEND, 1),
        (TEN, 9, 0, 0, 10, ASIDE, 10),
        (TEN, 0, 0, 0, 10, ASIDE, 10),
        (TEN, 100, 60, 0, 10, SEND, 4),
        (TEN, 100, 0, 60, 10, SEND, 4),
        (TEN, 100, 30, 30, 10, SEND, 4),
        (TEN, 100, 91, 0, 10, WAIT, 0),
        (TEN, 100, 100, 0, 10, WAIT, 0),
        (TEN, 100, 0, 91, 10, ASIDE, 10),
        (TEN, 100, 1, 91, 10, WAIT, 0),
        (TEN, 100, 0, 200, 10, ASIDE, 10),
        (TEN, 49, 0, 0, 500, ASIDE, 10),
        (TEN, 50, 0, 0, 500, SEND, 5),
        (TEN, 59, 0, 0, 599, SEND, 5),
        (TEN, 59, 0, 0, 600, ASIDE, 10),
        (TEN, 50, 1, 0, 500, WAIT, 0),
        (TEN, 99, 0, 0, 1000, ASIDE, 10),
        (TEN, 100, 0, 0, 1000, SEND, 10),
        (TEN, 99, 0, 0, 10**6, ASIDE, 10),
        (TEN, 99, 1, 0, 10**6, WAIT, 0),
        ([50, 1, 1], 49, 0, 0, 3, ASIDE, 1),
        ([50, 60, 1], 49, 0, 0, 3, ASIDE, 2),
        ([1, 50, 1], 49, 0, 0, 3, SEND, 1),
        ([0, 0, 10], 0, 0, 0, 3, SEND, 2),
        ([0, 0, 0], 0, 0, 0, 3, SEND, 3),
        ([10], 9, 0, 0, 1, ASIDE, 1),
        ([1, 50, 1, 1], 2, 0, 0, 200, ASIDE, 2),
        ([2, 2, 2, 1, 1], 3, 0, 0, 200, ASIDE, 2),
        ([2, 2, 1], 2, 0, 0, 200, ASIDE, 3),
        ([10], 9, 1, 0, 1, WAIT, 0),
    ],
)
def test_verdicts(
    databases: Databases,
    bounds: list[int],
    limit: int | None,
    in_flight: int,
    settled: int,
    planned: int,
    verdict: Verdict,
    rows: int,
) -> None:
    """Send what fits, unless it is below 1 % of the planned rows or of the rest.

    If it is, wait for money in flight; if nothing is in flight, set aside the rows of which no
    piece can be paid for, so that cheaper ones go on.
    """
    run = Run(databases, bounds, in_flight, settled)
    found, head = run.ask(run.chunk, limit, planned)
    assert found is verdict
    chunks, (spent, flying) = run.listed(), run.ledger.money(run.id)
    assert spent == settled
    if verdict is WAIT:
        assert (head, chunks, flying) == (run.chunk, [run.chunk], in_flight)
    else:
        assert flying == in_flight + (sum(bounds[:rows]) if verdict is SEND else 0)
        expected = [run.make(0, rows), run.make(rows, len(bounds))]
        assert chunks == [chunk for chunk in expected if chunk.rows]
        assert head == chunks[0]
    run.ledger.close()


@pytest.fixture
def ten(databases: Databases) -> Iterator[Run]:
    """Return a run of ten rows at ten picodollars each."""
    run = Run(databases, TEN)
    yield run
    run.ledger.close()


def test_a_guarded_chunk_is_guarded_once(ten: Run) -> None:
    """A crashed run that asks again gets the same answer and reserves nothing more."""
    assert ten.ask(ten.chunk, 100) == (SEND, ten.chunk)
    assert ten.ask(ten.chunk, 100) == (SEND, ten.chunk)
    assert ten.ledger.money(ten.id) == (0, 100)


def test_the_rest_is_sent_when_money_comes_back(ten: Run) -> None:
    """The tail of a split chunk waits, then is sent with what the head did not spend.

    Its id is its own.
    """
    verdict, head = ten.ask(ten.chunk, 60)
    tail = ten.listed()[1]
    assert (verdict, head.stop, tail.start) == (SEND, 6, 6)
    assert head.id == ten.chunk.id != tail.id
    assert ten.ask(tail, 60) == (WAIT, tail)
    ten.ledger.collect(ten.lease, head, {"succeeded": OutcomeTotals(6, cost=15)}, 0)
    assert ten.ask(tail, 60) == (SEND, tail)
    assert ten.ledger.money(ten.id) == (15, 40)


def test_money_that_comes_back_while_the_guard_looks_is_used(ten: Run) -> None:
    """A chunk that settles between the guard's two reads sets no rows aside.

    The first read gets what remains of the limit, the second one what is in flight.
    """
    _, head = ten.ask(ten.chunk, 60)
    tail = ten.listed()[1]

    def columns(chunk: Chunk) -> tuple[list[int], list[int]]:
        ten.ledger.collect(ten.lease, head, {"succeeded": OutcomeTotals(6, cost=15)}, 0)
        return ten.columns(chunk)

    assert guard(ten.ledger, ten.lease, tail, SpendingLimits(60), 10, columns) == (SEND, tail)
    assert ten.ledger.money(ten.id) == (15, 40)


def test_an_unpriced_chunk_passes_without_a_limit(ten: Run) -> None:
    """Without a price and a limit there is nothing to guard."""
    unpriced = replace(ten.chunk, bound=None)
    assert ten.ask(unpriced, None) == (SEND, unpriced)


def test_spend_stays_within_the_limit_and_the_limit_is_used(databases: Databases) -> None:
    """For any bounds, chunks cover the rows once, in order, and spend stays within the limit.

    Each row that is left out would have broken it.
    """

    @given(
        st.lists(st.integers(0, 30), min_size=1, max_size=30),
        st.integers(0, 300),
        st.integers(0, 100),
    )
    @settings(deadline=None, max_examples=20 if databases.kind == "sqlite" else 6, derandomize=True)
    def check(bounds: list[int], limit: int, share: int) -> None:
        run = Run(databases, bounds)
        sent, left_out = 0, list[int]()
        while sent < len(bounds):
            (chunk,) = [one for one in run.listed() if one.start == sent]
            verdict, head = run.ask(chunk, limit)
            assert sum(run.ledger.money(run.id)) <= limit
            assert verdict in (SEND, ASIDE)
            if verdict is ASIDE:
                left_out += range(sent, head.stop)
                sent = head.stop
                continue
            assert (head.start, head.bound, head.bytes) == (
                sent,
                sum(bounds[sent : head.stop]),
                sum(run.sizes[sent : head.stop]),
            )
            sent = head.stop
            run.ledger.collect(
                run.lease,
                head,
                {"succeeded": OutcomeTotals(head.rows, cost=(head.bound or 0) * share // 100)},
                0,
            )
        listed = run.listed()
        assert [n for one in listed for n in range(one.start, one.stop)] == list(range(len(bounds)))
        assert all(sum(run.ledger.money(run.id)) + bounds[row] > limit for row in left_out)
        run.ledger.close()

    check()


def test_a_bound_that_is_unknown_stays_unknown(databases: Databases) -> None:
    """Both halves of a chunk without a price have none: neither counts as free."""
    run = Run(databases, [0] * 4)
    chunk = replace(run.chunk, bound=None)
    head = split_chunk(run.ledger, run.lease, chunk, 2, *run.columns(chunk))
    assert [one.bound for one in (head, *run.listed())] == [None, None, None]
