"""Takes a snapshot of a run that is under way."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from batchata_tasks.common.errors import LedgerError
from batchata_tasks.common.money import dollars, usd
from batchata_tasks.common.text import pluralize
from batchata_tasks.dataset.packs import kept_json
from batchata_tasks.execution.trouble import grouped
from batchata_tasks.ledger import ChunkState
from batchata_tasks.progress.snapshot import BatchView, Snapshot
from batchata_tasks.types.outcome import Outcome

if TYPE_CHECKING:
    from batchata_tasks.execution.run_context import RunContext

_WINDOW = 24 * 3600.0  # seconds; both providers end a batch by then
_ERRORS = 5


def snapshot(context: RunContext) -> Snapshot:
    """Return where a run stands now; a few reads of the ledger."""
    ledger, run_id, state = context.ledger, context.run_id, context.state
    plan = context.plan()
    outcomes = {name: total.rows for name, total in ledger.outcomes(run_id).items() if total.rows}
    landed = sum(outcomes.values())
    completed = outcomes.get(Outcome.SUCCEEDED, 0)
    spent, in_flight = ledger.money(run_id)
    limits = context.limits
    return Snapshot(
        run_id=run_id,
        total=plan.requests + plan.unsendable,
        up_to_date=plan.up_to_date,
        landed=landed,
        completed=completed,
        failed=landed - completed,
        outcomes=outcomes,
        batches=tuple(_view(context, row) for row in ledger.batch_chunks(run_id)),
        cost_usd=float(usd(spent)) if context.priced else None,
        reserved_usd=float(usd(in_flight)),
        cost_limit_usd=None if limits.run is None else float(usd(limits.run)),
        stopping=state.stopping,
        budget=None if limits.budget is None else limits.budget.label,
        errors=_errors(context) if landed > completed else {},
    )


def awaited(context: RunContext) -> list[BatchView]:
    """Return the batches of a run that are at the provider; none if the ledger is busy."""
    try:
        rows = context.ledger.batch_chunks(context.run_id)
    except LedgerError:
        return []
    return [_view(context, row) for row in rows if row.state == ChunkState.SUBMITTED]


def awaited_in_words(context: RunContext) -> str:
    """Return which batches of a run are awaited, as a line for people."""
    rows = context.ledger.batch_chunks(context.run_id)
    sent = [row.submitted_at for row in rows if row.state == ChunkState.SUBMITTED]
    queued = sum(row.state == ChunkState.PLANNED for row in rows if row.id in context.state.waiting)
    room = f"room in the provider's queue for {pluralize(queued, 'batch', 'batches')}"
    if not sent and queued:
        return f"waiting for {room}"
    text = f"waiting for {len(sent)} of {pluralize(len(rows), 'batch', 'batches')}"
    if queued:
        text += f", and for {room}"
    oldest = min((moment for moment in sent if moment is not None), default=None)
    if oldest is None:
        return text
    # no age: the page of a suspended run shows this line for as long as it waits
    return f"{text}, the oldest sent {datetime.fromtimestamp(oldest / 1e6, UTC):%Y-%m-%d %H:%M} UTC"


def others_money_in_words(context: RunContext) -> str:
    """Return which money of its budget a run waits for, as a line for people."""
    budget = context.limits.budget
    if budget is None:
        return "waiting for money"
    dataset_id = context.begun.dataset_id
    others = context.ledger.others_in_flight(budget, dataset_id, watched=True)
    return money_in_words(others, budget.label)


def money_in_words(reserved: int, budget: str) -> str:
    """Return what a run waits for, given what others have reserved of its budget."""
    return f"waiting for {dollars(reserved)} of budget {budget!r} that other runs have reserved"


def _view(context: RunContext, row: Any) -> BatchView:
    """Return how a batch is shown; `row` is one of the ledger's `batch_chunks`."""
    sent_at = None if row.submitted_at is None else row.submitted_at / 1e6
    return BatchView(
        chunk_id=row.id,
        number=context.batch_numbers().get(row.id),
        batch_id=row.batch_id,
        provider=row.provider,
        model=row.model,
        jobs=row.stop - row.start,
        state=row.state,
        status=row.status,
        done=row.requests_done,
        sent_at=sent_at,
        ends_by=None if sent_at is None else sent_at + _WINDOW,
        round=row.round,
    )


def _errors(context: RunContext) -> dict[str, int]:
    """Return the most frequent errors of what has landed; each commit is read once."""
    state = context.state
    with state.lock:
        for chunk in context.ledger.chunks(context.run_id, (ChunkState.LANDED,)):
            if chunk.id not in state.chunks_counted:
                state.chunks_counted.add(chunk.id)
                commit = kept_json(context.folder.commit(chunk.id)) or {}
                state.errors.update(commit.get("errors", {}))
                state.errors.subtract(commit.get("errors_before", {}))
        errors = grouped(state.errors.items()).most_common(_ERRORS)
        return {text: count for text, count in errors if count > 0}
