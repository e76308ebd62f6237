"""StateManager: a file that names a run of jobs, and the ledger's view of that run."""

from __future__ import annotations

import json
import math
import os
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from batchata_tasks.api.job_result import JobResult
from batchata_tasks.api.results import landed_results, stored_jobs
from batchata_tasks.common.errors import (
    SpecError,
    StorageError,
    TerminalError,
    WrongLedgerError,
)
from batchata_tasks.common.files import make_folder, storage_errors, write_json
from batchata_tasks.common.json import as_dict
from batchata_tasks.common.settings import Settings
from batchata_tasks.common.text import pluralize
from batchata_tasks.dataset.folder import DatasetFolder
from batchata_tasks.execution.held_dataset import find_dataset
from batchata_tasks.ledger import UNFINISHED, ChunkState, opened_ledger
from batchata_tasks.planning.job_documents import StoredDocuments
from batchata_tasks.planning.job_store import moved_to, require_whole
from batchata_tasks.spec.job import Job
from batchata_tasks.spec.jobs import JobsSpec

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from contextlib import AbstractContextManager

    from batchata_tasks.api.config import BatchParams
    from batchata_tasks.execution.run_ref import RunRef
    from batchata_tasks.ledger import Ledger, RunRow

_FORMAT = 1
# the parameters that the ledger keeps of a run
_OF_RUNS = {
    "max_parallel_batches",
    "items_per_batch",
    "cost_limit_usd",
    "time_limit_seconds",
    "credentials",
    "raw_files",
}


@dataclass(frozen=True)
class BatchState:
    """The state of a run of jobs.

    `batch_id` is the newest batch, empty if none was sent; `created_at` is in ISO 8601; results and
    failures are by job id; `total_cost_usd` is the cost of the jobs in all runs, in US dollars.
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
    """A view of one run in the ledger.

    The file only names the run, so limits bind whatever becomes of it.

    Args:
        file: the path of the file.
        settings: where the ledger is; by default, the environment says.

    Raises:
        StorageError: the file cannot be read or written, or is no state file. All methods raise it.
    """

    def __init__(self, file: str | Path, *, settings: Settings | None = None) -> None:
        self.file = Path(file)
        self._settings = settings or Settings()

    def save(self, state: BatchState) -> None:
        """Let the file name the run that sent the state's batch.

        Without a batch, it keeps the jobs that are still to be sent.
        """
        if not state.batch_id:
            self._write({"state": state.to_dict()})
            return
        with self._ledger() as ledger:
            run = ledger.run_of_batch(state.batch_id)
        if run is None:
            unknown = f"batch_id: the ledger knows no batch {state.batch_id!r}"
            message = f"{unknown}; set BATCHATA_LEDGER_URL to the ledger that sent it."
            raise SpecError(message)
        self.name_run(run.id)

    def name_run(self, run_id: str) -> None:
        """Let the file name a run."""
        self._write({"run_id": run_id})

    def load(self) -> BatchState | None:
        """Return the state of the run; None if the file names none that the ledger has."""
        content = read_state_file(self.file)
        if not content:
            return None
        if "state" in content:
            return self._state(content)
        with self._ledger() as ledger:
            run = ledger.find_run(content.get("run_id", ""))
            if run is None:
                return None
            return _state_of(ledger, run, self._spec_in(_home(ledger, run), run))

    def folder(self, results: DatasetFolder, *, chosen: bool = True) -> DatasetFolder:
        """Return the folder in which the results of the next run lie.

        It is `results`, unless the file names a run of another dataset: that one's batches would be
        forgotten, and paid for again. Then it is the folder of that dataset.

        Raises:
            SpecError: `results` was `chosen`, and is another dataset's folder; or the folder of the
                run's dataset has another one in it by now.
        """
        run_id = read_state_file(self.file).get("run_id")
        if not run_id:
            return results
        if chosen:
            results.check()
        with self._ledger() as ledger:
            run = ledger.find_run(run_id)
            if run is None or find_dataset(results, ledger) == run.dataset_id:
                return results
            spec_of(run)  # it refuses the run of a table: its dataset is no place for jobs
            home = _home(ledger, run)
            is_there = find_dataset(home, ledger) == run.dataset_id
        if not is_there:
            message = (
                f"state_file: {self.file} names a run whose dataset is no longer in {home.root}; "
                "set results_dir to the folder where it is now, or name another state file."
            )
            raise SpecError(message)
        if chosen:
            message = (
                f"state_file: {self.file} names a run with its results in {home.root}, but the "
                f"results_dir of this Batch is {results.root}; set results_dir to the former, "
                "or name another state file."
            )
            raise SpecError(message)
        return home

    def jobs(self, folder: DatasetFolder | None = None) -> list[Job]:
        """Return all jobs of the run that the file names, or none if it names no run.

        `folder` is the one of the run's dataset; by default, the ledger says where that is.

        Raises:
            WrongLedgerError: the ledger does not have the run.
            SpecError: the jobs are gone.
        """
        content = read_state_file(self.file)
        if "state" in content:
            return self._state(content).pending_jobs
        if not content.get("run_id"):
            return []
        with self._ledger() as ledger:
            run = ledger.find_run(content["run_id"])
            if run is None:
                lost = "RESULTS_DIR" if folder is None else folder.word
                message = (
                    f"state_file: {self.file} names a run that the ledger {ledger.place} does not "
                    "have; set BATCHATA_LEDGER_URL to the ledger that has it, or, if that is lost, "
                    f"run `batchata status {lost} --rebuild`."
                )
                raise WrongLedgerError(message)
            return stored_jobs(self._spec_in(folder or _home(ledger, run), run))

    def complete(self, config: BatchParams) -> None:
        """Set what was not chosen in `config` as in the run that the file names, its limits first.

        Else what carries a run on by the file alone would spend without its limit.
        """
        with self._ledger() as ledger:
            run = ledger.find_run(read_state_file(self.file).get("run_id", ""))
        if run is None:
            return
        spec = spec_of(run)
        for name in _OF_RUNS - config.model_fields_set:
            setattr(config, name, getattr(spec, name))

    def response_models(self) -> dict[str, dict[str, Any]]:
        """Return the response models of those jobs as JSON Schema, by the run's names of them."""
        with self._ledger() as ledger:
            run = ledger.find_run(read_state_file(self.file).get("run_id", ""))
        return {} if run is None else spec_of(run).schemas

    def _spec_in(self, folder: DatasetFolder, run: RunRow) -> JobsSpec:
        """Return the spec of a run whose dataset is in this folder, wherever it was before."""
        spec = moved_to(folder, spec_of(run))
        if not Path(spec.jobs).exists():
            message = (
                f"state_file: {self.file} names a run whose jobs are missing: there is no file "
                f"{spec.jobs}; restore it from a copy, set results_dir to the folder where the "
                "dataset is now, or add the same jobs with add_job."
            )
            raise SpecError(message)
        require_whole(Path(spec.jobs))
        return spec

    def clear(self) -> None:
        """Delete the file.

        Raises:
            TerminalError: a batch of the run is open; it is paid for, and the file names its run.
        """
        content = read_state_file(self.file)
        with self._ledger() as ledger:
            chunks = ledger.chunks(content.get("run_id", ""), (*UNFINISHED, ChunkState.OVERDUE))
        if chunks:
            batches = pluralize(len(chunks), "open batch")
            message = (
                f"{self.file} names a run with {batches}, to be paid for; run it to its end first."
            )
            raise TerminalError(message)
        self._target().unlink(missing_ok=True)

    def check(self, jobs: Sequence[Job]) -> None:
        """Refuse a file that keeps jobs to be sent, if there are others than these among them.

        Raises:
            StorageError: it is no state file.
            SpecError: it keeps other jobs.
        """
        content = read_state_file(self.file)
        if not jobs or "state" not in content:
            return
        names = {job.id for job in jobs}
        others = [job for job in self._state(content).pending_jobs if job.id not in names]
        if others:
            number = pluralize(len(others), "other job")
            message = (
                f"state_file: {self.file} keeps {number} to be sent; "
                "run a Batch without jobs on it first, or name another file."
            )
            raise SpecError(message)

    def _state(self, content: Mapping[str, Any]) -> BatchState:
        try:
            return BatchState.from_dict(content["state"])
        except (SpecError, LookupError, TypeError, ValueError, AttributeError) as error:
            message = f"state_file: {self.file} is damaged; restore it from a copy, or remove it."
            raise StorageError(message) from error

    def _ledger(self) -> AbstractContextManager[Ledger]:
        return opened_ledger(self._settings.ledger_url)

    def _write(self, facts: dict[str, Any]) -> None:
        read_state_file(self.file)  # it refuses a file of another kind
        target = self._target()
        make_folder(target.parent)
        write_json(target, {"format": _FORMAT, **facts})

    def _target(self) -> Path:
        """Return the path of the file itself: a link to it is to stay one."""
        return Path(os.path.realpath(self.file))


def state_of(config: BatchParams, settings: Settings | None = None) -> StateManager | None:
    """Return the state file that a batch was given, by its absolute path."""
    if config.state_file is None:
        return None
    return StateManager(Path(config.state_file).absolute(), settings=settings)


def results_folder(config: BatchParams, state: StateManager | None) -> DatasetFolder:
    """Return the folder in which the results of a batch lie; see StateManager.folder."""
    folder = DatasetFolder(config.results_dir)
    if state is None:
        return folder
    return state.folder(folder, chosen="results_dir" in config.model_fields_set)


def documents_of(
    state: StateManager, settings: Settings, folder: DatasetFolder
) -> StoredDocuments | None:
    """Return the documents of a state file's jobs as they were stored; None if none are."""
    with opened_ledger(settings.ledger_url) as ledger:
        run = ledger.find_run(read_state_file(state.file).get("run_id", ""))
    if run is None:
        return None
    file = Path(moved_to(folder, spec_of(run)).jobs)
    return StoredDocuments(lambda: [file])


def read_state_file(file: str | Path) -> dict[str, Any]:
    """Return the content of a state file: nothing if it is empty or missing.

    Raises:
        StorageError: it is a file of another kind, which must not be overwritten.
    """
    with storage_errors(f"reading {file}"):
        data = Path(file).read_bytes() if Path(file).exists() else b""
    if not data:
        return {}
    try:
        content = as_dict(json.loads(data))
    except ValueError:
        content = {}
    if content.get("format") != _FORMAT or not isinstance(content.get("run_id", ""), str):
        message = (
            f"state_file: {file} is something else than a state file of this version; "
            "name another one, or remove it."
        )
        raise StorageError(message)
    return content


def naming(
    plan: Callable[[RunRef], dict[str, Any]], state: StateManager
) -> Callable[[RunRef], dict[str, Any]]:
    """Return a plan step that writes the run's name to a state file first.

    It raises SpecError if the file names a run of another dataset by now.
    """

    def named(ref: RunRef) -> dict[str, Any]:
        state.folder(DatasetFolder(ref.output))
        state.name_run(ref.run_id)
        return plan(ref)

    return named


def spec_of(run: RunRow) -> JobsSpec:
    """Return the spec of a run of jobs, as the ledger keeps it."""
    stored = json.loads(run.spec)["spec"]
    if stored.get("kind") != "jobs":
        message = (
            f"run {run.id} is one of the spec {run.name}, not of a Batch; see `batchata status`."
        )
        raise SpecError(message)
    return JobsSpec.model_validate(stored)


def _home(ledger: Ledger, run: RunRow) -> DatasetFolder:
    """Return the folder of a run's dataset: where it was last used."""
    url = ledger.dataset_url(run.dataset_id)
    return DatasetFolder(spec_of(run).output) if url is None else DatasetFolder.at_url(url)


def _state_of(ledger: Ledger, run: RunRow, spec: JobsSpec) -> BatchState:
    results = landed_results(spec, rehearsal=bool(run.rehearsal))
    batches = [row.batch_id for row in ledger.batch_chunks(run.id) if row.batch_id]
    failed = {name: result.error for name, result in results.items() if result.error is not None}
    return BatchState(
        batch_id=batches[-1] if batches else "",
        created_at=datetime.fromtimestamp(run.started_at / 1e6, UTC).isoformat(),
        pending_jobs=[job for job in stored_jobs(spec) if job.id not in results],
        completed_results={name: one for name, one in results.items() if one.is_success()},
        failed_jobs=failed,
        total_cost_usd=math.fsum(result.cost_usd for result in results.values()),
    )
