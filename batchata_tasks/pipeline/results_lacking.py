"""Servers whose results never come: each further batch would be accepted, paid, and held.

A run sends nothing more once results of a batch of it could not be had, until another one lands.
And once that happened to two runs of a dataset, with nothing landed since, no further run begins
until a person has looked.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from batchata_tasks.common.errors import HeldError
from batchata_tasks.common.text import pluralize
from batchata_tasks.execution.overdue import lacks_results, why_overdue
from batchata_tasks.ledger import ChunkState
from batchata_tasks.spec.jobs import JobsSpec

if TYPE_CHECKING:
    from batchata_tasks.execution.held_dataset import HeldDataset
    from batchata_tasks.execution.run_context import RunContext
    from batchata_tasks.ledger import Chunk
    from batchata_tasks.spec.run import RunSpec

_RUNS = 2  # one may be an accident
_NAMED = 5


def require_results(held: HeldDataset, spec: RunSpec) -> None:
    """Refuse to begin a run if results of two earlier ones could not be had, and none came since.

    Raises:
        HeldError: nothing is sent until a person decides.
    """
    lacking = _of_several_runs(held)
    if not lacking:
        return
    names = ", ".join(chunk.batch_id or "" for chunk in lacking[:_NAMED])
    more = f" and {len(lacking) - _NAMED} more" if len(lacking) > _NAMED else ""
    batches = pluralize(len(lacking), "batch has", "batches have")
    runs = len({chunk.run_id for chunk in lacking})
    again = "`batchata run SPEC --retry-failed` sends"
    if isinstance(spec, JobsSpec):
        again = "`Batch(retry_failed=True)` sends"
    why = why_overdue(held.folder, lacking[-1]).rstrip(".")
    message = (
        f"{batches} ended in {runs} runs without results that could be had ({names}{more}; the "
        f"newest: {why}), and no batch of this dataset has landed since, so nothing more is sent "
        "until somebody has looked: results that come after all land by themselves at the next "
        "start, `batchata reconcile --abandon BATCH` gives a batch up, so that its rows are paid "
        f"for again, and {again} new rows all the same."
    )
    raise HeldError(message)


def waits_for_results(run: RunContext) -> bool:
    """Whether a run that begins, or is carried on, sends nothing until a batch of it lands."""
    own = [chunk for chunk in _lacking(run.held) if chunk.run_id == run.run_id]
    if own and not _landed_since(run.held, own):
        return True
    return not run.begun.retry_failed and bool(_of_several_runs(run.held))


def _of_several_runs(held: HeldDataset) -> list[Chunk]:
    """Return the chunks without results, if they are of several runs and none landed since."""
    lacking = _lacking(held)
    runs = {chunk.run_id for chunk in lacking}
    return lacking if len(runs) >= _RUNS and not _landed_since(held, lacking) else []


def _lacking(held: HeldDataset) -> list[Chunk]:
    """Return the chunks of the dataset whose results could not be had, oldest first."""
    overdue = held.ledger.dataset_chunks(held.lease.dataset_id, (ChunkState.OVERDUE,))
    return [chunk for chunk in overdue if lacks_results(held.folder, chunk)]


def _landed_since(held: HeldDataset, lacking: list[Chunk]) -> bool:
    """Whether a batch of the dataset landed since the first of these was sent."""
    first = min(held.ledger.submitted_at(chunk.batch_id or "") or 0 for chunk in lacking)
    return held.ledger.landed_since(held.lease.dataset_id, first)
