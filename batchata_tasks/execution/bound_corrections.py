"""What an answer above its upper bound changes: sending stops under a limit, and bounds grow."""

from __future__ import annotations

from typing import TYPE_CHECKING

from batchata_tasks.ledger import StopReason

if TYPE_CHECKING:
    from batchata_tasks.execution.run_context import BatchContext, RunContext
    from batchata_tasks.ledger import Chunk

OUTGROWN = "another run had answers above the upper bounds that this one planned with"


def stop_over_bound(context: BatchContext, chunk: Chunk, answers: int, excess: int) -> None:
    """Take notice of answers that cost more than their bound: bounds of the model grow, and under a limit nothing more is sent.

    `excess` is the largest cost of one, in millionths of its bound. What is under way lands; the
    next run plans with the corrected bounds.
    """
    factor = context.ledger.correct_bounds(
        chunk.provider, chunk.model, context.taken.factor, excess, chunk.id
    )
    grown = f"bounds of {chunk.model} are multiplied by {factor / 10**6:.2f} from now on"
    text = f"{answers:,} answers cost more than their upper bound; {grown}."
    if context.spec.limited:
        context.ledger.request_stop(context.run_id, StopReason.OVER_BOUND)
        text += " Nothing more is sent in this run, so that the limit holds."
    context.log(text)


def stop_if_bounds_outdated(context: RunContext) -> None:
    """Let a run under a limit send nothing more where another run found since that the bounds it planned with are too low."""
    if context.spec.limited and context.stop_reason() is None and outgrown(context):
        context.ledger.request_stop(context.run_id, StopReason.OVER_BOUND)
        context.log(f"{OUTGROWN}: nothing more is sent in this run, so that the limit holds.")


def outgrown(context: RunContext) -> bool:
    """Whether bounds of a model of the run are larger by now than those that it planned with."""
    planned = context.plan().factors
    return any(
        context.ledger.bounds_factor(to.provider, to.model) > planned.get(to.key, 10**6)
        for to in context.spec.destinations()
    )
