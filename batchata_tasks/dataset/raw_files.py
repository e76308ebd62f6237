"""The files that a Batch keeps for people: copies of what went over the wire, and results.

`<results_dir>/raw_files/requests` and `responses` have a file for each batch, and `responses` one
for each job. With `result_files`, each job has a file in `results_dir`.
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
    """Return the file of a job's answer, named by its id, or by a digest if that names no file."""
    return folder.raw / "responses" / f"{_named(job_id)}_raw.json"


def result_file(folder: DatasetFolder, job_id: str) -> Path:
    """Return the file of what a job's result is made of (`result_files`), named likewise."""
    return folder.root / f"{_named(job_id)}.json"


def job_files(folder: DatasetFolder, job_id: str) -> list[Path]:
    """Return all files that are of one job alone."""
    return [job_file(folder, job_id), result_file(folder, job_id)]


def _named(job_id: str) -> str:
    name = quote(job_id, safe=" ")
    if not name.strip(". ") or len(name) > _NAME_BYTES:
        name = f"job-{digest('file', job_id.encode()).hex()[:32]}"
    return name


def batch_files(folder: DatasetFolder) -> Iterator[Path]:
    """Yield the files of all batches."""
    for place in ("requests", "responses"):
        yield from sorted((folder.raw / place).glob("*_batch_*"))
