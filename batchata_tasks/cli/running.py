"""Running a spec for the command line: as a Prefect flow, or directly."""

from __future__ import annotations

import os
import signal
import threading
from contextlib import suppress
from importlib import import_module
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from batchata_tasks.cli import temporary_server
from batchata_tasks.cli.console import print_stopped, watched
from batchata_tasks.cli.interrupts import INTERRUPTED
from batchata_tasks.cli.server import seems_configured
from batchata_tasks.common.errors import BatchataError
from batchata_tasks.common.text import printable

if TYPE_CHECKING:
    from batchata_tasks.pipeline.runner import Runner
    from batchata_tasks.progress.listener import Progress
    from batchata_tasks.spec.enrichment import EnrichmentSpec

_STARTING = "starting Prefect, which takes seconds or up to a minute (--direct needs none)"
_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_SOON = 0.05  # seconds
_AT_MOST = 2.0  # seconds that Ctrl-C waits for the ledger
_BY_SIGNAL = 128  # of an exit code, which a shell has of a death by a signal


def _leave_at_signals(progress: Progress) -> None:
    """Let Ctrl-C, or a signal to terminate, end the process and Prefect's temporary server at once.

    Left alive, the server would keep the output open. Ctrl-C reaches it too, and a flow run without
    its server takes minutes to give up. Nothing is lost: the ledger and the dataset can cope with a
    kill at any moment.
    """

    def leave(number: int, _frame: object) -> None:
        if not temporary_server.kill():
            threading.Timer(_SOON, os.kill, (os.getpid(), number)).start()
            return
        for one in _SIGNALS:
            signal.signal(one, signal.SIG_IGN)  # it takes _AT_MOST until the end
        _end_at_last(number)
        try:
            progress.close()
            print_stopped(sent=progress.sent)
            _give_back(progress)
        finally:
            if number != signal.SIGINT:  # whoever sent it expects a death by it
                signal.signal(number, signal.SIG_DFL)
                os.kill(os.getpid(), number)
            os._exit(INTERRUPTED)

    for one in _SIGNALS:
        signal.signal(one, leave)


def _end_at_last(number: int) -> None:
    """End the process in some seconds, whatever becomes of it until then.

    What the signal interrupted may hold a lock that is needed to restore the terminal, and further
    signals are ignored.
    """
    code = INTERRUPTED if number == signal.SIGINT else _BY_SIGNAL + number
    last = threading.Timer(2 * _AT_MOST, os._exit, (code,))
    last.daemon = True
    last.start()


def _give_back(progress: Progress) -> None:
    """Give the run's dataset back, if that takes no long wait.

    Without it, the next start takes the dataset over from a process that was lost. It is done in a
    thread, since the one that the signal interrupted may hold a lock of the ledger.
    """
    if (handle := progress.handle) is None:
        return

    def give_back() -> None:
        with suppress(BatchataError):
            handle.give_back()

    thread = threading.Thread(target=give_back, name="give back", daemon=True)
    thread.start()
    thread.join(_AT_MOST)


def run_spec(
    spec: EnrichmentSpec,
    *,
    direct: bool,
    refresh: bool = False,
    retry_failed: bool = False,
    take_over: bool = False,
    asks: bool = False,
    given: str | None = None,
) -> dict[str, Any]:
    """Run a spec with progress on the terminal; return the receipt.

    If it `asks`, a person at a terminal has to agree to what costs much. `given` is how the spec
    was named on the command line.
    """
    from batchata_tasks.common.settings import Settings
    from batchata_tasks.pipeline.runner import DirectRunner
    from batchata_tasks.planning.prepare import prepare_run

    with watched(given, asks=asks) as progress:
        # bad input is reported at once, before Prefect takes its seconds
        ready = prepare_run(spec, Settings())
        runner = DirectRunner() if direct else _prefect(progress)
        receipt = runner.table(
            ready, progress, refresh=refresh, retry_failed=retry_failed, take_over=take_over
        )
        return receipt.to_json()


def _prefect(progress: Progress) -> Runner:
    from batchata_tasks.pipeline.runner import prefect_runner

    quiet_prefect()
    if not (seems := seems_configured()):
        progress.note(_STARTING)  # before the import, which takes a second of these
    if url := import_module("prefect.settings").get_current_settings().api.url:
        progress.note(f"a flow run on the Prefect server at {_address(url)} (--direct needs none)")
        return prefect_runner()
    if seems:  # in a profile that is not the active one, say
        progress.note(_STARTING)
    _leave_at_signals(progress)

    def begun() -> None:
        temporary_server.end_with_this_process()
        # again: Prefect's own handler would first report to a server that may be gone
        _leave_at_signals(progress)

    return prefect_runner(begun)


def _address(url: str) -> str:
    """Return a server's URL without user, password and path."""
    parts = urlsplit(url)
    return printable(f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}")


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
