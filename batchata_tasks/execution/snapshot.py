"""Takes a snapshot of a run that is under way."""

from __future__ import annotations

from typing import TYPE_CHECKING

from batchata_tasks.common.files import read_json
from batchata_tasks.common.money import usd
from batchata_tasks.ledger import ChunkState
from batchata_tasks.progress.snapshot import BatchView, Snapshot
from batchata_tasks.types.outcome import Outcome

if TYPE_CHECKING:
    from batchata_tasks.execution.run_context import RunContext

_WINDOW = 24 * 3600.0  # seconds; both providers end a batch by then
_ERRORS = 5


def snapshot(context: RunContext) -> Snapshot:
    """Return where a run stands now; a few reads of the ledger."""
    ledger, run_id = context.ledger, context.run_id
    plan, stands = context.plan(), ledger.batch_chunks(run_id)
    outcomes = {name: tally.rows for name, tally in ledger.outcomes(run_id).items() if tally.rows}
    spent, in_flight = ledger.money(run_id)
    limit = context.limit
    completed = outcomes.get(Outcome.SUCCEEDED, 0)
    return Snapshot(
        run_id,
        plan.requests + plan.too_large,
        plan.up_to_date,
        sum(outcomes.values()),
        completed,
        sum(outcomes.values()) - completed,
        outcomes,
        tuple(
            BatchView(
                row.id,
                context.state.numbers.get(row.id),
                row.batch_id,
                row.provider,
                row.model,
                row.stop - row.start,
                row.state,
                row.status,
                row.requests_done,
                _seconds(row.submitted_at),
                None if row.submitted_at is None else row.submitted_at / 1e6 + _WINDOW,
                row.round,
            )
            for row in stands
        ),
        float(usd(spent)) if context.priced else None,
        float(usd(in_flight)),
        None if limit is None else float(usd(limit)),
        context.state.stopping,
        None if context.limits.budget is None else context.limits.budget.name,
        _errors(context) if sum(outcomes.values()) > completed else {},
    )


def _errors(context: RunContext) -> dict[str, int]:
    """Return the errors of what has landed, most frequent first; each chunk's record is read once."""
    state = context.state
    for chunk in context.ledger.chunks(context.run_id, (ChunkState.LANDED,)):
        if chunk.id not in state.read:
            state.read.add(chunk.id)
            commit = read_json(context.folder.commit(chunk.id)) or {}
            state.errors.update(commit.get("errors", {}))
            state.errors.subtract(commit.get("errors_before", {}))
    return {text: count for text, count in state.errors.most_common(_ERRORS) if count > 0}


def _seconds(microseconds: int | None) -> float | None:
    return None if microseconds is None else microseconds / 1e6
