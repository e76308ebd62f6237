"""BatchRun: a run of a Batch, in a thread of its own, over the same pipeline as every other run."""

from __future__ import annotations

import threading
import time
from contextvars import copy_context
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, cast

from batchata_tasks.api.job_checks import CheckedJobs
from batchata_tasks.api.job_result import JobResult
from batchata_tasks.api.raw_files import with_raw_files
from batchata_tasks.api.result_files import ResultFiles, require_own_files
from batchata_tasks.api.results import ResultsById, held_jobs, landed_results, landed_table
from batchata_tasks.api.state import documents_of, naming, results_folder, state_of
from batchata_tasks.api.watch import Watch
from batchata_tasks.common.collector import collector_paused
from batchata_tasks.common.errors import SpecError
from batchata_tasks.common.html import pairs_html
from batchata_tasks.common.settings import Settings
from batchata_tasks.ledger import StopReason
from batchata_tasks.pipeline.enrich import run_prepared
from batchata_tasks.pipeline.runner import runner_of_jobs
from batchata_tasks.pipeline.start import refresh_mark
from batchata_tasks.planning.job_list import JobList
from batchata_tasks.planning.job_store import dataset_name, write_jobs
from batchata_tasks.planning.prepare import prepare_run
from batchata_tasks.planning.summary import Options
from batchata_tasks.reports.plan import preview

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import pandas as pd  # pyright: ignore[reportMissingTypeStubs]
    import pyarrow as pa

    from batchata_tasks.api.config import BatchParams
    from batchata_tasks.dataset.folder import DatasetFolder
    from batchata_tasks.pipeline.receipt import Receipt
    from batchata_tasks.pipeline.steps import Steps
    from batchata_tasks.planning.prepare import PreparedRun
    from batchata_tasks.progress.listener import Progress
    from batchata_tasks.reports.preview import Preview
    from batchata_tasks.spec.job import Job
    from batchata_tasks.spec.jobs import JobsSpec

    ProgressCallback = Callable[[dict[str, Any], float, dict[str, dict[str, Any]]], None]

_TICK = 0.2  # seconds; a main thread that only waits would not see Ctrl-C


class BatchRun:
    """A run of jobs: started once, watched, waited for.

    Attributes:
        config: how it runs.
        jobs: the jobs that it sends.
        receipt: what it did and cost, once it has ended; None before.
        plan: the plan of a dry run; None otherwise.
    """

    def __init__(
        self, config: BatchParams, jobs: Sequence[Job], *, checked: CheckedJobs | None = None
    ) -> None:
        self.config = config.model_copy(deep=True)
        # forms name response models as the checks of their own batch do
        self.jobs = JobList(jobs if checked is not None else list(jobs))
        self.receipt: Receipt | None = None
        self._rehearsal = False  # whether an emulator answers
        self._checked = checked or CheckedJobs()
        self._settings = Settings()
        # absolute: the program may change its working folder while the run goes on
        self._state = state_of(config, self._settings)
        self._spec: JobsSpec | None = None
        self.plan: Preview | None = None
        self._thread: threading.Thread | None = None
        # waited for instead of the thread: before Python 3.13, Ctrl-C within Thread.join takes a
        # thread that still works for one that has ended
        self._over = threading.Event()
        self._error: BaseException | None = None
        self._watch = Watch(self.config)
        self._began = self._ended = 0.0
        self._awaited = False  # else its error is printed, since nobody may ask for it

    def __repr__(self) -> str:
        facts = ", ".join(f"{name}={value}" for name, value in self._facts())
        return f"BatchRun({facts})"

    def _repr_html_(self) -> str:
        """Return what a notebook shows."""
        receipt = [] if self.receipt is None else self.receipt.lines()
        return pairs_html([*self._facts(), *receipt])

    def _facts(self) -> list[tuple[str, object]]:
        last, facts = self._watch.last, list[tuple[str, object]]()
        facts += [("results_dir", self.config.results_dir), ("state", self._state_name())]
        facts.append(("jobs", f"{len(self.jobs):,}"))
        if self._state_name() == "running":
            facts.append(("landed", f"{last.landed:,}"))
        if self.receipt is not None:
            facts += [("result", _result(self.receipt)), ("cost_usd", self.receipt.cost_usd)]
        return facts + ([] if self._error is None else [("error", self._error)])

    def set_on_progress(self, callback: ProgressCallback, interval: float = 1.0) -> Self:
        """Call `callback(stats, elapsed, batches)` each `interval` seconds, and once at the end.

        It is called in a thread of the run. An exception of it ends the calls, and the run goes on.
        At its end the run waits up to ten seconds for a callback to return.
        """
        self._watch.call(callback, interval)
        return self

    def show(self, enabled: bool) -> Self:
        """Show the run's progress: live on a terminal, in plain lines elsewhere."""
        self._watch.shown = enabled
        return self

    def start(self) -> None:
        """Begin in a thread.

        It is no daemon: a program that ends waits for it, unless `shutdown` is called.

        Raises:
            SpecError: the batch cannot be run; nothing was sent.
        """
        if self._thread is not None:
            message = "start: this run was started already; make another one with Batch.run."
            raise SpecError(message)
        # errors in the jobs are raised here, and not in the thread
        ready = prepare_run(self._written(), self._settings)
        self._rehearsal = ready.table.rehearsal
        self._began = time.monotonic()
        self._thread = threading.Thread(
            target=copy_context().run, args=(self._work, ready), name="batch"
        )
        self._watch.heed_interrupts(self._goes_on, self._over)
        self._thread.start()

    def dry(self) -> None:
        """Print what a run would send and cost; send nothing.

        Raises:
            SpecError: a run would refuse the jobs, in the same words.
        """
        self.plan = preview(self._written(), self._settings)
        self._watch.print_pairs(self.plan.lines())

    def _written(self) -> JobsSpec:
        """Write the jobs to the file from which runs read them; return the spec of such a run."""
        if self._spec is None:
            folder, config = self._folder(), self.config
            if not self.jobs:
                message = "jobs: there are none; add some with add_job."
                raise SpecError(message)
            seconds = config.time_limit_seconds
            with collector_paused():
                self._check_jobs()
                if config.result_files:
                    state = None if config.state_file is None else Path(config.state_file)
                    require_own_files(folder, self.jobs.ids(), state)
                self._spec = write_jobs(
                    folder,
                    self.jobs,
                    self._checked.schemas,
                    self._checked.digest_of,
                    name=dataset_name(folder),
                    max_parallel_batches=config.max_parallel_batches,
                    items_per_batch=config.items_per_batch,
                    cost_limit_usd=config.cost_limit_usd,
                    time_limit=None if seconds is None else f"{max(seconds, 0.001):.3f}s",
                    credentials=config.credentials,
                    raw_files=config.raw_files,
                )
        return self._spec

    def _folder(self) -> DatasetFolder:
        """Return the folder of the results.

        If there are no jobs, take those of the state file, with the limits of its run.
        """
        if self._state is not None:
            self._state.check(self.jobs)
        folder = results_folder(self.config, self._state)
        if self._state is None:
            return folder
        if not self.jobs and self.config.reuse_state:
            self.jobs = JobList(self._state.jobs(folder))
            stored = documents_of(self._state, self._settings, folder)
            if stored is not None:
                self._checked = CheckedJobs(stored.digest_of, reads_documents=False)
            self._checked.schemas.adopt(self._state.response_models())
            self._state.complete(self.config)
        return folder

    def _check_jobs(self) -> None:
        """Check every job that was not checked as it is now.

        Some may not have come by way of `add_job`, or have changed since then, and a limit may have
        been set later.
        """
        limited, ids = self.config.cost_limit_usd is not None, set[str]()
        for job in self.jobs.checked_for_all():
            self._checked.check(job, limited=limited)
        for job_id in self.jobs.ids():
            if job_id in ids:
                message = f"job {job_id!r:.80}: there are two of this id; ids must be unique."
                raise SpecError(message)
            ids.add(job_id)

    def _work(self, ready: PreparedRun) -> None:
        spec = cast("JobsSpec", ready.spec)
        try:
            with self._watch as progress:
                self.receipt = runner_of_jobs().jobs(spec, partial(self._run, ready, progress))
        except BaseException as error:  # noqa: BLE001 - `wait` raises it
            self._error = error
            if not self._awaited:
                self._watch.report(f"The batch stopped: {error}")
        finally:
            self._ended = time.monotonic()
            self._over.set()
            self._watch.heed_no_more()

    def _run(self, ready: PreparedRun, progress: Progress, steps: Steps) -> Receipt:
        if self._state is not None:
            steps = replace(steps, plan=naming(steps.plan, self._state))
        if self.config.raw_files:
            steps = replace(steps, collect=with_raw_files(steps.collect))
        files = ResultFiles(cast("JobsSpec", ready.spec), rehearsal=self._rehearsal)
        if self.config.result_files:
            steps = replace(steps, collect=files.with_files(steps.collect))
        options = Options(refresh_mark(not self.config.reuse_state), self.config.retry_failed)
        receipt = run_prepared(ready, options, steps, progress)
        if self.config.result_files:
            files.complete()
        return receipt

    @property
    def done(self) -> bool:
        """Whether it has ended, well or not."""
        ended = self._over.is_set()
        if ended:
            self._watch.heed_no_more()  # which the run's own thread cannot do in full
        return ended

    def wait(self, timeout: float | None = None) -> None:
        """Wait until it has ended.

        In the main thread, Ctrl-C asks whether to cancel the provider's batches and land what ran.
        A second one leaves at once, and the next run carries on.

        Raises:
            TimeoutError: it has not ended after `timeout` seconds; it goes on.
            BatchataError: something stopped it; the next run carries on.
        """
        if self._watch.calls:
            reason = "a progress callback cannot wait for its own run, which waits for the callback"
            message = f"wait: {reason}; return from it."
            raise SpecError(message)
        self._awaited = True
        if self._thread is None:
            self.start()
        until = None if timeout is None else time.monotonic() + timeout
        while not self._joined(until):
            message = f"the run has not ended after {timeout} seconds; it goes on."
            raise TimeoutError(message)
        self._watch.heed_no_more()
        if self._error is not None:
            raise self._error

    def _joined(self, until: float | None) -> bool:
        """Wait for the run's end; return whether it came in time."""
        cancelled = False
        while not self._over.is_set() and (until is None or time.monotonic() < until):
            tick = _TICK if until is None else min(_TICK, max(until - time.monotonic(), 0))
            try:
                self._over.wait(tick)
            except KeyboardInterrupt:
                if cancelled or not self._watch.cancels(self._goes_on):
                    self._watch.leave(self._goes_on)
                    self._over.wait()
                    self._watch.heed_no_more()
                    raise
                cancelled = True
        return self._over.is_set()

    def _goes_on(self) -> bool:
        return not self._over.is_set()

    def status(self, print_status: bool = False) -> dict[str, Any]:
        """Return the run's state, and the numbers that progress callbacks get.

        Once it has ended, `held` tells how many of the jobs pending are held, and `result` is
        "some rows are held" if none failed; `cost_usd` is None if all that was sent is held.
        """
        status: dict[str, Any] = {
            "state": self._state_name(),
            "total_jobs": len(self.jobs),
            **self._watch.last.stats(),
            "elapsed": self.elapsed,
        }
        if self.receipt is not None:
            status |= {
                "result": _result(self.receipt),
                "exit_code": self.receipt.exit_code,
                "held": self.receipt.held_rows,
            }
            if status["reserved_usd"] and not status["landed"]:
                status["cost_usd"] = None  # nobody knows yet what its batches cost
            if self.receipt.reason is not None:
                status["reason"] = self.receipt.reason
        if self._error is not None:
            status["error"] = str(self._error)
        if print_status:
            self._watch.print_status(status)
        return status

    def _state_name(self) -> str:
        if self._thread is None:
            return "planned"
        if not self.done:
            return "running"
        return "ended" if self._error is None else "failed"

    @property
    def elapsed(self) -> float:
        """Seconds from its start until its end, or until now."""
        return 0.0 if not self._began else (self._ended or time.monotonic()) - self._began

    def results(self) -> dict[str, JobResult]:
        """Return the results of the jobs by their ids.

        While the run goes on, these are the ones that landed. Once it has ended there is a result
        for each job: one that was not sent, or is held (its batch did not end, or nobody knows
        whether it was accepted), says so in its error; that of a held one names what decides.
        """
        landed = landed_results(self._written(), rehearsal=self._rehearsal)
        if not self.done:
            return ResultsById(landed)
        if self.receipt is not None:
            reason = self.receipt.reason or self.receipt.result_in_words
        else:
            reason = f"the run stopped: {self._error}"
        held = dict[str, str]()
        if self.receipt is not None and self.receipt.held_rows:
            held = held_jobs(self._written(), self._settings)
        by_id = {
            job_id: landed.get(job_id)
            or JobResult(
                job_id,
                error=held.get(job_id, f"not sent: {reason}"),
                cost_usd=float("nan") if job_id in held else 0.0,
            )
            for job_id in self.jobs.ids()
        }
        return ResultsById(by_id)

    def to_arrow(self) -> pa.Table:
        """Return the rows of its jobs in the dataset as an Arrow table, in the jobs' order.

        It has the dataset's columns, also if no row has landed yet. (Rows of more than 2 GB stay in
        the order in which they landed.)
        """
        spec = self._written()
        return landed_table(spec, self.jobs.ids())

    def to_pandas(self) -> pd.DataFrame:
        """Return the rows of its jobs as a pandas frame."""
        return self.to_arrow().to_pandas()

    def shutdown(self, wait_for_active: bool = True) -> None:
        """Send nothing more; wait for open batches and land them, or leave them to the next run.

        It returns once the run has ended, or at once if a progress callback calls it.
        """
        if self._thread is None or self.done:
            return
        if wait_for_active:
            self._watch.stop(StopReason.SHUTDOWN, self._goes_on)
        else:
            self._watch.leave(self._goes_on)
        if not self._watch.calls:
            self._over.wait()
            self._watch.heed_no_more()


def _result(receipt: Receipt) -> str:
    """Return how a run ended, by its name; in words if none failed, and some are held."""
    words = receipt.result_in_words
    return receipt.result if words == receipt.result.replace("_", " ") else words
