"""Revalidating: kept answers are read by today's response model, and nothing is sent."""

from __future__ import annotations

from typing import TYPE_CHECKING

from batchata_tasks.operations.held_by_spec import held_by_spec
from batchata_tasks.pipeline.revalidation import KeptAnswers, Revalidated

if TYPE_CHECKING:
    from batchata_tasks.common.settings import Settings
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
        BatchataError: see `held_by_spec`.
    """
    with held_by_spec(spec, settings, progress, "revalidating") as dataset:
        answers = KeptAnswers(dataset.ready.table)
        report, parts = answers.look()
        if not dry_run:
            dataset.begin()
            answers.write([part for part in parts if part not in dataset.unfinished])
    return report
