"""OpenAI's limit on the prompt tokens that an account has in unfinished batches of a model."""

from __future__ import annotations

from typing import TYPE_CHECKING

from batchata_tasks.emulator.openai.rules import LineError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from batchata_tasks.emulator.openai.batch import OpenAIBatch

USUAL_LIMIT = 2_000_000


def over_limit(model: str, limit: int = USUAL_LIMIT) -> LineError:
    """Return the error of a batch that failed because other batches have to end first."""
    message = (
        f"Enqueued token limit reached for {model} in organization org-emulator. "
        f"Limit: {limit:,} enqueued tokens. Please try again once some in_progress batches "
        "have been completed."
    )
    return LineError("token_limit_exceeded", message, None)


def quota_problem(
    batch: OpenAIBatch, others: Iterable[OpenAIBatch], limit: int, moment: float
) -> LineError | None:
    """Return the error of a batch that, validated at `moment`, exceeds the limit with others.

    Others count from their validation to their end, if they passed it: a batch that failed does not
    count. A batch that is too large by itself always fails.
    """
    if not limit:
        return None
    queued = [batch, *(other for other in others if other is not batch and _queued(other, moment))]
    tokens = sum(other.prompt_tokens for other in queued if other.model == batch.model)
    return over_limit(str(batch.model), limit) if tokens > limit else None


def _queued(batch: OpenAIBatch, moment: float) -> bool:
    if not batch.validated or not batch.accepted or batch.deleted:
        return False
    return batch.ended_at is None or batch.ended_at > moment
