"""StateManager: a file that names a run of jobs, and what the ledger knows of that run."""

from __future__ import annotations

import json
import math
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from batchata_tasks.api.job_result import JobResult
from batchata_tasks.api.results import landed_results, stored_jobs
from batchata_tasks.common.errors import SpecError, StorageError, TerminalError
from batchata_tasks.common.files import make_folder, storage_errors, write_json
from batchata_tasks.common.json import as_dict
from batchata_tasks.common.settings import Settings
from batchata_tasks.common.text import pluralize
from batchata_tasks.ledger import UNFINISHED, Ledger
from batchata_tasks.spec.job import Job
from batchata_tasks.spec.jobs import JobsSpec

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Mapping, Sequence

    from batchata_tasks.ledger import RunRow

_FORMAT = 1


@dataclass(frozen=True)
class BatchState:
    """Where a run of jobs stands.

    `batch_id` is the newest batch, empty where none was sent; `created_at` is in ISO 8601; results
    and failures are by job id; `total_cost_usd` is what the jobs have cost in all runs, in US dollars.
    """

    batch_id: str = ""
    created_at: str = ""
    pending_jobs: list[Job] = field(default_factory=list[Job])
    completed_results: dict[str, JobResult] = field(default_factory=dict[str, JobResult])
    failed_jobs: dict[str, str] = field(default_factory=dict[str, str])
    total_cost_usd: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {
            "batch_id": self.batch_id,
            "created_at": self.created_at,
            "pending_jobs": [job.to_dict() for job in self.pending_jobs],
            "completed_results": {
                name: result.to_dict() for name, result in self.completed_results.items()
            },
            "failed_jobs": dict(self.failed_jobs),
            "total_cost_usd": self.total_cost_usd,
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> BatchState:
        """Return the state that `to_dict` gave."""
        jobs = [Job.from_dict(job) for job in data.get("pending_jobs", [])]
        results = {
            name: JobResult.from_dict(result)
            for name, result in data.get("completed_results", {}).items()
        }
        return cls(
            data["batch_id"],
            data["created_at"],
            jobs,
            results,
            dict(data.get("failed_jobs", {})),
            data.get("total_cost_usd", 0.0),
        )


class StateManager:
    """A view of one run in the ledger; the file only names the run, so limits bind whatever becomes of it.

    Args:
        file: the path of the file.
        settings: where the ledger is; by default as the environment says.

    Raises:
        StorageError: the file cannot be read or written, or is no such file; so do all methods.
    """

    def __init__(self, file: str | Path, *, settings: Settings | None = None) -> None:
        self.file = Path(file)
        self._settings = settings or Settings()

    def save(self, state: BatchState) -> None:
        """Let the file name the run that sent the state's batch; without a batch, keep the jobs that are still to be sent."""
        if not state.batch_id:
            self._write({"state": state.to_dict()})
            return
        with self._ledger() as ledger:
            run = ledger.run_of_batch(state.batch_id)
        if run is None:
            message = f"batch_id: the ledger knows no batch {state.batch_id!r}; set BATCHATA_LEDGER_URL to the ledger that sent it."
            raise SpecError(message)
        self.name_run(run.id)

    def name_run(self, run_id: str) -> None:
        """Let the file name a run."""
        self._write({"run_id": run_id})

    def load(self) -> BatchState | None:
        """Return where the run stands; None where the file names none, or one that the ledger does not know."""
        kept = kept_in(self.file)
        if not kept:
            return None
        if "state" in kept:
            return self._state(kept)
        with self._ledger() as ledger:
            run = ledger.find_run(kept.get("run_id", ""))
            return None if run is None else _state_of(ledger, run)

    def jobs(self) -> list[Job]:
        """Return all jobs of the run that the file names; none where it names none."""
        kept = kept_in(self.file)
        if "state" in kept:
            return self._state(kept).pending_jobs
        with self._ledger() as ledger:
            run = ledger.find_run(kept.get("run_id", ""))
        return [] if run is None else stored_jobs(spec_of(run))

    def response_models(self) -> dict[str, dict[str, Any]]:
        """Return the response models of those jobs as JSON Schema, by the names that the run has for them."""
        with self._ledger() as ledger:
            run = ledger.find_run(kept_in(self.file).get("run_id", ""))
        return {} if run is None else spec_of(run).schemas

    def clear(self) -> None:
        """Delete the file.

        Raises:
            TerminalError: a batch of the run is open; it is paid for, and the file tells where it belongs.
        """
        kept = kept_in(self.file)
        with self._ledger() as ledger:
            chunks = ledger.chunks(kept.get("run_id", ""), UNFINISHED)
        if chunks:
            message = f"{self.file} names a run with {pluralize(len(chunks), 'open batch')}, to be paid for; run it to its end first."
            raise TerminalError(message)
        self.file.unlink(missing_ok=True)

    def check(self, jobs: Sequence[Job]) -> None:
        """Refuse a file that is no state file, and one that keeps other jobs than these, which are still to be sent.

        Raises:
            StorageError: it is no such file.
            SpecError: it keeps other jobs.
        """
        kept = kept_in(self.file)
        names = {job.id for job in jobs}
        if (
            jobs
            and "state" in kept
            and (others := [job for job in self._state(kept).pending_jobs if job.id not in names])
        ):
            kept_jobs = (
                f"state_file: {self.file} keeps {pluralize(len(others), 'other job')} to be sent"
            )
            message = f"{kept_jobs}; run a Batch without jobs on it first, or name another file."
            raise SpecError(message)

    def _state(self, kept: Mapping[str, Any]) -> BatchState:
        try:
            return BatchState.from_dict(kept["state"])
        except (SpecError, LookupError, TypeError, ValueError, AttributeError) as error:
            message = f"state_file: {self.file} is damaged; restore it from a copy, or remove it."
            raise StorageError(message) from error

    @contextmanager
    def _ledger(self) -> Generator[Ledger, None, None]:
        ledger = Ledger(self._settings.ledger_url)
        try:
            yield ledger
        finally:
            ledger.close()

    def _write(self, facts: dict[str, Any]) -> None:
        kept_in(self.file)
        make_folder(self.file.absolute().parent)
        write_json(self.file.absolute(), {"format": _FORMAT, **facts})


def kept_in(file: str | Path) -> dict[str, Any]:
    """Return what a state file says: nothing where it is empty, or not there.

    Raises:
        StorageError: it is some other file, which is not to be written over.
    """
    with storage_errors(f"reading {file}"):
        data = Path(file).read_bytes() if Path(file).exists() else b""
    if not data:
        return {}
    try:
        kept: object = json.loads(data)
    except ValueError:
        kept = None
    if as_dict(kept).get("format") != _FORMAT or not isinstance(
        as_dict(kept).get("run_id", ""), str
    ):
        message = f"state_file: {file} is something else than a state file of this version; name another one, or remove it."
        raise StorageError(message)
    return as_dict(kept)


def naming(
    plan: Callable[[str], dict[str, Any]], state: StateManager
) -> Callable[[str], dict[str, Any]]:
    """Return a plan step that writes the run's name to a state file first."""

    def named(run_id: str) -> dict[str, Any]:
        state.name_run(run_id)
        return plan(run_id)

    return named


def spec_of(run: RunRow) -> JobsSpec:
    """Return the spec of a run of jobs, as the ledger keeps it."""
    kept = json.loads(run.spec)["spec"]
    if kept.get("kind") != "jobs":
        message = (
            f"run {run.id} is one of the spec {run.name}, not of a Batch; see `batchata status`."
        )
        raise SpecError(message)
    return JobsSpec.model_validate(kept)


def _state_of(ledger: Ledger, run: RunRow) -> BatchState:
    spec = spec_of(run)
    results, batches = (
        landed_results(spec),
        [row.batch_id for row in ledger.stands(run.id) if row.batch_id],
    )
    failed = {name: result.error for name, result in results.items() if result.error is not None}
    return BatchState(
        batches[-1] if batches else "",
        datetime.fromtimestamp(run.started_at / 1e6, UTC).isoformat(),
        [job for job in stored_jobs(spec) if job.id not in results],
        {name: result for name, result in results.items() if result.is_success()},
        failed,
        math.fsum(result.cost_usd for result in results.values()),
    )
