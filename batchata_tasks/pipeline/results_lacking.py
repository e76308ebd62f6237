"""Servers whose results never come: each further batch would be accepted, paid, and held.

A run sends nothing more once results of a batch of it could not be had, until another one lands.
And once that happened to two runs of a dataset, with nothing landed since, no further run begins
until a person has looked.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from batchata_tasks.common.errors import HeldError
from batchata_tasks.common.text import pluralize, sentence
from batchata_tasks.execution.overdue import lacks_results, why_overdue
from batchata_tasks.pipeline.ways import retried_by

if TYPE_CHECKING:
    from collections.abc import Mapping

    from batchata_tasks.dataset.folder import DatasetFolder
    from batchata_tasks.execution.held_dataset import HeldDataset
    from batchata_tasks.execution.run_context import RunContext
    from batchata_tasks.ledger import Chunk, Ledger
    from batchata_tasks.spec.run import RunSpec

_RUNS = 2  # one may be an accident
_NAMED = 5


def require_results(held: HeldDataset, spec: RunSpec) -> None:
    """Refuse to begin a run if results of two earlier ones could not be had, and none came since.

    Raises:
        HeldError: nothing is sent until a person decides.
    """
    reason = what_lacks(held.folder, held.ledger, held.lease.dataset_id, spec)
    if reason is not None:
        raise HeldError(reason)


def what_lacks(
    folder: DatasetFolder, ledger: Ledger, dataset_id: str, spec: RunSpec | Mapping[str, Any]
) -> str | None:
    """Return why no run begins on a dataset, and the ways out, in sentences; None if one may.

    `spec` is what fills it, or that as the ledger keeps it.
    """
    lacking = _lacking(folder, ledger, dataset_id)
    if not _are_of_several_runs(lacking):
        return None
    named = [chunk.batch_id or "" for chunk in lacking[:_NAMED]]
    more = f" and {len(lacking) - _NAMED} more" if len(lacking) > _NAMED else ""
    batches = pluralize(len(lacking), "batch has", "batches have")
    runs = len({chunk.run_id for chunk in lacking})
    give_up = " ".join(f"--abandon {batch_id}" for batch_id in named)
    return (
        f"{batches} ended in {runs} runs without results that could be had "
        f"({', '.join(named)}{more}), and no batch of this dataset has landed since, so nothing "
        "more is sent until somebody has looked. "
        f"The newest: {sentence(why_overdue(folder, lacking[-1]))} "
        "Results that come after all land by themselves at the next start; "
        f"`batchata reconcile {give_up}` gives them up, so that their rows are paid for again; "
        f"{retried_by(spec)} sends new rows all the same."
    )


def waits_for_results(run: RunContext) -> bool:
    """Whether a run that begins, or is carried on, sends nothing until a batch of it lands."""
    lacking = _lacking(run.folder, run.ledger, run.lease.dataset_id)
    if any(chunk.run_id == run.run_id for chunk in lacking):
        return True
    return not run.begun.retry_failed and _are_of_several_runs(lacking)


def _lacking(folder: DatasetFolder, ledger: Ledger, dataset_id: str) -> list[Chunk]:
    """Return the chunks whose results could not be had since a batch of the dataset last landed.

    Oldest first.
    """
    overdue = ledger.set_aside_since_landing(dataset_id)
    return [chunk for chunk in overdue if lacks_results(folder, chunk)]


def _are_of_several_runs(lacking: list[Chunk]) -> bool:
    return len({chunk.run_id for chunk in lacking}) >= _RUNS
