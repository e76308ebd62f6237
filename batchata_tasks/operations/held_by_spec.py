"""Holding the dataset of a spec for a command that changes it, and sends nothing."""

from __future__ import annotations

from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from batchata_tasks.common.errors import SpecError
from batchata_tasks.dataset.declared import DeclaredSchema
from batchata_tasks.dataset.folder import DatasetFolder
from batchata_tasks.dataset.part_files import part_of_chunk
from batchata_tasks.execution.filled_by import require_own_spec
from batchata_tasks.execution.held_dataset import find_dataset, hold_dataset, owned_dataset
from batchata_tasks.execution.land import emptying
from batchata_tasks.execution.missing import finish_deletion
from batchata_tasks.execution.renaming import finish_renaming
from batchata_tasks.ledger import opened_ledger
from batchata_tasks.pipeline.lost import lost_chunks
from batchata_tasks.planning.prepare import prepare_run
from batchata_tasks.planning.settle import Settled, settle
from batchata_tasks.providers import without_keys_set

if TYPE_CHECKING:
    from collections.abc import Container, Generator

    from batchata_tasks.common.settings import Settings
    from batchata_tasks.execution.held_dataset import HeldDataset
    from batchata_tasks.planning.prepare import PreparedRun
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
        """Prepare the dataset for being changed; no row changes by that.

        Raises:
            LeaseError: another process took the dataset over.
        """
        self.held.ledger.check_lease(self.held.lease)  # right before files change
        dataset = self.ready.table.dataset
        dataset.tidy()
        finish_deletion(self.held, dataset)

    def adopt_columns(self) -> None:
        """Give all rows the columns of the spec's response model of today, as a run does."""
        self.settled.declared.write(self.held.folder)  # before any part is rewritten
        self.ready.table.dataset.conform(self.unfinished)

    def end_stopped_run(self) -> None:
        """End a run that stopped until somebody looks at it, so that the next one plans anew."""
        held = self.held
        run = held.ledger.open_run(held.lease.dataset_id)
        if run is not None:
            held.ledger.close_run(held.lease, run.id, run.result or "abandoned")
            held.folder.drop_run_folder(run.id)

    def require_no_unfinished_run(self, why: str, but: Container[str | None] = ()) -> None:
        """Refuse a dataset of which a run is unfinished, or files are gone that a run would fetch.

        Raises:
            SpecError: with the two ways out; `why` says what is in the way. Not for a run that
                stopped with one of the results in `but`.
        """
        held = self.held
        dataset_id = held.lease.dataset_id
        lost = lost_chunks(held.ledger, held.folder, dataset_id)
        run = held.ledger.open_run(dataset_id)
        if run is not None and run.result not in but:
            message = (
                f"an unfinished run {why}; let `batchata run SPEC` finish it, or `batchata cancel "
                "SPEC` end it first."
            )
            raise SpecError(message)
        if lost.parts or lost.landed or lost.unfinished:
            message = (
                f"files of the dataset are gone, and the run that fetches them again {why}; let "
                "`batchata run SPEC` do so first."
            )
            raise SpecError(message)


@contextmanager
def held_by_spec(
    spec: EnrichmentSpec,
    settings: Settings,
    progress: Progress | None,
    doing: str,
    *,
    renames: bool = False,
) -> Generator[HeldBySpec, None, None]:
    """Hold the dataset of a spec; `doing` tells others why.

    If it `renames`, the spec may have other names for columns than the dataset, whose types say
    nothing about the spec's then.

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
        finish_renaming(held)
        dataset = ready.table.dataset
        if not renames:
            for schema in dataset.schemas().values():
                dataset.check_key(schema)
        dataset.gate, dataset.emptied = held.require_lease, emptying(held)
        unlanded = held.ledger.unfinished_chunks(held.lease.dataset_id, "")
        settled = Settled(DeclaredSchema())
        if not renames:
            settled = settle(ready.table, held.folder, [chunk.id for chunk in unlanded])
        unfinished = frozenset(part_of_chunk(chunk.id) for chunk in unlanded)
        yield HeldBySpec(ready, held, settled, unfinished)
