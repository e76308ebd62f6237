"""The spec that fills a dataset. Two of them would replace each other's answers in turn."""

from __future__ import annotations

from typing import TYPE_CHECKING

from batchata_tasks.common.errors import SpecError
from batchata_tasks.spec.jobs import JobsSpec

if TYPE_CHECKING:
    from batchata_tasks.dataset.folder import DatasetFolder
    from batchata_tasks.ledger import Ledger
    from batchata_tasks.spec.run import RunSpec


def require_own_spec(
    folder: DatasetFolder, ledger: Ledger | None, dataset_id: str | None, spec: RunSpec
) -> None:
    """Refuse a dataset that another spec fills; one in which nothing is, or is to come, is free.

    A Batch is named by its folder, which may be moved.

    Raises:
        SpecError: another spec fills it; its name is told.
    """
    if isinstance(spec, JobsSpec):
        return
    name = _filled_by(folder, ledger, dataset_id)
    if name is None or name == spec.name:
        return
    message = (
        f"output: the dataset in {folder.root} is filled by the spec {name!r}, and this one is "
        f"{spec.name!r}: in turn they would send all rows again and replace each other's answers. "
        "Name another output; if it is the same spec under a new name, or is to replace that one, "
        "say so once with --take-over (of a flow: take_over)."
    )
    raise SpecError(message)


def note_spec(folder: DatasetFolder, spec: RunSpec) -> None:
    """Record in the dataset that this spec fills it from now on."""
    owner = folder.owner()
    if owner is None or isinstance(spec, JobsSpec) or owner.get("spec") == spec.name:
        return
    folder.write_owner(owner["dataset_id"], owner["ledger_id"], spec.name)


def _filled_by(folder: DatasetFolder, ledger: Ledger | None, dataset_id: str | None) -> str | None:
    """Return the name of the spec that fills a dataset, if anything of one is there."""
    name = (folder.owner() or {}).get("spec")
    sent = False
    if ledger is not None and dataset_id is not None:
        sent = any(True for _ in ledger.unfinished_chunks(dataset_id, ""))
        if name is None:  # a dataset of the first versions: the spec of the newest run goes on
            name = next((run.name for run in ledger.runs_of(dataset_id, 1)), None)
    landed = not folder.data.exists() or any(folder.data.glob("*.parquet"))
    return name if landed or sent else None
