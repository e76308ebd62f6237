"""What the next run makes of a dataset's folder that comes from an older copy, before it plans.

The ledger knows what was done to its rows since: answers that were read anew, and rows that were
forgotten. A run does that again (`read_again`, `agree_on_changes`). A plan writes nothing, and
reads the rows as if it were done.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import chain
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from batchata_tasks.dataset.parts import Dataset
from batchata_tasks.execution.changes import Changes
from batchata_tasks.execution.reread import DECIDING, EVIDENCE, Reading
from batchata_tasks.pipeline.revalidation import is_to_be_read
from batchata_tasks.planning.fingerprint import schema_part_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from batchata_tasks.dataset.folder import DatasetFolder
    from batchata_tasks.ledger import Ledger
    from batchata_tasks.planning.table import PreparedTable
    from batchata_tasks.schema.answers import AnswerSchemas


def as_brought_up(
    table: PreparedTable, folder: DatasetFolder, ledger: Ledger, dataset_id: str
) -> PreparedTable:
    """Return a table whose dataset reads as the next run will find it."""
    gone = set[str]()
    if Changes.read(folder).forgotten < ledger.forgotten_number(dataset_id):
        gone = set(chain.from_iterable(ledger.forgotten_by_chunk(dataset_id).values()))
    model = table.answers if is_to_be_read(table, folder, ledger, dataset_id) else None
    if model is None and not gone:
        return table
    return replace(table, dataset=_BroughtUp(table.dataset, model, gone))


class _BroughtUp(Dataset):
    """A dataset whose kept answers a model reads, without rows of some requests (custom_ids)."""

    def __init__(self, dataset: Dataset, model: AnswerSchemas | None, gone: set[str]) -> None:
        super().__init__(dataset.data, dataset.schema, dataset.key, dataset.carried)
        self.retired = dataset.retired
        self._model, self._gone = model, pa.array(sorted(gone), pa.string())

    def rows(self, columns: list[str]) -> Iterator[tuple[str, pa.RecordBatch]]:
        """See Dataset."""
        needed = dict.fromkeys((*columns, *DECIDING, EVIDENCE, "_error", "_custom_id"))
        for part, batch in super().rows([*needed]):
            rows = batch.filter(pc.invert(pc.is_in(batch.column("_custom_id"), self._gone)))
            if self._model is not None:
                reading = Reading(self._model, schema_part_of(self._model.common), rows.schema, [])
                rows = reading.read(rows).rows
            yield part, rows.select([name for name in columns if name in rows.schema.names])
