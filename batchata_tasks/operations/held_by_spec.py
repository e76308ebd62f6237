"""Holding the dataset of a spec for a command that changes it, and sends nothing."""

from __future__ import annotations

from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from batchata_tasks.dataset.declared import DeclaredSchema
from batchata_tasks.dataset.folder import DatasetFolder
from batchata_tasks.execution.filled_by import require_own_spec
from batchata_tasks.execution.held_dataset import hold_dataset
from batchata_tasks.execution.land import emptying
from batchata_tasks.execution.renaming import finish_renaming
from batchata_tasks.ledger import opened_ledger
from batchata_tasks.operations.held_folder import HeldFolder, require_dataset, unfinished_parts
from batchata_tasks.planning.prepare import prepare_run
from batchata_tasks.planning.renamed import require_known_key
from batchata_tasks.planning.settle import Settled, settle
from batchata_tasks.providers import blocks_unread, without_keys_set

if TYPE_CHECKING:
    from collections.abc import Generator

    from batchata_tasks.common.settings import Settings
    from batchata_tasks.planning.prepare import PreparedRun
    from batchata_tasks.progress.listener import Progress
    from batchata_tasks.spec.enrichment import EnrichmentSpec


@dataclass(frozen=True)
class HeldBySpec(HeldFolder):
    """A dataset that no run can change meanwhile, and its spec, prepared as for a run."""

    ready: PreparedRun

    runner: ClassVar[str] = "`batchata run SPEC`"
    ending: ClassVar[str] = ", or `batchata cancel SPEC` end it"
    returning: ClassVar[str] = (
        "the row is sent again if the source still has it: delete it there, or leave it out by "
        "`where`"
    )

    @property
    def word(self) -> str:
        """See HeldFolder; the path of the spec is known to the command alone."""
        return "SPEC"


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
    dataset_id = require_dataset(folder, settings, "run the spec first")
    with opened_ledger(settings.ledger_url) as ledger:
        require_own_spec(folder, ledger, dataset_id, spec)
    with without_keys_set(), blocks_unread():
        prepared = prepare_run(spec, settings)
    with (
        closing(prepared) as ready,
        hold_dataset(spec.output, settings, progress, f"{doing} {spec.name}") as held,
        held.landing_alone(),
    ):
        finish_renaming(held)
        dataset = ready.table.dataset
        if not renames:
            require_known_key(ready.table, held.folder)
            for schema in dataset.schemas().values():
                dataset.check_key(schema)
        dataset.gate, dataset.emptied = held.require_lease, emptying(held)
        unlanded = held.ledger.unfinished_chunks(held.lease.dataset_id, "")
        settled = Settled(DeclaredSchema())
        if not renames:
            settled = settle(ready.table, held.folder, [chunk.id for chunk in unlanded])
        yield HeldBySpec(dataset, held, settled.declared, unfinished_parts(held), ready)
