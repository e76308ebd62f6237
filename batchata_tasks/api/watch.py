"""Watching a run of jobs from outside of its thread: callbacks, displays, requests to stop."""

from __future__ import annotations

import signal
import sys
import threading
import time
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.text import Text

from batchata_tasks.common.text import printable
from batchata_tasks.ledger import StopReason
from batchata_tasks.progress.console import for_console
from batchata_tasks.progress.display import RichBatchProgressDisplay
from batchata_tasks.progress.listener import LineProgress, silent
from batchata_tasks.progress.output import print_on, write_text
from batchata_tasks.reports.printing import aligned

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType, TracebackType

    from batchata_tasks.api.config import BatchParams
    from batchata_tasks.progress.display import LiveProgress
    from batchata_tasks.progress.listener import Progress, RunHandle
    from batchata_tasks.progress.snapshot import Snapshot

_MOMENT = 0.05
_PATIENCE = 10.0  # seconds
_LEVELS = ("debug", "info", "warning", "error")


class Watch:
    """Follows one run while it works."""

    def __init__(self, config: BatchParams) -> None:
        self.shown = False
        self._progress: LineProgress | LiveProgress = silent()
        self._level = _LEVELS.index(config.verbosity_level)
        self._callback: (
            Callable[[dict[str, Any], float, dict[str, dict[str, Any]]], None] | None
        ) = None
        self._interval = 1.0
        self._over = threading.Event()
        self._began = time.monotonic()
        self._stack = ExitStack()
        self._caller: threading.Thread | None = None

    def call(
        self,
        callback: Callable[[dict[str, Any], float, dict[str, dict[str, Any]]], None],
        interval: float,
    ) -> None:
        """Call back each `interval` seconds."""
        self._callback, self._interval = callback, interval

    def __enter__(self) -> Progress:
        self._began = time.monotonic()
        console = Console(stderr=True)
        if self.shown:
            self._progress = self._stack.enter_context(for_console(console, transient=False))
        elif self._level == 0:
            self._progress = LineProgress(lambda text: print_on(console, Text(text), wraps=True))
        if self._callback is not None:
            self._caller = threading.Thread(target=self._calls, name="progress", daemon=True)
            self._caller.start()
        return self._progress

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._over.set()
        if self._caller is not None:
            self._caller.join(_PATIENCE)  # a callback that takes longer does not delay the end
        self._stack.close()

    @property
    def calls(self) -> bool:
        """Whether this is called by a progress callback."""
        return threading.current_thread() is self._caller

    @property
    def last(self) -> Snapshot:
        """The newest snapshot of the run."""
        return self._progress.look()

    def _calls(self) -> None:
        while not self._over.wait(self._interval):
            self._call()
        self._call()

    def _call(self) -> None:
        if self._callback is not None:
            snapshot, elapsed = self.last, time.monotonic() - self._began
            self._callback(snapshot.stats(), elapsed, snapshot.batch_data())

    def stop(self, reason: str, alive: Callable[[], bool]) -> None:
        """Ask the run to send nothing more, as soon as it can be asked."""
        if (handle := self._awaited(alive)) is not None:
            handle.request_stop(reason)

    def leave(self, alive: Callable[[], bool]) -> None:
        """Let the run end at once; open batches go on at the provider."""
        if (handle := self._awaited(alive)) is not None:
            handle.abandon()

    def _awaited(self, alive: Callable[[], bool]) -> RunHandle | None:
        while self._progress.handle is None and alive() and not self._over.is_set():
            time.sleep(_MOMENT)
        return self._progress.handle

    def cancels(self, alive: Callable[[], bool]) -> bool:
        """Ask whether to cancel open batches; if so, let the run do it, and return True.

        If there is nobody to ask, the answer is yes. Ctrl-C means no.
        """
        try:
            if self._asks_to_cancel():
                self.stop(StopReason.CANCEL, alive)
                return True
        except KeyboardInterrupt:
            pass
        return False

    def _asks_to_cancel(self) -> bool:
        if isinstance(self._progress, RichBatchProgressDisplay):
            return self._progress.handle_cancellation()
        display = RichBatchProgressDisplay()
        snapshot, elapsed = self.last, time.monotonic() - self._began
        display.update_progress(snapshot.stats(), elapsed, snapshot.batch_data())
        return display.handle_cancellation()

    def heed_interrupts(self, alive: Callable[[], bool], over: threading.Event) -> None:
        """Handle Ctrl-C after the main thread has ended: leave the run, then exit with SIGINT.

        Python raises no KeyboardInterrupt once a program's own code has ended: the run would be
        dropped where it stands, and the program would end as if all were well.
        """
        if threading.current_thread() is not threading.main_thread():
            return
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            signal.signal(signal.SIGINT, _interrupted)
        if signal.getsignal(signal.SIGINT) is _interrupted:
            _LEAVING[self] = alive, over

    def heed_no_more(self) -> None:
        """Forget the run; after the last one, restore Ctrl-C.

        Only the main thread may do that, so other threads leave it as it is.
        """
        _LEAVING.pop(self, None)
        in_main_thread = threading.current_thread() is threading.main_thread()
        restorable = in_main_thread and not _LEAVING
        if restorable and signal.getsignal(signal.SIGINT) is _interrupted:
            signal.signal(signal.SIGINT, signal.default_int_handler)

    def report(self, text: str) -> None:
        """Print a line for people, outside of any display."""
        with suppress(OSError):
            write_text(sys.stderr, f"{printable(text)}\n")

    def print_pairs(self, pairs: list[tuple[str, str]]) -> None:
        """Print (label, value) pairs, such as a plan."""
        write_text(sys.stdout, aligned(pairs))

    def print_status(self, status: dict[str, Any]) -> None:
        """Print a run's status for people."""
        cost = "unknown" if status["cost_usd"] is None else f"${status['cost_usd']:.4f}"
        limit = "" if status["cost_limit_usd"] is None else f" of ${status['cost_limit_usd']:.2f}"
        succeeded, failed = f"{status['completed']:,} succeeded", f"{status['failed']:,} failed"
        jobs = f"{succeeded}, {failed}, {status['pending']:,} pending"
        if held := status.get("held"):
            jobs += f", {held:,} held (results() says why)"
        if before := status["up_to_date"]:
            jobs += f", {before:,} answered before"
        time_taken = f"{status['elapsed']:.0f} s"
        write_text(sys.stdout, f"{status['state']}: {jobs}; {cost}{limit}; {time_taken}\n")


_LEAVING: dict[Watch, tuple[Callable[[], bool], threading.Event]] = {}
"""The runs of this process that Ctrl-C leaves: whether each is alive, and the event of its end."""


def _interrupted(number: int, frame: FrameType | None) -> None:
    """Handle SIGINT: by default while the main thread runs; after that, leave the runs and exit."""
    live = [(watch, alive, over) for watch, (alive, over) in list(_LEAVING.items()) if alive()]
    if threading.main_thread().is_alive() or not live:
        signal.default_int_handler(number, frame)
    for watch, alive, _ in live:
        watch.leave(alive)
    until = time.monotonic() + _PATIENCE
    for _, _, over in live:
        over.wait(max(until - time.monotonic(), 0))
    signal.signal(number, signal.SIG_DFL)
    signal.raise_signal(number)
