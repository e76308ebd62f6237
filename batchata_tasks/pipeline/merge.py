"""Merges small files of the dataset at the end of a run: the only moment when no plan needs them.

A run that goes on reads the parts of its own chunks, so they stay as they are until it is closed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from batchata_tasks.common.errors import LeaseError, StorageError
from batchata_tasks.dataset.merging import merge_full_tiers
from batchata_tasks.dataset.part_files import part_of_chunk
from batchata_tasks.execution.earlier_files import pack_earlier_files
from batchata_tasks.ledger import RunPhase

if TYPE_CHECKING:
    from batchata_tasks.pipeline.planning_run import PlanningRun


def merge_small_files(run: PlanningRun) -> None:
    """Merge small parts, and pack files of earlier runs, if many have gathered.

    Only once the run is closed. Its rows have landed and its receipt is made, so that it cannot
    merge (the storage refuses, the lease is lost) is only told: the next run tries again.
    """
    if run.ledger.run(run.run_id).state != RunPhase.CLOSED:
        return
    unfinished = run.ledger.unfinished_chunks(run.lease.dataset_id, "")
    with run.state.landing, run.held.landing_alone():
        try:
            merge_full_tiers(run.table.dataset, {part_of_chunk(one.id) for one in unfinished})
            pack_earlier_files(run.held, run.run_id)
        except (StorageError, LeaseError) as error:
            run.held.progress.note(f"small files of the dataset were not merged: {error}")
