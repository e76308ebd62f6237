"""Compacting: the files of a dataset are merged into few, whatever their number."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from batchata_tasks.common.text import pluralize
from batchata_tasks.dataset.merging import merge_all
from batchata_tasks.execution.earlier_files import pack_earlier_files
from batchata_tasks.operations.held_by_spec import held_by_spec

if TYPE_CHECKING:
    from pathlib import Path

    from batchata_tasks.common.settings import Settings
    from batchata_tasks.progress.listener import Progress
    from batchata_tasks.spec.enrichment import EnrichmentSpec


@dataclass(frozen=True)
class Compacted:
    """How many parts a dataset had, and has; and how many files beside them, in `_batchata`."""

    before: int
    after: int
    beside_before: int
    beside_after: int

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return asdict(self)

    def lines(self) -> list[tuple[str, str]]:
        """Return it for people, as (label, value)."""
        beside = pluralize(self.beside_before, "file")
        return [
            ("Parts", f"{pluralize(self.before, 'file')} before, {self.after:,} now"),
            ("Beside", f"{beside} in `_batchata` before, {self.beside_after:,} now"),
        ]


def compact(
    spec: EnrichmentSpec, settings: Settings, progress: Progress | None = None
) -> Compacted:
    """Merge the parts of a spec's dataset that are not large, and pack the files of its runs.

    Raises:
        BatchataError: see `held_by_spec`.
    """
    with held_by_spec(spec, settings, progress, "compacting") as dataset:
        parts, folder = dataset.dataset, dataset.held.folder
        before, beside = len(parts.parts()), _files_in(folder.own)
        dataset.begin()
        after = merge_all(parts, dataset.unfinished)
        pack_earlier_files(dataset.held)
        return Compacted(before, after, beside, _files_in(folder.own))


def _files_in(folder: Path) -> int:
    return sum(path.is_file() for path in folder.rglob("*"))
