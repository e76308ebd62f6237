"""A snapshot: where a run stands at one moment, as the ledger tells."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

from batchata_tasks.jobs import Outcome
from batchata_tasks.ledger import LANDED
from batchata_tasks.money import usd
from batchata_tasks.storage import read_json

if TYPE_CHECKING:
    from batchata_tasks.session import Session

_WINDOW = 24 * 3600.0  # seconds; both providers end a batch by then
_ERRORS = 5


@dataclass(frozen=True, slots=True)
class BatchStand:
    """Where one batch stands. Times are seconds since 1970; `done` counts requests, where the provider tells."""

    chunk_id: str
    number: int | None  # in the order in which batches are sent
    batch_id: str | None
    provider: str
    model: str
    jobs: int
    state: str  # planned, unclear, submitted, collected, landed, dropped, held
    status: str | None = None  # as the provider spells it
    done: int | None = None
    sent_at: float | None = None
    ends_by: float | None = None
    round: int = 1


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Where a run stands. Money is in US dollars; `cost_usd` is None where no price is known."""

    run_id: str = ""
    total: int = 0  # requests of the plan
    up_to_date: int = 0
    landed: int = 0
    completed: int = 0  # of those landed, with a usable answer
    failed: int = 0
    outcomes: dict[str, int] = field(default_factory=dict[str, int])
    batches: tuple[BatchStand, ...] = ()
    cost_usd: float | None = 0.0
    reserved_usd: float = 0.0
    cost_limit_usd: float | None = None
    stopping: str | None = None
    budget: str | None = None  # that it shares with other runs
    errors: dict[str, int] = field(default_factory=dict[str, int])  # of what landed, the most frequent first

    @property
    def pending(self) -> int:
        """Requests of which nothing has landed yet."""
        return max(self.total - self.landed, 0)

    def stats(self) -> dict[str, Any]:
        """Return the run's numbers, as progress callbacks get them."""
        states = [batch.state for batch in self.batches]
        found = {one.name: getattr(self, one.name) for one in fields(self)}
        return found | {"pending": self.pending, "batches": {state: states.count(state) for state in dict.fromkeys(states)}}

    def batch_data(self) -> dict[str, dict[str, Any]]:
        """Return the batches by their ids (before they have one, by that of their chunk), as progress callbacks get them."""
        names = [one.name for one in fields(BatchStand)]  # not `asdict`, which takes a moment too long for a thousand of them
        return {batch.batch_id or batch.chunk_id: {name: getattr(batch, name) for name in names} for batch in self.batches}


def snapshot(session: Session) -> Snapshot:
    """Return where a run stands now; a few reads of the ledger."""
    ledger, run_id = session.ledger, session.run_id
    plan, stands = session.plan(), ledger.stands(run_id)
    outcomes = {name: tally.rows for name, tally in ledger.outcomes(run_id).items() if tally.rows}
    spent, in_flight = ledger.money(run_id)
    limit = session.limit
    completed = outcomes.get(Outcome.SUCCEEDED, 0)
    return Snapshot(
        run_id, plan.requests + plan.too_large, plan.up_to_date, sum(outcomes.values()), completed,
        sum(outcomes.values()) - completed, outcomes,
        tuple(
            BatchStand(
                row.id, session.state.numbers.get(row.id), row.batch_id, row.provider, row.model, row.stop - row.start, row.state,
                row.status, row.requests_done,
                _seconds(row.submitted_at), None if row.submitted_at is None else row.submitted_at / 1e6 + _WINDOW, row.round,
            )
            for row in stands
        ),
        float(usd(spent)) if session.priced else None, float(usd(in_flight)), None if limit is None else float(usd(limit)),
        session.state.stopping, None if session.limits.budget is None else session.limits.budget.name,
        _errors(session) if sum(outcomes.values()) > completed else {},
    )


def _errors(session: Session) -> dict[str, int]:
    """Return the errors of what has landed, most frequent first; each chunk's record is read once."""
    state = session.state
    for chunk in session.ledger.chunks(session.run_id, (LANDED,)):
        if chunk.id not in state.read:
            state.read.add(chunk.id)
            commit = read_json(session.folder.commits / f"{chunk.id}.json") or {}
            state.errors.update(commit.get("errors", {}))
            state.errors.subtract(commit.get("errors_before", {}))
    return {text: count for text, count in state.errors.most_common(_ERRORS) if count > 0}


def _seconds(microseconds: int | None) -> float | None:
    return None if microseconds is None else microseconds / 1e6
