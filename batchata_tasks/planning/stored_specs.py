"""The specs of a dataset's runs, of which its folder keeps copies: they outlive a lost ledger."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from batchata_tasks.common.json import as_dict
from batchata_tasks.dataset.packs import changed_at, kept_files, kept_json
from batchata_tasks.planning.job_store import moved_to, require_whole
from batchata_tasks.spec.jobs import JobsSpec

if TYPE_CHECKING:
    from batchata_tasks.dataset.folder import DatasetFolder


def stored_records(folder: DatasetFolder) -> list[dict[str, Any]]:
    """Return the records of the specs of a dataset's runs (see `PreparedRun`), the newest first."""
    paths = sorted(kept_files(folder.specs, "*.json"), key=changed_at)
    records = [as_dict(kept_json(path)) for path in reversed(paths)]
    return [record for record in records if "spec" in record]


def spec_of_jobs(folder: DatasetFolder) -> JobsSpec | None:
    """Return the spec of the newest run of a Batch; None if none ran in this folder.

    Raises:
        SpecError: the jobs are there, and damaged.
    """
    stored = [as_dict(json.loads(record["spec"]).get("spec")) for record in stored_records(folder)]
    specs = [
        moved_to(folder, JobsSpec.model_validate(one))
        for one in stored
        if one.get("kind") == "jobs"
    ]
    # the jobs of older runs are deleted in time, or were lost with the folder
    specs.sort(key=lambda spec: not Path(spec.jobs).exists())
    if not specs:
        return None
    if Path(specs[0].jobs).exists():
        require_whole(Path(specs[0].jobs))
    return specs[0]
