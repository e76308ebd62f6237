"""The dataset's folder: its layout, and writes that are durable before they count.

<output>/data/*.parquet               the rows; nothing else lies here
<output>/_batchata/owner.json         which dataset this is and which ledger owns it
<output>/_batchata/intents/           per chunk: what was about to be sent, and its rows
<output>/_batchata/commits/           per chunk: what was landed
<output>/_batchata/specs/             per run that sent something: its spec
<output>/_batchata/requests/          per chunk: byte for byte what went over the wire
<output>/_batchata/responses/         per chunk: byte for byte what came back
<output>/_batchata/runs/<run>/        the run's plan, until the run ends
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, cast

from batchata_tasks.errors import SpecError, StorageError

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Mapping

_JOBS_KEPT = 10  # files; each holds the jobs of one batch


@contextmanager
def storage_errors(what: str) -> Generator[None, None, None]:
    """Turn a refused read or write (full disk, rights) into one sentence."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        place = f" {error.filename}" if error.filename else ""
        message = f"{what}: the storage refused{place}: {reason}. Nothing is lost: mend it and start again."
        raise StorageError(message) from error


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable: a file's own fsync does not cover its name."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_folder(folder: Path) -> None:
    """Make a folder and those above it, their names durable."""
    new = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for path in reversed(new):
        sync_folder(path.parent)


@contextmanager
def durable(path: Path, aside_in: Path | None = None, gate: Callable[[], None] | None = None) -> Generator[BinaryIO, None, None]:
    """Write a file aside, then fsync it, rename it to `path` and fsync the folder.

    Whoever finds `path` finds all of it; after a crash it is there whole or not at all. `aside_in`
    is the folder of the half-written file, where `path`'s own folder must hold nothing else. `gate`
    is asked right before the rename, and raises to stop it.
    """
    # a name of its own: a run that was stopped and wakes up must not write into its successor's file
    aside = (aside_in or path.parent) / f".{path.name}.{secrets.token_hex(4)}.tmp"
    with storage_errors(f"writing {path.name}"):
        try:
            with aside.open("wb") as stream:
                yield stream
                stream.flush()
                os.fsync(stream.fileno())
            if gate is not None:
                gate()
            aside.replace(path)
        except BaseException:
            aside.unlink(missing_ok=True)
            raise
        sync_folder(path.parent)


class DatasetFolder:
    """Paths of one dataset and the small JSON records in it."""

    def __init__(self, output: str) -> None:
        if "://" in output and not output.startswith("file://"):
            message = f"output: {output} is remote; this version writes to local folders only."
            raise SpecError(message)
        self.root = Path(output.removeprefix("file://")).expanduser().absolute()
        self.data = self.root / "data"
        self.own = self.root / "_batchata"
        self.intents = self.own / "intents"
        self.commits = self.own / "commits"
        self.specs = self.own / "specs"
        self.requests = self.own / "requests"
        self.responses = self.own / "responses"
        self.runs = self.own / "runs"
        self.jobs = self.own / "jobs"  # those of the newest batches of a Batch

    @property
    def url(self) -> str:
        """The name under which ledgers know the dataset."""
        return self.root.resolve().as_uri()

    def check(self) -> None:
        """Refuse a file, and a folder of tables that no run of this program wrote."""
        if self.root.exists() and not self.root.is_dir():
            message = f"output: {self.root} is a file; name a folder."
            raise SpecError(message)
        if any(self.data.glob("*.parquet")) and self.owner() is None:
            message = (
                f"output: {self.data} holds Parquet files that no run of this program wrote (there is no "
                "_batchata/owner.json); name an empty folder."
            )
            raise SpecError(message)

    def create(self) -> None:
        """Make the folders."""
        self.check()
        with storage_errors("output"):
            for folder in (self.data, self.intents, self.commits, self.specs, self.requests, self.responses, self.runs):
                make_folder(folder)

    def run_folder(self, run_id: str) -> Path:
        """Return the folder of a run's plan."""
        return self.runs / run_id

    def sweep(self) -> None:
        """Delete what dead runs left half-written: plans, and files that were never renamed."""
        shutil.rmtree(self.runs, ignore_errors=True)
        with storage_errors("output"):
            self.runs.mkdir(exist_ok=True)
            for path in self.own.rglob(".*.tmp"):
                path.unlink(missing_ok=True)
            stored = sorted(self.jobs.glob("*.parquet"), key=lambda path: path.stat().st_mtime_ns)
            for path in stored[:-_JOBS_KEPT]:
                path.unlink(missing_ok=True)

    def drop_run_folder(self, run_id: str) -> None:
        """Delete a run's plan: the run ended, or its planning never did."""
        shutil.rmtree(self.run_folder(run_id), ignore_errors=True)

    def owner(self) -> dict[str, Any] | None:
        """Return owner.json, or None in a new folder."""
        path = self.own / "owner.json"
        found = read_json(path)
        if found is not None and not {"dataset_id", "ledger_id"} <= found.keys():
            message = f"{path} is damaged: it does not name dataset and ledger. Restore it from a copy."
            raise StorageError(message)
        return found

    def write_owner(self, dataset_id: str, ledger_id: str) -> None:
        """Name the dataset and the ledger that owns it."""
        write_json(self.own / "owner.json", {"format": 1, "dataset_id": dataset_id, "ledger_id": ledger_id})


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write a small JSON record durably."""
    with durable(path) as stream:
        stream.write(json.dumps(value, indent=1, sort_keys=True).encode() + b"\n")


def read_json(path: Path) -> dict[str, Any] | None:
    """Read a small JSON record; None where there is no such file."""
    try:
        with storage_errors(f"reading {path.name}"):
            record = json.loads(path.read_bytes())
    except StorageError as error:
        if isinstance(error.__cause__, FileNotFoundError):
            return None
        raise
    except ValueError as error:
        message = f"{path} is damaged: it is not valid JSON. Restore it from a copy."
        raise StorageError(message) from error
    if not isinstance(record, dict):
        message = f"{path} is damaged: it is not a JSON object. Restore it from a copy."
        raise StorageError(message)
    return cast("dict[str, Any]", record)
