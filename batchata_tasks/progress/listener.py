"""Progress for people: who is told what a run does, and progress as plain lines."""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Protocol

from batchata_tasks.common.text import duration, pluralize, printable
from batchata_tasks.progress.snapshot import Snapshot

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence

    from batchata_tasks.progress.snapshot import BatchView


class RunHandle(Protocol):
    """A running run, for others to look at and to stop."""

    def snapshot(self) -> Snapshot:
        """Return the state of the run."""
        ...

    def request_stop(self, reason: str) -> None:
        """Make the run send nothing more, whichever process works on it.

        For some reasons, it also cancels its open batches.
        """
        ...

    def abandon(self) -> None:
        """Leave the run as if this process had died: the next run carries on."""
        ...

    def give_back(self) -> None:
        """Leave the run and give its dataset back, in a process that ends at once.

        Raises:
            LedgerError: the ledger cannot be written to.
        """
        ...


class Progress(Protocol):
    """Listens to a run while it works; it is called from several threads.

    `receipt` is None until the run has ended by itself. `sent` says whether one of its batches was
    sent, or may have been. `handle` is that of the run which is followed, if there is one.
    """

    receipt: dict[str, Any] | None
    sent: bool
    handle: RunHandle | None

    def follow(self, handle: RunHandle | None) -> None:
        """Follow a run from now on, or, given None, stop: the run is about to end."""
        ...

    def look(self) -> Snapshot:
        """Return the state of the run, or the last one if it has ended."""
        ...

    def planning(self, rows: int) -> None:
        """Report how many source rows have been read."""
        ...

    def planned(self, requests: int, batches: int, up_to_date: int) -> None:
        """Report that the plan is made."""
        ...

    def chunk(self, number: int, rows: int, state: str) -> None:
        """Report a chunk's new state: sending, looked for, at the provider, landing, landed."""
        ...

    def waiting(self, batches: Callable[[], Sequence[BatchView]]) -> None:
        """Report, several times a second, that batches are waited for; `batches` reads which."""
        ...

    def note(self, text: str) -> None:
        """Report something worth a line."""
        ...

    def agreed(self, question: str) -> bool:
        """Ask whoever looks on, if somebody can be asked; whether to go on."""
        ...

    def close(self) -> None:
        """Restore the terminal."""
        ...


class ProgressBase:
    """Looks at a run while it works, from any thread."""

    def __init__(self) -> None:
        self.receipt: dict[str, Any] | None = None
        self.sent = False
        self.handle: RunHandle | None = None
        # asks a person; without it all is agreed
        self.ask: Callable[[str], bool] | None = None
        # how a note is put, for whoever reads it
        self.worded: Callable[[str], str] = str
        self._last = Snapshot()
        self._looking = threading.Lock()

    def follow(self, handle: RunHandle | None) -> None:
        """See Progress."""
        if handle is None:
            self.look()
        with self._looking:
            self.handle = handle

    def look(self) -> Snapshot:
        """See Progress."""
        with self._looking:
            if self.handle is not None:
                self._last = self.handle.snapshot()
            return self._last

    def waiting(self, batches: Callable[[], Sequence[BatchView]]) -> None:
        """See Progress. What is drawn shows open batches anyway."""

    def agreed(self, question: str) -> bool:
        """See Progress."""
        return self.ask is None or self.ask(question)


class LineProgress(ProgressBase):
    """Progress as plain lines, for logs and for output that is not a terminal.

    `every` and `waits_every` are the seconds between two lines of a plan that is made, and between
    two about batches that are waited for: they take hours, and a log without a line looks dead.
    """

    def __init__(
        self, write: Callable[[str], None], every: float = 5.0, waits_every: float = 600.0
    ) -> None:
        super().__init__()
        self._print, self._every, self._waits_every = write, every, waits_every
        self._written_at = self._waits_at = time.monotonic()

    def _write(self, text: str) -> None:
        self._print(printable(text))

    def planning(self, rows: int) -> None:
        """Write a line at most every few seconds."""
        if time.monotonic() - self._written_at >= self._every:
            self._written_at = time.monotonic()
            self._write(f"planning: {pluralize(rows, 'row')} read")

    def planned(self, requests: int, batches: int, up_to_date: int) -> None:
        """See Progress."""
        self._write(f"planned: {planned_words(requests, batches, up_to_date)}")

    def chunk(self, number: int, rows: int, state: str) -> None:
        """See Progress."""
        self.sent = True
        self._write(f"batch {number} ({pluralize(rows, 'row')}): {state}")

    def waiting(self, batches: Callable[[], Sequence[BatchView]]) -> None:
        """Write a line every ten minutes."""
        if time.monotonic() - self._waits_at >= self._waits_every:
            self._waits_at = time.monotonic()
            if awaited := batches():
                self._write(waiting_words(awaited, time.time()))

    def note(self, text: str) -> None:
        """See Progress."""
        self._write(self.worded(text))

    def close(self) -> None:
        """See Progress."""


def silent() -> LineProgress:
    """Return progress that writes nothing."""
    return LineProgress(lambda _text: None)


def planned_words(requests: int, batches: int, up_to_date: int) -> str:
    """Return the result of a plan in words."""
    work = f"{pluralize(requests, 'request')} in {pluralize(batches, 'batch')}"
    return f"{work}, {pluralize(up_to_date, 'row')} up to date"


def waiting_words(batches: Sequence[BatchView], now: float) -> str:
    """Return what is waited for in words; `now` is in seconds since 1970."""
    oldest = min(batches, key=lambda batch: now if batch.sent_at is None else batch.sent_at)
    age = 0.0 if oldest.sent_at is None else now - oldest.sent_at
    which = f"batch {oldest.batch_id:.100}, which"
    if len(batches) > 1:
        which = f"{len(batches):,} batches; the oldest, {oldest.batch_id:.100},"
    told = [] if oldest.status is None else [oldest.status]
    if oldest.done is not None:
        told.append(f"{oldest.done:,} of {oldest.jobs:,} done")
    facts = f": {', '.join(told)}" if told else ""
    return f"waiting for {which} has been at the provider for {duration(age)}{facts}"


# listens to the runs that this context starts; a flow's parameters cannot carry an object
_LISTENER: ContextVar[Progress | None] = ContextVar("batchata_progress", default=None)


def listener() -> Progress | None:
    """Return the listener to runs that are started here, if any."""
    return _LISTENER.get()


@contextmanager
def told_to(progress: Progress) -> Generator[None, None, None]:
    """Make `progress` the listener to runs that are started inside the block."""
    token = _LISTENER.set(progress)
    try:
        yield
    finally:
        _LISTENER.reset(token)
