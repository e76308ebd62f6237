"""The live display of a run: how far it is, what it costs, what is open and what failed."""

from __future__ import annotations

import sys
import threading
import time
from typing import TYPE_CHECKING, Any, Self

from rich.console import Console
from rich.text import Text

from batchata_tasks.common.errors import LedgerError
from batchata_tasks.common.text import clock, pluralize, printable
from batchata_tasks.progress.layout import failed, picture, sentence, summary
from batchata_tasks.progress.listener import ProgressBase, planned_words
from batchata_tasks.progress.snapshot import Snapshot
from batchata_tasks.progress.terminal import Region, can_draw

if TYPE_CHECKING:
    from collections.abc import Mapping

_PULL = 0.5  # seconds between two looks at the ledger
_LINES = 5.0  # seconds between two plain lines
_YES = ("", "y", "yes")


class RichBatchProgressDisplay:
    """Shows a run at the foot of a terminal, from what progress callbacks get.

    Hand `update_progress` to `Batch.run(on_progress=…)` as it is. Elsewhere than on a terminal (a pipe, a notebook,
    TERM=dumb, NO_COLOR), it prints a line when something has changed, every five seconds at most. So does a second display of
    a process, above the first.

    Args:
        console: where it is shown; default: standard error.
        transient: leave nothing on the screen at the end; default: how the run ended stays.
    """

    def __init__(self, console: Console | None = None, *, transient: bool = False) -> None:
        self._console = console or Console(stderr=True)
        self._transient = transient
        self._region = Region(self._console, self._lines)
        self._stats: dict[str, Any] = {}
        self._batches: list[Mapping[str, Any]] = []
        self._elapsed, self._at = 0.0, time.monotonic()
        self._showing = False
        self._told: str = ""
        self._told_at = time.monotonic()

    def start_progress(self) -> None:
        """Begin to show; the terminal is left as it was found by `finish_progress`, and at the program's end."""
        self._showing = True
        self._told_at = time.monotonic()
        if can_draw(self._console):
            self._region.start()

    def update_progress(
        self,
        stats: Mapping[str, Any],
        elapsed_time: float,
        batch_data: Mapping[str, Mapping[str, Any]],
    ) -> None:
        """Show where the run stands now.

        Args:
            stats: the run's numbers, as progress callbacks get them.
            elapsed_time: seconds since its start; counted on until the next update.
            batch_data: its batches by id, as progress callbacks get them.
        """
        self._stats, self._batches = dict(stats), list(batch_data.values())
        self._elapsed, self._at = elapsed_time, time.monotonic()
        if self._showing and not self._region.live and self._at - self._told_at >= _LINES:
            self._tell()

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
            self._tell()
            return
        width = self._console.size.width - 1
        for line in [
            *summary(self._stats, self._elapsed, self._batches, width, time.time()),
            *failed(self._stats, width),
        ]:
            line.truncate(width, overflow="ellipsis")
            self._region.print(line)

    def handle_cancellation(self) -> bool:
        """Ask once whether to cancel the open batches, and tell what happens next; return whether to cancel.

        Ctrl-C and Ctrl-D as the answer leave them as they are. Without a person to ask, or anything to cancel, it is yes.
        """
        opened = sum(one["state"] in ("unclear", "submitted") for one in self._batches)
        if not opened:
            self._say("Nothing is at the provider; the run stops.")
            return True
        batches = pluralize(opened, "open batch")
        self._region.hold()
        cancels = not (_from_a_person() and self._console.is_terminal) or self._answer(
            f"Cancel the {batches} and land what ran? [Y/n] "
        )
        if cancels:
            self._region.release()
            self._say(
                f"Cancelling {batches}; what ran is landed. Ctrl-C again leaves at once, and the next run lands the rest."
            )
        else:
            self._showing = False
            self._region.stop()
            self._region.release()
            self._say(
                f"Leaving; {batches} will go on at the provider, and the next run lands them."
            )
        return cancels

    def _answer(self, question: str) -> bool:
        try:
            # past the console, which would print again what Ctrl-C cut off
            self._console.file.write(question)
            self._console.file.flush()
            answer = sys.stdin.readline()
        except KeyboardInterrupt:
            answer = ""
        if not answer.endswith(
            "\n"
        ):  # Ctrl-C or Ctrl-D: the cursor is still in the question's line
            self._console.print()
            return False
        return answer.strip().lower() in _YES

    def _say(self, text: str) -> None:
        self._region.print(Text(printable(text), style="yellow"))

    def _lines(self, width: int, height: int) -> list[Text]:
        elapsed = self._elapsed + time.monotonic() - self._at
        return picture(self._stats, elapsed, self._batches, (width, height), time.time())

    def _tell(self) -> None:
        """Print a plain line, if it says anything new."""
        text: str = sentence(self._stats, self._batches) if self._stats.get("total") else ""
        if text not in ("", self._told):
            self._told, self._told_at = text, time.monotonic()
            self._region.print(Text(f"{clock(self._elapsed)}  {text}"))


def _from_a_person() -> bool:
    """Whether somebody can answer; services run with a standard input that is closed."""
    return sys.stdin is not None and not sys.stdin.closed and sys.stdin.isatty()  # pyright: ignore[reportUnnecessaryComparison]


class LiveProgress(RichBatchProgressDisplay, ProgressBase):
    """The display of a run of this process: it looks at the ledger by itself, and prints notes above."""

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
        """See Progress. Called by signal handlers, too, so it takes no lock that a look at the ledger holds."""
        self._closed.set()
        self._push(self._last)
        self.finish_progress()

    def _pulls(self) -> None:
        while not self._closed.wait(_PULL):
            try:
                self._push(self.look())
            except LedgerError:  # a busy database; what is known stays on the screen
                continue

    def _push(self, found: Snapshot) -> None:
        self.update_progress(
            found.stats() | {"doing": self._doing},
            time.monotonic() - self._began,
            found.batch_data(),
        )

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
        self._say(text)
