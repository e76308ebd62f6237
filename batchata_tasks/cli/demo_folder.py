"""The folder of `batchata demo`: what an earlier demo made there is deleted, and nothing else."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from batchata_tasks.common.errors import BatchataError, InputError, StorageError
from batchata_tasks.common.files import storage_errors
from batchata_tasks.dataset.folder import DatasetFolder
from batchata_tasks.dataset.part_files import chunks_in
from batchata_tasks.ledger.contents import LedgerContents, ledger_contents

if TYPE_CHECKING:
    from collections.abc import Iterable

FOLDER = Path("data/out/demo")
LEDGER = FOLDER / "ledger.db"
_LEDGER_FILES = [LEDGER.with_name(LEDGER.name + suffix) for suffix in ("", "-wal", "-shm")]
_ELSEWHERE = "or start the demo in another folder"


def ledger_url() -> str:
    """Return the URL of the demo's ledger."""
    return f"sqlite:///{LEDGER.absolute()}"


def spec_name(provider: str) -> str:
    """Return the name of the demo's spec for a provider."""
    return f"demo-{provider}"


def clear(providers: Iterable[str]) -> None:
    """Delete the datasets and the ledger of an earlier demo.

    All of them are checked before anything is deleted.

    Raises:
        InputError: something lies there that no demo made, or a run is at work there.
    """
    with storage_errors("the demo"):
        _check_folders()
        datasets = {provider: _dataset(provider) for provider in providers}
        owners = {provider: _owner(dataset) for provider, dataset in datasets.items()}
        ledger = _ledger()
        for provider, dataset in datasets.items():
            _check_dataset(dataset, owners[provider], ledger)
        if ledger is not None:
            _check_ledger(ledger, datasets, owners)
        for dataset in datasets.values():
            _delete(dataset)
        for file in _LEDGER_FILES:  # last: it proves that the datasets are the demo's
            file.unlink(missing_ok=True)


def _refused(path: Path, problem: str, remedy: str = "") -> InputError:
    moved = FOLDER if FOLDER.is_dir() else path
    return InputError(f"demo: {path} {problem}; {remedy or f'move {moved} away'}, {_ELSEWHERE}.")


def _check_folders() -> None:
    """Refuse a file where the folder is to be; the folder itself may be a link."""
    for folder in (*reversed(FOLDER.parents), FOLDER):
        if os.path.lexists(folder) and not folder.is_dir():
            raise _refused(folder, "is not a folder")


def _dataset(provider: str) -> DatasetFolder:
    """Return a dataset's folder; refuse links, behind which lies what is not the demo's."""
    dataset = DatasetFolder(str(FOLDER / provider))
    for folder in (dataset.root, dataset.data, dataset.own):
        if os.path.lexists(folder) and (folder.is_symlink() or not folder.is_dir()):
            raise _refused(_shown(folder), "is not a folder that the demo made")
    for path in dataset.own.rglob("*"):
        if path.is_symlink():
            raise _refused(_shown(path), "is a link, which the demo did not make")
    return dataset


def _shown(path: Path) -> Path:
    return path.relative_to(Path.cwd())


def _owner(dataset: DatasetFolder) -> dict[str, Any] | None:
    try:
        return dataset.owner()
    except StorageError as error:
        path = _shown(dataset.own / "owner.json")
        raise _refused(path, "is damaged, so this dataset may not be the demo's") from error


def _ledger() -> LedgerContents | None:
    for file in _LEDGER_FILES:
        if file.is_symlink():
            raise _refused(file, "is a link, which the demo did not make")
    try:
        return ledger_contents(ledger_url())
    except BatchataError as error:
        raise _refused(LEDGER, "is not a ledger, or it is damaged") from error


def _check_ledger(
    ledger: LedgerContents,
    datasets: dict[str, DatasetFolder],
    owners: dict[str, dict[str, Any] | None],
) -> None:
    """Refuse a ledger that records anything but the demo's runs, or is in use."""
    demos: dict[str, str] = {}
    for provider, dataset in datasets.items():
        # by its owner file if the project's folder was moved, by the URL if that file is gone
        owner_id = (owners[provider] or {}).get("dataset_id")
        for dataset_id, url in ledger.datasets.items():
            if owner_id == dataset_id or url == dataset.url:
                demos[dataset_id] = spec_name(provider)
    others = {name for dataset_id, name in ledger.runs if demos.get(dataset_id) != name}
    others |= {url for dataset_id, url in ledger.datasets.items() if dataset_id not in demos}
    if others or ledger.other_money:
        names = ", ".join(sorted(others)) or "calls outside of runs"
        raise _refused(LEDGER, f"records what is not the demo's ({names})")
    if ledger.in_use:
        raise _refused(
            FOLDER, "is in use by another run", "wait for its end (for a minute, if it was killed)"
        )


def _check_dataset(
    dataset: DatasetFolder, owner: dict[str, Any] | None, ledger: LedgerContents | None
) -> None:
    """Refuse a dataset of another ledger, and Parquet files that no demo wrote."""
    if owner is not None and (ledger is None or owner["ledger_id"] != ledger.ledger_id):
        raise _refused(_shown(dataset.root), f"is a dataset, but not one of the ledger {LEDGER}")
    chunks: frozenset[str] = frozenset()
    if owner is not None and ledger is not None:
        chunks = ledger.chunks
    for path in dataset.data.glob("*.parquet"):
        if path.is_symlink() or not _is_of(path, chunks):
            raise _refused(_shown(path), "is not a file that the demo made")


def _is_of(path: Path, chunks: frozenset[str]) -> bool:
    """Whether all rows of a part came from these chunks."""
    try:
        own = chunks_in(path)
    except StorageError:  # nobody can tell what it is
        return False
    return bool(own) and chunks.issuperset(own)


def _delete(dataset: DatasetFolder) -> None:
    """Delete a dataset; if this is interrupted, the owner file still says whose it is."""
    if _owner(dataset) is None:
        return
    for part in dataset.data.glob("*.parquet"):
        part.unlink()
    owner_file = dataset.own / "owner.json"
    for path in dataset.own.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path != owner_file:
            path.unlink()
    owner_file.unlink()
    dataset.own.rmdir()
