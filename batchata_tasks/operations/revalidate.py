"""Revalidating: kept answers are read by today's response model, and nothing is sent."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

from batchata_tasks.common.errors import SpecError
from batchata_tasks.dataset.folder import DatasetFolder
from batchata_tasks.dataset.part_files import part_of_chunk
from batchata_tasks.execution.filled_by import require_own_spec
from batchata_tasks.execution.held_dataset import find_dataset, hold_dataset, owned_dataset
from batchata_tasks.execution.land import emptying
from batchata_tasks.ledger import opened_ledger
from batchata_tasks.pipeline.revalidation import KeptAnswers, Revalidated
from batchata_tasks.planning.prepare import prepare_run
from batchata_tasks.planning.settle import settle

if TYPE_CHECKING:
    from batchata_tasks.common.settings import Settings
    from batchata_tasks.execution.held_dataset import HeldDataset
    from batchata_tasks.planning.prepare import PreparedRun
    from batchata_tasks.progress.listener import Progress
    from batchata_tasks.spec.enrichment import EnrichmentSpec


def revalidate(
    spec: EnrichmentSpec,
    settings: Settings,
    progress: Progress | None = None,
    *,
    dry_run: bool = False,
) -> Revalidated:
    """Read the kept answers of a spec's dataset by its response model, and write what changed.

    With `dry_run` nothing is written. A row that today's model does not take stays as it is.

    Raises:
        InputError: the spec is wrong, or there is no dataset.
        WrongLedgerError: the ledger is another one than the dataset's, or older.
        AlreadyRunningError: a run holds the dataset.
    """
    folder = DatasetFolder(spec.output)
    with opened_ledger(settings.ledger_url) as ledger:
        if find_dataset(folder, ledger) is None:
            message = (
                f"output: there is no dataset in {folder.root}, so there is no answer to read."
            )
            raise SpecError(message)
        require_own_spec(folder, ledger, owned_dataset(folder, ledger), spec)
    with (
        closing(prepare_run(spec, settings)) as ready,
        hold_dataset(spec.output, settings, progress, f"revalidating {spec.name}") as held,
        held.landing_alone(),
    ):
        return _revalidated(ready, held, dry_run=dry_run)


def _revalidated(ready: PreparedRun, held: HeldDataset, *, dry_run: bool) -> Revalidated:
    dataset = ready.table.dataset
    dataset.gate, dataset.emptied = held.require_lease, emptying(held)
    unfinished = [one.id for one in held.ledger.unfinished_chunks(held.lease.dataset_id, "")]
    settled = settle(ready.table, held.folder, unfinished)
    answers = KeptAnswers(ready.table)
    report, parts = answers.look()
    if not dry_run:
        held.ledger.check_lease(held.lease)  # right before files change
        settled.declared.write(held.folder)  # before any part is rewritten
        dataset.tidy()
        # a landing that died writes its part again
        again = {part_of_chunk(chunk_id) for chunk_id in unfinished}
        answers.write([part for part in parts if part not in again])
        dataset.conform(again)
    return report
