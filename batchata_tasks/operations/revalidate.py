"""Revalidating: kept answers are read by today's response model, and nothing is sent."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from batchata_tasks.dataset.folder import DatasetFolder
from batchata_tasks.dataset.parts import Dataset
from batchata_tasks.execution.checked import note_checked
from batchata_tasks.execution.reread import EVIDENCE
from batchata_tasks.ledger import UNTIL_LOOKED_AT
from batchata_tasks.operations.held_by_spec import held_by_spec
from batchata_tasks.operations.held_folder import held_folder
from batchata_tasks.pipeline.receipt import RunResult
from batchata_tasks.pipeline.revalidation import KeptAnswers, Revalidated

if TYPE_CHECKING:
    from batchata_tasks.common.settings import Settings
    from batchata_tasks.operations.held_folder import HeldFolder
    from batchata_tasks.progress.listener import Progress
    from batchata_tasks.schema.answers import AnswerSchemas
    from batchata_tasks.spec.enrichment import EnrichmentSpec

# a run that stopped so stays open, and sends nothing before somebody looked at it
_SENDS_NOTHING = (*UNTIL_LOOKED_AT, RunResult.PILOT_FAILED)


def revalidate(
    spec: EnrichmentSpec,
    settings: Settings,
    progress: Progress | None = None,
    *,
    dry_run: bool = False,
    mark_invalid: bool = False,
) -> Revalidated:
    """Read the kept answers of a spec's dataset by its response model, and write what changed.

    With `dry_run` nothing is written. A row that today's model does not take stays as it is; with
    `mark_invalid` it becomes invalid, if it landed under the same schema. A run that stopped for
    invalid answers, such as by its pilot, does so no more if some became valid.

    Raises:
        BatchataError: see `held_by_spec`.
    """
    with held_by_spec(spec, settings, progress, "revalidating") as dataset:
        answers = KeptAnswers(
            dataset.dataset, dataset.ready.table.answers, mark_invalid=mark_invalid
        )
        return _revalidated(dataset, answers, dry_run=dry_run)


def revalidate_in(
    output: str,
    answers: AnswerSchemas,
    settings: Settings,
    progress: Progress | None = None,
    *,
    dry_run: bool = False,
    mark_invalid: bool = False,
) -> Revalidated:
    """Read the kept answers of the dataset in a folder by a response model, whatever fills it.

    Raises:
        BatchataError: see `held_folder`.
    """
    with held_folder(output, settings, progress, "revalidating", answers) as dataset:
        kept = KeptAnswers(dataset.dataset, answers, mark_invalid=mark_invalid)
        return _revalidated(dataset, kept, dry_run=dry_run)


def has_quotes(output: str) -> bool:
    """Whether answers of the dataset in a folder quote passages for their fields.

    Only then is there something beside an answer's fields in its text.
    """
    folder = DatasetFolder(output)
    if not folder.data.is_dir():
        return False
    dataset = Dataset(folder.data, pa.schema([]), [], [])
    for _, batch in dataset.rows([EVIDENCE]):
        fields = pc.struct_field(pc.list_flatten(batch.column(EVIDENCE)), "field")
        if fields.null_count < len(fields):
            return True
    return False


def _revalidated(dataset: HeldFolder, answers: KeptAnswers, *, dry_run: bool) -> Revalidated:
    if not dry_run:
        dataset.require_no_unfinished_run(
            "would still send, and pay for, rows that it planned", _SENDS_NOTHING
        )
        dataset.begin()  # rows of an older copy of the folder may leave it
    report, parts = answers.look()
    if not dry_run:
        dataset.adopt_columns()
        landed = [part for part in parts if part not in dataset.unfinished]
        answers.write(landed, dataset.held)
        note_checked(dataset.held, answers.model, all_rows=True)
        if report.became_valid:  # it may have stopped for these very answers
            dataset.end_stopped_run()
    return report
