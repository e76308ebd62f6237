"""The live display of a run: its progress, its cost, its open batches and its failures."""

from __future__ import annotations

import sys
import threading
import time
from typing import TYPE_CHECKING, Any, Self

from rich.console import Console
from rich.text import Text

from batchata_tasks.common.errors import LedgerError
from batchata_tasks.common.text import clock, pluralize, printable
from batchata_tasks.progress.layout import failed, run_lines, sentence, summary
from batchata_tasks.progress.listener import ProgressBase, planned_words
from batchata_tasks.progress.questions import is_interactive
from batchata_tasks.progress.snapshot import Snapshot
from batchata_tasks.progress.terminal import Region, can_draw

if TYPE_CHECKING:
    from collections.abc import Mapping

_PULL_SECONDS = 0.5  # between two looks at the ledger
_LINE_SECONDS = 5.0  # between two plain lines
_YES = ("", "y", "yes")


class RichBatchProgressDisplay:
    """Shows a run at the foot of a terminal, from the arguments of progress callbacks.

    Pass `update_progress` to `Batch.run(on_progress=…)` as it is. Outside of a terminal (in a pipe
    or a notebook, with TERM=dumb or NO_COLOR), it prints a line if something has changed, at most
    every five seconds. So does a second display of the process, above the first.

    Args:
        console: where it is shown; default: standard error.
        transient: leave nothing on the screen at the end; default: leave the run's last state.
    """

    def __init__(self, console: Console | None = None, *, transient: bool = False) -> None:
        self._console = console or Console(stderr=True)
        self._transient = transient
        self._region = Region(self._console, self._lines)
        self._stats: dict[str, Any] = {}
        self._batches: list[Mapping[str, Any]] = []
        self._elapsed, self._updated_at = 0.0, time.monotonic()
        self._showing = False
        self._printed: str = ""
        self._printed_at = time.monotonic()

    def start_progress(self) -> None:
        """Start showing; `finish_progress`, or the end of the program, restores the terminal."""
        self._showing = True
        self._printed_at = time.monotonic()
        if can_draw(self._console):
            self._region.start()

    def update_progress(
        self,
        stats: Mapping[str, Any],
        elapsed_time: float,
        batch_data: Mapping[str, Mapping[str, Any]],
    ) -> None:
        """Show the current state of the run.

        Args:
            stats: the run's numbers, as progress callbacks get them.
            elapsed_time: seconds since its start; the display counts on until the next update.
            batch_data: its batches by id, as progress callbacks get them.
        """
        self._stats, self._batches = dict(stats), list(batch_data.values())
        self._elapsed, self._updated_at = elapsed_time, time.monotonic()
        is_due = self._updated_at - self._printed_at >= _LINE_SECONDS
        if self._showing and not self._region.live and is_due:
            self._print_state()

    def finish_progress(self) -> None:
        """Stop showing, and leave the last state on the screen; a second call does nothing."""
        if not self._showing:
            return
        self._showing = False
        drawn = self._region.live
        self._region.stop()
        if self._transient or not self._stats:
            return
        if not drawn:
            self._print_state()
            return
        width = self._console.size.width - 1
        lines = summary(self._stats, self._elapsed, self._batches, width, time.time())
        for line in [*lines, *failed(self._stats, width)]:
            line.truncate(width, overflow="ellipsis")
            self._region.print(line)

    def handle_cancellation(self) -> bool:
        """Ask once whether to cancel the open batches, print what happens next, return the answer.

        Ctrl-C and Ctrl-D as the answer leave the batches running. If nobody can be asked, or there
        is nothing to cancel, the answer is yes.
        """
        opened = sum(one["state"] in ("unclear", "submitted") for one in self._batches)
        if not opened:
            self._print_note("Nothing is at the provider; the run stops.")
            return True
        batches = pluralize(opened, "open batch")
        self._region.hold()
        can_ask = is_interactive() and self._console.is_terminal
        cancels = not can_ask or self._ask(f"Cancel the {batches} and land what ran? [Y/n] ")
        if cancels:
            self._region.release()
            self._print_note(
                f"Cancelling {batches}; what ran is landed. "
                "Ctrl-C again leaves at once, and the next run lands the rest."
            )
        else:
            self._showing = False
            self._region.stop()
            self._region.release()
            self._print_note(
                f"Leaving; {batches} will go on at the provider, to be landed by the next run."
            )
        return cancels

    def _ask(self, question: str) -> bool:
        try:
            # not through the console, which would print again what Ctrl-C cut off
            self._console.file.write(question)
            self._console.file.flush()
            answer = sys.stdin.readline()
        except KeyboardInterrupt:
            answer = ""
        if not answer.endswith("\n"):  # Ctrl-C or Ctrl-D: the cursor is still in that line
            self._console.print()
            return False
        return answer.strip().lower() in _YES

    def _print_note(self, text: str) -> None:
        self._region.print(Text(printable(text), style="yellow"))

    def _lines(self, width: int, height: int) -> list[Text]:
        elapsed = self._elapsed + time.monotonic() - self._updated_at
        return run_lines(self._stats, elapsed, self._batches, (width, height), time.time())

    def _print_state(self) -> None:
        """Print a plain line, if it says anything new."""
        text: str = sentence(self._stats, self._batches) if self._stats.get("total") else ""
        if text not in ("", self._printed):
            self._printed, self._printed_at = text, time.monotonic()
            self._region.print(Text(f"{clock(self._elapsed)}  {text}"))


class LiveProgress(RichBatchProgressDisplay, ProgressBase):
    """The display of a run in this process: it reads the ledger, and prints notes above."""

    def __init__(self, console: Console, *, transient: bool = False) -> None:
        RichBatchProgressDisplay.__init__(self, console, transient=transient)
        ProgressBase.__init__(self)
        self._doing: str | None = None
        self._began = time.monotonic()
        self._closed = threading.Event()

    def __enter__(self) -> Self:
        self._push(Snapshot())
        self.start_progress()
        threading.Thread(target=self._pulls, name="looks", daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """See Progress. Signal handlers call it: it takes no lock that reading a ledger holds."""
        self._closed.set()
        self._push(self._last)
        self.finish_progress()

    def _pulls(self) -> None:
        while not self._closed.wait(_PULL_SECONDS):
            try:
                self._push(self.look())
            except LedgerError:  # a busy database; the last state stays on the screen
                continue

    def _push(self, snapshot: Snapshot) -> None:
        stats = snapshot.stats() | {"doing": self._doing}
        self.update_progress(stats, time.monotonic() - self._began, snapshot.batch_data())

    def planning(self, rows: int) -> None:
        """See Progress."""
        self._doing = f"planning: {pluralize(rows, 'row')} read"

    def planned(self, requests: int, batches: int, up_to_date: int) -> None:
        """See Progress."""
        self._doing = planned_words(requests, batches, up_to_date)

    def chunk(self, number: int, rows: int, state: str) -> None:
        """See Progress."""
        self.sent = True
        self._doing = f"batch {number} ({pluralize(rows, 'row')}): {state}"

    def note(self, text: str) -> None:
        """See Progress."""
        self._print_note(self.worded(text))

    def agreed(self, question: str) -> bool:
        """See Progress. Nothing is drawn while the answer is typed."""
        if self.ask is None:
            return True
        self._region.hold()
        try:
            return self.ask(question)
        finally:
            self._region.release()
