"""Reports on money: by chunk, by run, by budget and period."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from sqlalchemy import bindparam, func, select

from batchata_tasks.ledger import tables as t
from batchata_tasks.ledger.money import totals_of
from batchata_tasks.ledger.store import Store, reads
from batchata_tasks.ledger.values import ChunkKind, ChunkState, OutcomeTotals
from batchata_tasks.types.ids import TOKEN_CHARS

if TYPE_CHECKING:
    from sqlalchemy import Connection, Row

    from batchata_tasks.types.budget import BudgetTerms

_BATCH_CHUNKS = (
    select(t.chunks, t.batches.c.status, t.batches.c.requests_done, t.batches.c.submitted_at)
    .outerjoin(t.batches, t.batches.c.batch_id == t.chunks.c.batch_id)
    .where(t.chunks.c.run_id == bindparam("run_id"), t.chunks.c.kind == ChunkKind.BATCH)
    .order_by(t.chunks.c.round, t.chunks.c.start)
)
_MONEY_OF_RUN = (
    select(t.reservations, t.chunks.c.state)
    .outerjoin(t.chunks, t.chunks.c.id == t.reservations.c.chunk_id)
    .where(
        t.reservations.c.run_id == bindparam("run_id"),
        t.chunks.c.state.is_(None) | (t.chunks.c.state != ChunkState.PLANNED),
    )
)


@dataclass(frozen=True, slots=True)
class LedgerTotals:
    """Sums over reservations, in picodollars.

    Of what is settled, `superseded` is the cost of rows that were replaced since, `overhead` what
    was paid for no row, `unlanded` the cost of rows on their way into the dataset. The rest is the
    cost of the rows in the dataset.
    """

    in_flight: int = 0  # reserved and not settled
    settled: int = 0
    superseded: int = 0
    overhead: int = 0
    unlanded: int = 0

    def __add__(self, other: LedgerTotals) -> LedgerTotals:
        return LedgerTotals(
            self.in_flight + other.in_flight,
            self.settled + other.settled,
            self.superseded + other.superseded,
            self.overhead + other.overhead,
            self.unlanded + other.unlanded,
        )

    @property
    def in_dataset(self) -> int:
        """The cost of the rows in the dataset: the sum of their `_cost_usd`."""
        return self.settled - self.superseded - self.overhead - self.unlanded


@dataclass(slots=True)
class Spending:
    """The money of one chunk and the outcomes of its rows, or money spent outside of runs."""

    at: int  # when it was reserved, in microseconds since 1970
    run_id: str
    name: str | None  # the spec's; None if it was spent outside of runs
    model: str | None
    dataset: str | None  # its URL
    budget: str | None
    sent: bool  # whether it is a batch at the provider
    priced: bool
    expected: int | None  # picodollars
    money: LedgerTotals
    # rows count by the outcome of their last round
    outcomes: dict[str, OutcomeTotals] = field(default_factory=dict[str, OutcomeTotals])


class Reporting(Store):
    """The part of the ledger that reports on money.

    Sums are made here: a database's own end at 2^63 picodollars, 9 million dollars.
    """

    @reads
    def batch_chunks(self, connection: Connection, run_id: str) -> list[Row[Any]]:
        """Return the chunks of a run that are sent, in the order of their rows.

        Each comes with the status of its batch, as it was last polled.
        """
        return list(connection.execute(_BATCH_CHUNKS, {"run_id": run_id}))

    @reads
    def run_totals(self, connection: Connection, run_id: str) -> LedgerTotals:
        """Return the sums of a run over its sent chunks, and their second batches.

        Reservations for unsent chunks are left out: they are released when the run ends.
        """
        rows = connection.execute(_MONEY_OF_RUN, {"run_id": run_id})
        return sum((_totals(row) for row in rows), LedgerTotals())

    @reads
    def periods(self, connection: Connection, terms: BudgetTerms) -> dict[int, LedgerTotals]:
        """Return the sums of each period of a budget, in the periods that its terms define now.

        The keys are the periods' begins, in microseconds since 1970.
        """
        r = t.reservations.c
        query = (
            select(t.reservations, t.chunks.c.state)
            .outerjoin(t.chunks, t.chunks.c.id == r.chunk_id)
            .where(r.budget == terms.name)
            .order_by(r.period)
        )
        totals: dict[int, LedgerTotals] = defaultdict(LedgerTotals)
        for row in connection.execute(query):
            totals[terms.start(max(row.reserved_at, row.period or 0))] += _totals(row)
        return dict(totals)

    @reads
    def spending(self, connection: Connection, since: int) -> list[Spending]:
        """Return all money that was reserved since a moment, oldest first, but of rehearsals.

        `since` is in microseconds since 1970.
        """
        r = t.reservations.c
        c = t.chunks.c
        o = t.outcomes.c
        # the name of a second batch's money begins with its chunk's
        joined = (
            t.reservations.outerjoin(t.chunks, c.id == func.substr(r.chunk_id, 1, TOKEN_CHARS))
            .outerjoin(t.runs, t.runs.c.id == r.run_id)
            .outerjoin(t.datasets, t.datasets.c.id == t.runs.c.dataset_id)
            .outerjoin(t.outcomes, o.chunk_id == r.chunk_id)
        )
        facts = (
            t.runs.c.name,
            t.datasets.c.url,
            *(
                c[name]
                for name in ("id", "kind", "model", "bound", "expected", "batch_id", "state")
            ),
        )
        outcome = (o.outcome, o.retried, *(o[name] for name in OutcomeTotals.__slots__))
        # one statement, so that money and rows are of one moment
        query = (
            select(t.reservations, *facts, *outcome)
            .select_from(joined)
            .where(r.reserved_at >= since, func.coalesce(t.runs.c.rehearsal, 0) == 0)
            .order_by(r.reserved_at, r.chunk_id)
        )
        by_chunk: dict[str, Spending] = {}
        for row in connection.execute(query):
            spending = by_chunk.get(row.chunk_id) or _spending(row)
            by_chunk[row.chunk_id] = spending
            if row.outcome is not None:
                spending.outcomes[row.outcome] = totals_of(row)
                spending.priced = spending.priced and (row.cost is not None or not row.rows)
        return list(by_chunk.values())


def _spending(row: Row[Any]) -> Spending:
    is_local, is_second = row.kind == ChunkKind.LOCAL, row.chunk_id != (row.id or row.chunk_id)
    return Spending(
        at=row.reserved_at,
        run_id=row.run_id,
        name=row.name,
        model=row.model,
        dataset=row.url,
        budget=row.budget,
        sent=row.batch_id is not None or is_second,
        priced=row.kind is None or is_local or row.bound is not None,
        expected=0 if is_local or is_second else row.expected,
        money=_totals(row),
    )


def _totals(row: Row[Any]) -> LedgerTotals:
    """Return the amounts of one reservation."""
    if row.settled is None:
        return LedgerTotals(in_flight=row.reserved)
    superseded, overhead = row.superseded or 0, row.overhead or 0
    unlanded = row.settled - superseded - overhead if row.state == ChunkState.COLLECTED else 0
    return LedgerTotals(0, row.settled, superseded, overhead, unlanded)
