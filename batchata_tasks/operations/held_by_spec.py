"""Holding the dataset of a spec for a command that changes it, and sends nothing."""

from __future__ import annotations

from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from batchata_tasks.common.errors import SpecError
from batchata_tasks.dataset.folder import DatasetFolder
from batchata_tasks.dataset.part_files import part_of_chunk
from batchata_tasks.execution.filled_by import require_own_spec
from batchata_tasks.execution.held_dataset import find_dataset, hold_dataset, owned_dataset
from batchata_tasks.execution.land import emptying
from batchata_tasks.ledger import opened_ledger
from batchata_tasks.planning.prepare import prepare_run
from batchata_tasks.planning.settle import settle
from batchata_tasks.providers import without_keys_set

if TYPE_CHECKING:
    from collections.abc import Generator

    from batchata_tasks.common.settings import Settings
    from batchata_tasks.execution.held_dataset import HeldDataset
    from batchata_tasks.planning.prepare import PreparedRun
    from batchata_tasks.planning.settle import Settled
    from batchata_tasks.progress.listener import Progress
    from batchata_tasks.spec.enrichment import EnrichmentSpec


@dataclass(frozen=True)
class HeldBySpec:
    """A dataset that no run can change meanwhile, and its spec, prepared as for a run.

    `unfinished` are the parts that a landing which died writes again: they are not to be changed.
    """

    ready: PreparedRun
    held: HeldDataset
    settled: Settled
    unfinished: frozenset[str]

    def begin(self) -> None:
        """Prepare the dataset for being changed.

        Raises:
            LeaseError: another process took the dataset over.
        """
        self.held.ledger.check_lease(self.held.lease)  # right before files change
        self.settled.declared.write(self.held.folder)  # before any part is rewritten
        dataset = self.ready.table.dataset
        dataset.tidy()
        dataset.conform(self.unfinished)


@contextmanager
def held_by_spec(
    spec: EnrichmentSpec, settings: Settings, progress: Progress | None, doing: str
) -> Generator[HeldBySpec, None, None]:
    """Hold the dataset of a spec; `doing` tells others why.

    Raises:
        InputError: the spec is wrong, or there is no dataset of it.
        WrongLedgerError: the ledger is another one than the dataset's, or older.
        AlreadyRunningError: a run holds the dataset.
    """
    folder = DatasetFolder(spec.output)
    with opened_ledger(settings.ledger_url) as ledger:
        if find_dataset(folder, ledger) is None:
            message = f"output: there is no dataset in {folder.root} yet; run the spec first."
            raise SpecError(message)
        require_own_spec(folder, ledger, owned_dataset(folder, ledger), spec)
    with without_keys_set():
        prepared = prepare_run(spec, settings)
    with (
        closing(prepared) as ready,
        hold_dataset(spec.output, settings, progress, f"{doing} {spec.name}") as held,
        held.landing_alone(),
    ):
        dataset = ready.table.dataset
        dataset.gate, dataset.emptied = held.require_lease, emptying(held)
        unlanded = held.ledger.unfinished_chunks(held.lease.dataset_id, "")
        settled = settle(ready.table, held.folder, [chunk.id for chunk in unlanded])
        unfinished = frozenset(part_of_chunk(chunk.id) for chunk in unlanded)
        yield HeldBySpec(ready, held, settled, unfinished)
