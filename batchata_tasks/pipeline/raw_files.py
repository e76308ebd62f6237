"""Deletes request and response files at the end of a run, as the spec asks for.

Those of chunks whose rows have not landed are needed, however old they are.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from batchata_tasks.common.files import storage_errors
from batchata_tasks.dataset.packs import changed_at, kept_files

if TYPE_CHECKING:
    from pathlib import Path

    from batchata_tasks.execution.run_context import RunContext


def drop_raw_files(run: RunContext) -> int:
    """Delete a run's own files if the spec keeps none, and all that are older than `retention`.

    Returns how many went for their age.
    """
    with storage_errors("deleting request and response files"):
        if not run.spec.raw_files:
            for chunk in run.ledger.chunks(run.run_id):
                run.held.packing.remove(_raw_files(run, f"{chunk.id}*"))
        seconds = run.spec.retention_seconds
        return 0 if seconds is None else _drop_older(run, seconds)


def _drop_older(run: RunContext, seconds: float) -> int:
    """Delete files that are older than so many seconds; return their number."""
    unlanded = run.ledger.unfinished_chunks(run.lease.dataset_id, "")
    needed = tuple(chunk.id for chunk in unlanded)
    oldest = time.time() - seconds
    old = [
        path
        for path in _raw_files(run, "*")
        if not path.name.startswith(needed) and changed_at(path) / 1e9 < oldest
    ]
    run.held.packing.remove(old)
    return len(old)


def _raw_files(run: RunContext, pattern: str) -> list[Path]:
    folders = (run.folder.requests, run.folder.responses)
    return [path for folder in folders for path in kept_files(folder, pattern)]
