"""Compacting: the parts of a dataset are merged into few, whatever their number."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from batchata_tasks.common.text import pluralize
from batchata_tasks.dataset.merging import merge_all
from batchata_tasks.operations.held_by_spec import held_by_spec

if TYPE_CHECKING:
    from batchata_tasks.common.settings import Settings
    from batchata_tasks.progress.listener import Progress
    from batchata_tasks.spec.enrichment import EnrichmentSpec


@dataclass(frozen=True)
class Compacted:
    """How many parts a dataset had, and has."""

    before: int
    after: int

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return asdict(self)

    def lines(self) -> list[tuple[str, str]]:
        """Return it for people, as (label, value)."""
        return [("Parts", f"{pluralize(self.before, 'file')} before, {self.after:,} now")]


def compact(
    spec: EnrichmentSpec, settings: Settings, progress: Progress | None = None
) -> Compacted:
    """Merge the parts of a spec's dataset that are not large.

    Raises:
        BatchataError: see `held_by_spec`.
    """
    with held_by_spec(spec, settings, progress, "compacting") as dataset:
        parts = dataset.dataset
        before = len(parts.parts())
        dataset.begin()
        return Compacted(before, merge_all(parts, dataset.unfinished))
