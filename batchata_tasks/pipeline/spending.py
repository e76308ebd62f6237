"""What a run is about to spend, told before it sends anything, and agreed to if it is much."""

from __future__ import annotations

from typing import TYPE_CHECKING

from batchata_tasks.common.errors import DeclinedError
from batchata_tasks.common.money import PICO, dollars, total
from batchata_tasks.common.text import pluralize
from batchata_tasks.ledger import UNFINISHED, ChunkKind, ChunkState, RunEnd
from batchata_tasks.pipeline.forecast import BudgetMoney, within
from batchata_tasks.pipeline.pilot import first_chunks
from batchata_tasks.pipeline.revalidation import by_now
from batchata_tasks.pipeline.ways import kept_by, renamed_by
from batchata_tasks.planning.limits import SpendingLimits

if TYPE_CHECKING:
    from collections.abc import Iterator

    from batchata_tasks.execution.run_context import RunContext
    from batchata_tasks.ledger import Chunk
    from batchata_tasks.pipeline.planning_run import PlanningRun

ASKED_ABOVE = 10 * PICO


def announce(run: PlanningRun) -> None:
    """Say what is about to be sent, and its cost; ask if that may be more than ten dollars.

    Ask also if something keeps answers for free that are about to be paid for again. Only a command
    at a terminal asks. Nothing is said if nothing is to be sent.

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
    rows = sum(chunk.rows for chunk in chunks)
    text, most = _spending(run, chunks), _most(run, chunks, _further(run, rows))
    run.log(f"{text}.")
    free_ways = list(_free_ways(run))
    for way in free_ways:
        run.log(way)
    if most is not None and most <= ASKED_ABOVE and not free_ways:
        return
    if not run.held.progress.agreed("Send it?"):
        if not run.continued:
            close_unsent(run, RunEnd.DECLINED)
        message = "somebody said no to what it costs; nothing was sent."
        raise DeclinedError(message)


def _free_ways(run: PlanningRun) -> Iterator[str]:
    """Yield sentences on what keeps answers for free that the run would pay for again."""
    # each night some row may have failed: only another model is worth a pass over the dataset
    if "schema" in run.plan().reasons and (rows := by_now(run.table, run.plan()).taken):
        answers = pluralize(rows, "row of the dataset has", "rows of the dataset have")
        yield (
            f"{answers} an answer that today's response model takes: stop now, and "
            f"{kept_by(run.spec)} keeps such answers for free; this run pays for them again."
        )
    if run.plan().renamed and not run.continued:
        yield f"{renamed_by(run.spec, run.plan().renamed)}."


def close_unsent(run: RunContext, end: RunEnd) -> None:
    """End a run that sent nothing, and drop its plan: the next one begins anew."""
    run.ledger.close_run(run.lease, run.run_id, end)
    run.folder.drop_run_folder(run.run_id)


def _spending(run: RunContext, chunks: list[Chunk]) -> str:
    """Return in words what is about to be sent, and what it costs."""
    plan, rows = run.plan(), sum(chunk.rows for chunk in chunks)
    bound, most = total(chunk.bound for chunk in chunks), _most(run, chunks)
    is_split = bound is not None and most is not None and most < bound
    batches = f"{'at least ' if is_split else ''}{pluralize(len(chunks), 'batch')}"
    to = f"{run.spec.providers}, {run.spec.models}"
    text = f"about to send {pluralize(rows, 'request')} in {batches} to {to}: "
    if bound is None:
        text += "the cost is unknown, as no batch price is known"
    else:
        # further rounds are in the plan's figure alone
        whole = rows == plan.requests
        expected = plan.expected if whole else total(chunk.expected for chunk in chunks)
        text += f"about {dollars(expected)} expected, at most {dollars(bound)}"
        if further := _further(run, rows):
            text += f" ({dollars(bound + further)} with all attempts)"
    text += _pilot_words(run)
    if bound is not None and most is not None and most < bound:
        text += f". Its limits leave {dollars(most)} for that: {_outlook(run, chunks)}"
    return text


def _pilot_words(run: RunContext) -> str:
    """Return the end of the sentence, if a pilot decides on rows: one that held has done so."""
    pilot = run.plan().pilot
    chunks = [c for c in first_chunks(run, pilot) if c.kind == ChunkKind.BATCH]
    if unsent := sum(chunk.rows for chunk in chunks if chunk.state == ChunkState.PLANNED):
        return f"; {pluralize(unsent, 'row')} first"
    if any(chunk.state in UNFINISHED for chunk in chunks):
        return f"; the {pluralize(pilot, 'row')} sent before them decide on that"
    return ""


def _outlook(run: RunContext, chunks: list[Chunk]) -> str:
    """Return how far the run is expected to get under its limits, and in how many batches."""
    run_left, budget = _left(run)
    costs = [chunk.expected for chunk in chunks]
    routes, limits = list(run.state.routes.values()), SpendingLimits(run_left)
    return within(limits, budget, run.spec, chunks, costs, run.plan(), routes).outlook()


def _further(run: RunContext, rows: int) -> int:
    """Return the most that further attempts at some rows of the plan may cost."""
    plan = run.plan()
    return (plan.further or 0) * rows // max(plan.requests, rows)


def _most(run: RunContext, chunks: list[Chunk], further: int = 0) -> int | None:
    """Return the most that can be spent on chunks under the run's limits; None if it is unknown.

    That is for one attempt at each row, and for what `further` ones may cost.
    """
    if (bound := total(chunk.bound for chunk in chunks)) is None:
        return None
    run_left, budget = _left(run)
    left = (run_left, None if budget is None else budget.left)
    return max(min(amount for amount in (bound + further, *left) if amount is not None), 0)


def _left(run: RunContext) -> tuple[int | None, BudgetMoney | None]:
    """Return what is left of the run's own limit, and of its budget; None where there is none."""
    limits, run_left, budget = run.limits, None, None
    if limits.run is not None:
        run_left = limits.run - sum(run.ledger.money(run.run_id))
    if limits.budget is not None:
        terms = run.ledger.binding(limits.budget)
        budget = BudgetMoney.of(run.ledger, terms, run.lease.dataset_id)
    return run_left, budget
