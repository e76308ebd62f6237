"""What an answer above its upper bound changes: sending stops under a limit, and bounds grow."""

from __future__ import annotations

from typing import TYPE_CHECKING

from batchata_tasks.ledger import OVER_BOUND

if TYPE_CHECKING:
    from batchata_tasks.execution.run_context import ChunkSession, Session
    from batchata_tasks.ledger import Chunk

OUTGROWN = "another run had answers above the upper bounds that this one planned with"


def stop_over_bound(session: ChunkSession, chunk: Chunk, answers: int, excess: int) -> None:
    """Take notice of answers that cost more than their bound: bounds of the model grow, and under a limit nothing more is sent.

    `excess` is the largest cost of one, in millionths of its bound. What is under way lands; the
    next run plans with the corrected bounds.
    """
    factor = session.ledger.correct_bounds(chunk.provider, chunk.model, session.taken.factor, excess, chunk.id)
    grown = f"bounds of {chunk.model} are multiplied by {factor / 10**6:.2f} from now on"
    text = f"{answers:,} answers cost more than their upper bound; {grown}."
    if session.spec.limited:
        session.ledger.request_stop(session.run_id, OVER_BOUND)
        text += " Nothing more is sent in this run, so that the limit holds."
    session.say(text)


def heed_corrections(session: Session) -> None:
    """Let a run under a limit send nothing more where another run found since that the bounds it planned with are too low."""
    if session.spec.limited and session.stop_reason() is None and outgrown(session):
        session.ledger.request_stop(session.run_id, OVER_BOUND)
        session.say(f"{OUTGROWN}: nothing more is sent in this run, so that the limit holds.")


def outgrown(session: Session) -> bool:
    """Whether bounds of a model of the run are larger by now than those that it planned with."""
    planned = session.plan().factors
    return any(
        session.ledger.bounds_factor(to.provider, to.model) > planned.get(f"{to.provider}/{to.model}", 10**6)
        for to in session.spec.destinations()
    )
