"""What was spent, read back for people: by chunk, by run, by budget and period."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from sqlalchemy import select

from batchata_tasks.ledger import tables as t
from batchata_tasks.ledger.store import Store, reads
from batchata_tasks.ledger.values import ChunkState, OutcomeTotals

if TYPE_CHECKING:
    from sqlalchemy import Connection, Row

    from batchata_tasks.types.budget import BudgetTerms


@dataclass(frozen=True, slots=True)
class LedgerTotals:
    """Sums over reservations, in picodollars.

    Of what is settled, `superseded` is what rows had cost that were replaced, `overhead` what was
    paid for no row, `unlanded` what belongs to rows on their way into the dataset; the rest is in it.
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
        """What the rows in the dataset cost: the sum of their `_cost_usd`."""
        return self.settled - self.superseded - self.overhead - self.unlanded


@dataclass(slots=True)
class Spending:
    """The money of one chunk, and how its rows ended; or money that was spent by hand, of no run."""

    at: int  # when it was reserved, in microseconds since 1970
    run_id: str
    name: str | None  # the spec's; None where it was spent by hand
    model: str | None
    dataset: str | None  # its URL
    budget: str | None
    sent: bool  # whether it is a batch at the provider
    priced: bool
    expected: int | None  # picodollars
    books: LedgerTotals
    tallies: dict[str, OutcomeTotals] = field(
        default_factory=dict[str, OutcomeTotals]
    )  # rows count by the outcome of their last round


class Reporting(Store):
    """What the ledger tells of money. Sums are made here: a database's own end at 2^63 picodollars, 9 million dollars."""

    @reads
    def stands(self, connection: Connection, run_id: str) -> list[Row[Any]]:
        """Return the chunks of a run in the order of their rows, with what the last look at their batches told."""
        b = t.batches.c
        query = select(t.chunks, b.status, b.requests_done, b.submitted_at).outerjoin(
            t.batches, b.batch_id == t.chunks.c.batch_id
        )
        mine = (t.chunks.c.run_id == run_id) & (t.chunks.c.kind == "batch")
        return list(
            connection.execute(query.where(mine).order_by(t.chunks.c.round, t.chunks.c.start)).all()
        )

    @reads
    def books(self, connection: Connection, run_id: str) -> LedgerTotals:
        """Return the sums of a run, over what it sent: what it only set aside comes back when it ends."""
        query = select(t.reservations, t.chunks.c.state).join(
            t.chunks, t.chunks.c.id == t.reservations.c.chunk_id
        )
        rows = connection.execute(
            query.where(t.reservations.c.run_id == run_id, t.chunks.c.state != ChunkState.PLANNED)
        )
        return sum((_books(row) for row in rows), LedgerTotals())

    @reads
    def periods(self, connection: Connection, terms: BudgetTerms) -> dict[int, LedgerTotals]:
        """Return the sums of each period of a budget, by its begin (microseconds since 1970), as its terms are now."""
        r = t.reservations.c
        query = select(t.reservations, t.chunks.c.state).outerjoin(
            t.chunks, t.chunks.c.id == r.chunk_id
        )
        found: dict[int, LedgerTotals] = defaultdict(LedgerTotals)
        for row in connection.execute(query.where(r.budget == terms.name).order_by(r.period)):
            found[terms.start(max(row.reserved_at, row.period or 0))] += _books(row)
        return dict(found)

    @reads
    def spending(self, connection: Connection, since: int) -> list[Spending]:
        """Return all money that was reserved since a moment (microseconds since 1970), oldest first."""
        r, c, o = t.reservations.c, t.chunks.c, t.outcomes.c
        joined = (
            t.reservations.outerjoin(t.chunks, c.id == r.chunk_id)
            .outerjoin(t.runs, t.runs.c.id == c.run_id)
            .outerjoin(t.datasets, t.datasets.c.id == c.dataset_id)
            .outerjoin(t.outcomes, o.chunk_id == c.id)
        )
        facts = (
            t.runs.c.name,
            t.datasets.c.url,
            *(c[name] for name in ("kind", "model", "bound", "expected", "batch_id", "state")),
        )
        tally = (o.outcome, o.retried, *(o[name] for name in OutcomeTotals.__slots__))
        # one statement, so that money and rows are of one moment
        query = (
            select(t.reservations, *facts, *tally).select_from(joined).where(r.reserved_at >= since)
        )
        found: dict[str, Spending] = {}
        for row in connection.execute(query.order_by(r.reserved_at, r.chunk_id)):
            one = found.get(row.chunk_id) or _spending(row)
            found[row.chunk_id] = one
            if row.outcome is not None:
                _add_outcome(one, row)
        return list(found.values())


def _spending(row: Row[Any]) -> Spending:
    priced = row.kind is None or row.kind == "local" or row.bound is not None
    return Spending(
        row.reserved_at,
        row.run_id,
        row.name,
        row.model,
        row.url,
        row.budget,
        row.batch_id is not None,
        priced,
        0 if row.kind == "local" else row.expected,
        _books(row),
    )


def _add_outcome(one: Spending, row: Row[Any]) -> None:
    tally = OutcomeTotals(**{name: getattr(row, name) for name in OutcomeTotals.__slots__})
    one.tallies[row.outcome] = replace(tally, rows=tally.rows - row.retried)
    one.priced = one.priced and (tally.cost is not None or not tally.rows)


def _books(row: Row[Any]) -> LedgerTotals:
    if row.settled is None:
        return LedgerTotals(in_flight=row.reserved)
    superseded, overhead = row.superseded or 0, row.overhead or 0
    landing = row.settled - superseded - overhead if row.state == ChunkState.COLLECTED else 0
    return LedgerTotals(0, row.settled, superseded, overhead, landing)
