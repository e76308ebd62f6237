"""What a run is about to spend, told before it sends anything, and agreed to if it is much."""

from __future__ import annotations

from typing import TYPE_CHECKING

from batchata_tasks.common.errors import DeclinedError
from batchata_tasks.common.money import PICO, dollars, total
from batchata_tasks.common.text import pluralize
from batchata_tasks.ledger import ChunkKind, ChunkState, RunEnd

if TYPE_CHECKING:
    from batchata_tasks.execution.run_context import RunContext
    from batchata_tasks.ledger import Chunk

ASKED_ABOVE = 10 * PICO


def announce(run: RunContext) -> None:
    """Say what is about to be sent, and its cost; ask if that may be more than ten dollars.

    Only a command at a terminal asks. Nothing is said if nothing is to be sent.

    Raises:
        DeclinedError: the answer was no. What an earlier start of the run had sent goes on.
    """
    chunks = [
        chunk
        for chunk in run.ledger.chunks(run.run_id, (ChunkState.PLANNED,))
        if chunk.kind == ChunkKind.BATCH
    ]
    stopped = run.stop_reason() is not None or run.ledger.run(run.run_id).result is not None
    if not chunks or stopped or run.state.no_results:
        return
    text, most = _spending(run, chunks), _most(run, chunks)
    run.log(f"{text}.")
    if most is not None and most <= ASKED_ABOVE:
        return
    if not run.held.progress.agreed("Send it?"):
        if not run.continued:
            close_unsent(run, RunEnd.DECLINED)
        message = "somebody said no to what it costs; nothing was sent."
        raise DeclinedError(message)


def close_unsent(run: RunContext, end: RunEnd) -> None:
    """End a run that sent nothing, and drop its plan: the next one begins anew."""
    run.ledger.close_run(run.lease, run.run_id, end)
    run.folder.drop_run_folder(run.run_id)


def _spending(run: RunContext, chunks: list[Chunk]) -> str:
    """Return in words what is about to be sent, and what it costs."""
    plan, rows = run.plan(), sum(chunk.rows for chunk in chunks)
    to = f"{run.spec.providers}, {run.spec.models}"
    text = f"about to send {pluralize(rows, 'request')} to {to}: "
    bound = total(chunk.bound for chunk in chunks)
    if bound is None:
        text += "the cost is unknown, as no batch price is known"
    else:
        # further rounds are in the plan's figure alone
        whole = rows == plan.requests
        expected = plan.expected if whole else total(chunk.expected for chunk in chunks)
        text += f"about {dollars(expected)} expected, at most {dollars(bound)}"
        if (most := _most(run, chunks)) is not None and most < bound:
            text += f", of which the limits leave {dollars(most)}"
    return text if not plan.pilot else f"{text}; {pluralize(plan.pilot, 'row')} first"


def _most(run: RunContext, chunks: list[Chunk]) -> int | None:
    """Return the most that can be spent on chunks under the run's limits; None if it is unknown."""
    bound, limits = total(chunk.bound for chunk in chunks), run.limits
    if bound is None:
        return None
    left = [bound]
    if limits.run is not None:
        left.append(limits.run - sum(run.ledger.money(run.run_id)))
    if limits.budget is not None:
        terms = run.ledger.binding(limits.budget)
        left.append(terms.limit - sum(run.ledger.budget_money(terms)))
    return max(min(left), 0)
