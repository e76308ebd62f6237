"""The folder of a dataset."""

from __future__ import annotations

import shlex
import shutil
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

from batchata_tasks.common.errors import SpecError, StorageError
from batchata_tasks.common.files import (
    from_home,
    make_folder,
    read_json,
    storage_errors,
    write_json,
)
from batchata_tasks.dataset.packs import kept_files

if TYPE_CHECKING:
    from collections.abc import Container
    from pathlib import Path

_JOBS_KEPT = 10  # files that a run may yet name; each holds the jobs of one Batch


class DatasetFolder:
    """Paths of one dataset and the small JSON records in it."""

    def __init__(self, output: str) -> None:
        if "://" in output and not output.startswith("file://"):
            message = f"output: {output} is remote; this version writes to local folders only."
            raise SpecError(message)
        self.root = from_home(output.removeprefix("file://"), "output").absolute()
        self.data = self.root / "data"
        self.own = self.root / "_batchata"
        self.intents = self.own / "intents"
        self.commits = self.own / "commits"
        self.specs = self.own / "specs"
        self.requests = self.own / "requests"
        self.responses = self.own / "responses"
        self.twice = self.own / "twice"  # batches of creates that were accepted twice
        self.packs = self.own / "packs"  # of the small files of earlier runs
        self.runs = self.own / "runs"
        self.raw = self.root / "raw_files"  # copies for people, of a Batch alone
        self.jobs = self.own / "jobs"  # those of the newest runs of a Batch
        self.deleting = self.own / "deleting.bin"  # keys (digests) whose rows are being taken out
        self.renames = self.own / "renames.json"  # of columns
        self.changes = self.own / "changes.json"  # models that read answers anew, forgotten rows
        self.checked = self.own / "checked.json"  # by the code of which response models
        self.last_error = self.own / "last_error.json"  # of the last start, for `batchata status`

    @classmethod
    def at_url(cls, url: str) -> DatasetFolder:
        """Return the folder to which a ledger's name of a dataset leads."""
        return cls(url2pathname(urlsplit(url).path))

    @property
    def url(self) -> str:
        """The name of the dataset in ledgers."""
        return self.root.resolve().as_uri()

    @property
    def word(self) -> str:
        """Its path as a word of a command line."""
        return shlex.quote(str(self.root))

    def check(self) -> None:
        """Refuse a file, and a folder with tables that no run of this program wrote."""
        try:
            is_file = self.root.exists() and not self.root.is_dir()
        except OSError as error:  # of a name that is too long, or in a folder without rights
            message = f"output: {self.root} cannot be used: {error.strerror}; name another folder."
            raise SpecError(message) from None
        if is_file:
            message = f"output: {self.root} is a file; name a folder."
            raise SpecError(message)
        if any(self.data.glob("*.parquet")) and self.owner() is None:
            message = (
                f"output: {self.data} holds Parquet files that no run of this program wrote "
                "(there is no _batchata/owner.json); name an empty folder."
            )
            raise SpecError(message)

    def create(self) -> None:
        """Make the folders."""
        self.check()
        folders = [self.data, self.intents, self.commits, self.specs]
        folders += [self.requests, self.responses, self.runs]
        with storage_errors("output"):
            for folder in folders:
                make_folder(folder)

    def manifest(self, chunk_id: str) -> Path:
        """Return the file of a chunk's rows, in the order of its requests."""
        return self.intents / f"{chunk_id}.arrow"

    def intent(self, chunk_id: str) -> Path:
        """Return the file of the intent to send a chunk."""
        return self.intents / f"{chunk_id}.json"

    def spec_of(self, run_id: str) -> Path:
        """Return the file of the copy of a run's spec."""
        return self.specs / f"{run_id}.json"

    def commit(self, chunk_id: str) -> Path:
        """Return the file of a chunk's commit record."""
        return self.commits / f"{chunk_id}.json"

    def noted_files(self) -> list[Path]:
        """Return the files of all intents and commits, packed or not."""
        return [*kept_files(self.intents, "*.json"), *kept_files(self.commits, "*.json")]

    def files_of(self, chunk_id: str) -> list[Path]:
        """Return the files of a chunk, packed or not."""
        places = (self.intents, self.commits, self.requests, self.responses)
        return [path for place in places for path in kept_files(place, f"{chunk_id}*")]

    def run_folder(self, run_id: str) -> Path:
        """Return the folder of a run's plan."""
        return self.runs / run_id

    def landing_lock(self, fence: int) -> Path:
        """Return the file that is locked while rows land under the lease of this number.

        Its name is that of an unfinished file, so that what a killed run leaves is swept up.
        """
        return self.own / f".landing-{fence}.tmp"

    def sweep(self, jobs_in_use: Container[str] = ()) -> None:
        """Delete what dead runs left behind: plans, and files that were never renamed.

        Of the files of jobs, the newest stay, and those whose names are in `jobs_in_use`.
        """
        self.drop_unfinished()
        with storage_errors("output"):
            stored = sorted(self.jobs.glob("*.parquet"), key=lambda path: path.stat().st_mtime_ns)
            for path in stored[:-_JOBS_KEPT]:
                if path.name not in jobs_in_use:
                    path.unlink(missing_ok=True)

    def drop_unfinished(self) -> None:
        """Delete the plans of all runs, and files that were never renamed."""
        shutil.rmtree(self.runs, ignore_errors=True)
        with storage_errors("output"):
            self.runs.mkdir(exist_ok=True)
            for path in self.own.rglob(".*.tmp"):
                path.unlink(missing_ok=True)

    def drop_run_folder(self, run_id: str) -> None:
        """Delete the plan of a run that ended, or whose planning never did."""
        shutil.rmtree(self.run_folder(run_id), ignore_errors=True)

    def owner(self) -> dict[str, Any] | None:
        """Return owner.json, or None in a new folder."""
        path = self.own / "owner.json"
        owner = read_json(path)
        if owner is not None and not {"dataset_id", "ledger_id"} <= owner.keys():
            message = (
                f"{path} is damaged: it does not name dataset and ledger. Restore it from a copy."
            )
            raise StorageError(message)
        return owner

    def write_owner(self, dataset_id: str, ledger_id: str, spec: str | None = None) -> None:
        """Record the dataset's id, the ledger that owns it, and the name of the spec that fills it.

        Without a name, what is recorded of that stays.
        """
        name = spec or (self.owner() or {}).get("spec")
        owner = {"format": 2, "dataset_id": dataset_id, "ledger_id": ledger_id, "spec": name}
        write_json(self.own / "owner.json", owner)
