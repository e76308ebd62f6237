"""The raw files of a Batch: copies of what went over the wire, for people.

`<results_dir>/raw_files/requests` and `responses` have a file for each batch, and `responses` one
for each job.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import quote

from batchata_tasks.common.canonical import digest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from batchata_tasks.dataset.folder import DatasetFolder

_NAME_BYTES = 200  # of a file, with room for its ending


def batch_file(provider: str, batch_id: str, suffix: str) -> str:
    """Return the name of the two files of a batch."""
    batch = quote(batch_id, safe="")
    if len(batch) > _NAME_BYTES:
        batch = digest("batch", batch_id.encode()).hex()[:32]
    return f"{provider}_batch_{batch}.{suffix}"


def job_file(folder: DatasetFolder, job_id: str) -> Path:
    """Return the file of a job's result, named by its id, or by a digest if that names no file."""
    name = quote(job_id, safe=" ")
    if not name.strip(". ") or len(name) > _NAME_BYTES:
        name = f"job-{digest('file', job_id.encode()).hex()[:32]}"
    return folder.raw / "responses" / f"{name}_raw.json"


def batch_files(folder: DatasetFolder) -> Iterator[Path]:
    """Yield the files of all batches."""
    for place in ("requests", "responses"):
        yield from sorted((folder.raw / place).glob("*_batch_*"))
