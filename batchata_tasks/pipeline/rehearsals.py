"""Rehearsals and real runs of one dataset: what one leaves is not waited for by the other."""

from __future__ import annotations

from typing import TYPE_CHECKING

from batchata_tasks.common.text import pluralize
from batchata_tasks.dataset.part_files import part_of_chunk
from batchata_tasks.execution.intent_files import delete
from batchata_tasks.pipeline.lost import parts_of
from batchata_tasks.planning.rehearsal import replaces_answers
from batchata_tasks.providers import has_forgotten

if TYPE_CHECKING:
    from batchata_tasks.execution.held_dataset import HeldDataset
    from batchata_tasks.ledger import RunRow
    from batchata_tasks.planning.prepare import PreparedRun
    from batchata_tasks.planning.table import PreparedTable


def is_of_other_kind(run: RunRow, table: PreparedTable) -> bool:
    """Whether a run is real and the spec's next one a rehearsal, or the other way round.

    Of a run that an older version began nobody knows.
    """
    return run.rehearsal not in (None, int(table.rehearsal))


def end_rehearsals(held: HeldDataset, ready: PreparedRun) -> None:
    """End the rehearsals of a dataset of which nothing is to be waited for.

    For a real run these are all: what an emulator answers cost nothing, and its rows are sent anew.
    For a rehearsal these are the ones whose emulator was started anew since, and has forgotten.

    Raises:
        SpecError: this is a rehearsal, and a real endpoint was sent rows of the dataset.
    """
    ledger, folder, dataset_id = held.ledger, held.folder, held.lease.dataset_id
    if ready.table.rehearsal and ledger.sent_for_real(dataset_id):
        raise replaces_answers(ready.spec.output)
    if not (rehearsals := ledger.rehearsals(dataset_id)):
        return

    def is_to_go(scope: str | None) -> bool:
        if not ready.table.rehearsal:
            return True
        return any(has_forgotten(adapter, scope) for adapter in ready.adapters)

    dropped = ledger.drop_rehearsals(held.lease, is_to_go)
    for chunk_id in dropped.chunks:
        delete(folder, chunk_id)
    for run_id in dropped.runs:
        folder.drop_run_folder(run_id)
    parts = parts_of(folder)
    lost = [
        chunk.id
        for chunk in ledger.landed_chunks(dataset_id)
        if chunk.run_id in rehearsals
        and part_of_chunk(chunk.id) not in parts
        and (chunk.batch_id is None or is_to_go(ledger.sent_under(chunk.batch_id)[1]))
    ]
    ledger.note_emptied(held.lease, lost)
    if number := len(lost) + len(dropped.chunks):
        held.progress.note(
            f"{pluralize(number, 'batch')} of rehearsals, of which nothing is in the dataset, are "
            "not waited for: they cost nothing, and their rows are sent anew."
        )
