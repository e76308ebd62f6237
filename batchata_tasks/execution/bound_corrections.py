"""After an answer above its upper bound: bounds grow, and under a limit sending stops."""

from __future__ import annotations

from typing import TYPE_CHECKING

from batchata_tasks.ledger import StopReason

if TYPE_CHECKING:
    from batchata_tasks.execution.run_context import BatchContext, RunContext
    from batchata_tasks.ledger import Chunk

OUTGROWN = "another run had answers above the upper bounds that this one planned with"


def stop_over_bound(context: BatchContext, chunk: Chunk, answers: int, excess: int) -> None:
    """Raise the model's bounds after answers that cost more; under a limit, send nothing more.

    `excess` is the largest cost of one of them, in millionths of its bound. What is under way
    lands; the next run plans with the corrected bounds.
    """
    factor = context.ledger.correct_bounds(
        chunk.provider,
        chunk.model,
        context.route.factor,
        excess,
        chunk.id,
        rehearsal=context.rehearsal,
    )
    text = (
        f"{answers:,} answers cost more than their upper bound; "
        f"bounds of {chunk.model} are multiplied by {factor / 10**6:.2f} from now on."
    )
    if context.run.spec.limited:
        context.ledger.request_stop(chunk.run_id, StopReason.OVER_BOUND)
        text += " Nothing more is sent in this run, so that the limit holds."
    context.log(text)


def stop_if_bounds_outdated(context: RunContext) -> None:
    """Stop a run under a limit if another run showed that its planned bounds are too low."""
    if context.spec.limited and context.stop_reason() is None and outgrown(context):
        context.ledger.request_stop(context.run_id, StopReason.OVER_BOUND)
        context.log(f"{OUTGROWN}: nothing more is sent in this run, so that the limit holds.")


def outgrown(context: RunContext) -> bool:
    """Whether bounds of one of the run's models are larger by now than those it planned with."""
    return any(
        context.ledger.bounds_factor(to.provider, to.model, rehearsal=context.rehearsal)
        > context.planned_factor(to)
        for to in context.spec.destinations()
    )
