"""The rows that failed in a run, as its dataset has them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow.compute as pc
import pyarrow.dataset as pads

from batchata_tasks.common.files import storage_errors
from batchata_tasks.common.json_columns import python_list
from batchata_tasks.dataset.part_files import part_errors
from batchata_tasks.dataset.stored_json import from_parquet
from batchata_tasks.types.outcome import Outcome

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import pyarrow as pa


@dataclass(frozen=True, slots=True)
class FailedRow:
    """A row that failed: the values of its key, how it ended, and why."""

    key: dict[str, Any]
    outcome: str
    error: str | None


def failed_rows(data: Path, key: list[str], run_id: str) -> Iterator[FailedRow]:
    """Yield the rows of a dataset (the folder of its parts) that failed in a run.

    Of parts without such rows little more than the footers is read.

    Raises:
        StorageError: a part is damaged, or cannot be read.
    """
    failed = (pc.field("_run_id") == run_id) & (pc.field("_status") != Outcome.SUCCEEDED.value)
    with storage_errors("reading the dataset"):
        for path in sorted(data.glob("*.parquet")):
            with part_errors(path.name):
                part: pads.Dataset = pads.dataset(str(path), format="parquet")
                columns = [*key, "_status", "_error"]
                for batch in part.to_batches(columns=columns, filter=failed):
                    yield from _rows(batch, key)


def _rows(batch: pa.RecordBatch, key: list[str]) -> Iterator[FailedRow]:
    keys = from_parquet(batch.select(key))
    outcomes: list[str] = batch.column("_status").to_pylist()
    errors: list[str | None] = batch.column("_error").to_pylist()
    values = zip(*(python_list(keys.column(name)) for name in key), strict=True)
    for one, outcome, error in zip(values, outcomes, errors, strict=True):
        yield FailedRow(dict(zip(key, one, strict=True)), outcome, error)
