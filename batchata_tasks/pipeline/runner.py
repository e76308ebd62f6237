"""Who runs: this process by itself, or Prefect. The one place that decides."""

from __future__ import annotations

import os
import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any, Protocol

from batchata_tasks.pipeline.enrich import run_prepared
from batchata_tasks.pipeline.start import refresh_mark
from batchata_tasks.pipeline.steps import Steps
from batchata_tasks.planning.summary import Options

if TYPE_CHECKING:
    from collections.abc import Callable

    from batchata_tasks.pipeline.receipt import Receipt
    from batchata_tasks.planning.prepare import PreparedRun
    from batchata_tasks.progress.listener import Progress
    from batchata_tasks.spec.jobs import JobsSpec

# imported by name: Prefect takes seconds to import, and is a layer above
_PREFECT = "batchata_tasks.flows.runner"


class Runner(Protocol):
    """Runs a spec to its end."""

    def table(
        self,
        ready: PreparedRun,
        progress: Progress,
        *,
        refresh: bool,
        retry_failed: bool,
        take_over: bool = False,
    ) -> Receipt:
        """Run an enrichment of a table."""
        ...

    def jobs(self, spec: JobsSpec, work: Callable[[Steps], Receipt]) -> Receipt:
        """Run a batch of Jobs: `work` does it, over the steps that it is given."""
        ...


class DirectRunner:
    """Runs in this process, without Prefect."""

    def table(
        self,
        ready: PreparedRun,
        progress: Progress,
        *,
        refresh: bool,
        retry_failed: bool,
        take_over: bool = False,
    ) -> Receipt:
        """See Runner."""
        options = Options(refresh_mark(refresh), retry_failed, take_over)
        if (kind := ready.settings.task_runner) != "thread":
            progress.note(
                f"BATCHATA_TASK_RUNNER={kind} is for flow runs: a direct run does all its work in "
                "its own process."
            )
        return run_prepared(ready, options, progress=progress)

    def jobs(self, spec: JobsSpec, work: Callable[[Steps], Receipt]) -> Receipt:
        """See Runner."""
        del spec
        return work(Steps())


def prefect_runner(begun: Callable[[], None] = lambda: None) -> Runner:
    """Return the runner that makes a flow run of a run; this imports Prefect.

    `begun` is called in each flow run of a table, once Prefect has set its signal handlers.
    """
    runner: Runner = import_module(_PREFECT).PrefectRunner(begun)
    return runner


def runner_of_jobs() -> Runner:
    """Return who runs Jobs: Prefect if it is in charge already, or a server of it is configured."""
    return prefect_runner() if in_flow() or os.environ.get("PREFECT_API_URL") else DirectRunner()


def in_flow() -> bool:
    """Whether this code runs inside of somebody's flow; Prefect is not imported to find out."""
    context: Any = sys.modules.get("prefect.context")
    return context is not None and context.FlowRunContext.get() is not None
