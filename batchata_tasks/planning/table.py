"""PreparedTable: a spec whose rows can be planned."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from batchata_tasks.planning.fingerprint import FINGERPRINT_VERSION, REHEARSED_VERSION

if TYPE_CHECKING:
    import pyarrow as pa

    from batchata_tasks.dataset.parts import Dataset
    from batchata_tasks.planning.builder import Builder
    from batchata_tasks.schema.answers import AnswerSchemas
    from batchata_tasks.sources.typed import Typed
    from batchata_tasks.spec.run import RunSpec


@dataclass(frozen=True)
class PreparedTable:
    """A spec with its source, its request builder and its dataset."""

    spec: RunSpec
    source: Typed
    builder: Builder
    answers: AnswerSchemas
    dataset: Dataset
    columns: pa.Schema  # of the source: those that are used
    rehearsal: bool = False  # an emulator answers

    @property
    def fingerprint_version(self) -> str:
        """The version of the fingerprints of its rows."""
        return REHEARSED_VERSION if self.rehearsal else FINGERPRINT_VERSION
