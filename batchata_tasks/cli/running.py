"""Running a spec for the command line: as a Prefect flow, or directly."""

from __future__ import annotations

import os
import signal
from importlib import import_module
from typing import TYPE_CHECKING, Any

from batchata_tasks.cli.console import INTERRUPTED, print_stopped, watched

if TYPE_CHECKING:
    from batchata_tasks.pipeline.runner import Runner
    from batchata_tasks.progress.listener import Progress
    from batchata_tasks.spec.enrichment import EnrichmentSpec


def _leave_at_ctrl_c(progress: Progress) -> None:
    """Let Ctrl-C end the process at once, for runs on Prefect's temporary server.

    Ctrl-C reaches that server too, and a flow run without its server takes minutes to give up.
    Nothing is lost: the ledger and the dataset can cope with a kill at any moment.
    """

    def leave(_number: int, _frame: object) -> None:
        progress.close()
        print_stopped(sent=progress.sent)
        os._exit(INTERRUPTED)

    signal.signal(signal.SIGINT, leave)


def run_spec(
    spec: EnrichmentSpec, *, direct: bool, refresh: bool = False, retry_failed: bool = False
) -> dict[str, Any]:
    """Run a spec with progress on the terminal; return the receipt."""
    from batchata_tasks.common.settings import Settings
    from batchata_tasks.pipeline.runner import DirectRunner
    from batchata_tasks.planning.prepare import prepare_run

    with watched() as progress:
        # bad input is reported at once, before Prefect takes its seconds
        ready = prepare_run(spec, Settings())
        runner = DirectRunner() if direct else _prefect(progress)
        return runner.table(ready, progress, refresh=refresh, retry_failed=retry_failed).to_json()


def _prefect(progress: Progress) -> Runner:
    from batchata_tasks.pipeline.runner import prefect_runner

    quiet_prefect()
    progress.note("starting Prefect")
    runner = prefect_runner()
    settings = import_module("prefect.settings")
    if not (os.environ.get("PREFECT_API_URL") or settings.get_current_settings().api.url):
        _leave_at_ctrl_c(progress)
    return runner


def quiet_prefect() -> None:
    """Set Prefect's defaults for a command, before its import; the user's own settings win.

    If no server is configured, Prefect starts a temporary one; services that one run does not need
    would only make it slow to start.
    """
    defaults = {
        "PREFECT_LOGGING_LEVEL": "CRITICAL",  # errors become one sentence, without tracebacks
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",  # avoids a notice about tracking in the middle of a run's display
        "PREFECT_SERVER_SERVICES_SCHEDULER_ENABLED": "false",
        "PREFECT_SERVER_SERVICES_LATE_RUNS_ENABLED": "false",
        "PREFECT_SERVER_SERVICES_TRIGGERS_ENABLED": "false",
    }
    for name, value in defaults.items():
        os.environ.setdefault(name, value)
