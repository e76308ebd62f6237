"""Progress for people: what a run does, as it does it, on a terminal or line by line."""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Protocol

from batchata_tasks.common.text import pluralize
from batchata_tasks.progress.snapshot import Snapshot

if TYPE_CHECKING:
    from collections.abc import Callable, Generator


class RunHandle(Protocol):
    """What others may do with a run that is under way: look at it, and stop it."""

    def snapshot(self) -> Snapshot:
        """Return where the run stands."""
        ...

    def request_stop(self, reason: str) -> None:
        """Have the run send nothing more, for whatever process works on it; with some reasons it cancels what is open."""
        ...

    def abandon(self) -> None:
        """Leave the run as if this process had died: the next run carries on."""
        ...


class Progress(Protocol):
    """What a run tells while it works; called from several threads.

    `receipt` is None until the run has ended by itself; `sent` says whether a batch of it went out, or may have.
    """

    receipt: dict[str, Any] | None
    sent: bool

    def follow(self, handle: RunHandle | None) -> None:
        """Look at a run from here on; None: it is about to end."""
        ...

    def look(self) -> Snapshot:
        """Return where the run stands; after its end, where it stood then."""
        ...

    def planning(self, rows: int) -> None:
        """So many source rows were read."""
        ...

    def planned(self, requests: int, batches: int, up_to_date: int) -> None:
        """Tell that the plan stands."""
        ...

    def chunk(self, number: int, rows: int, state: str) -> None:
        """Tell that a chunk entered a state: sending, looked for, at the provider, landing, landed."""
        ...

    def note(self, text: str) -> None:
        """Something worth a line happened."""
        ...

    def close(self) -> None:
        """Leave the terminal as it was found."""
        ...


class ProgressBase:
    """Looks at a run while it works, from whatever thread."""

    def __init__(self) -> None:
        self.receipt: dict[str, Any] | None = None
        self.sent = False
        self.handle: RunHandle | None = None
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


class LineProgress(ProgressBase):
    """Progress as plain lines, for logs and for output that is not a terminal."""

    def __init__(self, write: Callable[[str], None], every: float = 5.0) -> None:
        super().__init__()
        self._write, self._every, self._told_at = write, every, time.monotonic()

    def planning(self, rows: int) -> None:
        """Tell at most every few seconds."""
        if time.monotonic() - self._told_at >= self._every:
            self._told_at = time.monotonic()
            self._write(f"planning: {pluralize(rows, 'row')} read")

    def planned(self, requests: int, batches: int, up_to_date: int) -> None:
        """See Progress."""
        self._write(f"planned: {planned_words(requests, batches, up_to_date)}")

    def chunk(self, number: int, rows: int, state: str) -> None:
        """See Progress."""
        self.sent = True
        self._write(f"batch {number} ({pluralize(rows, 'row')}): {state}")

    def note(self, text: str) -> None:
        """See Progress."""
        self._write(text)

    def close(self) -> None:
        """See Progress."""


def silent() -> LineProgress:
    """Return progress that tells nothing."""
    return LineProgress(lambda _text: None)


def planned_words(requests: int, batches: int, up_to_date: int) -> str:
    """Return what a plan found."""
    return f"{pluralize(requests, 'request')} in {pluralize(batches, 'batch')}, {pluralize(up_to_date, 'row')} up to date"


# who listens to the runs that this context starts; a flow's parameters cannot carry an object
_LISTENER: ContextVar[Progress | None] = ContextVar("batchata_progress", default=None)


def listener() -> Progress | None:
    """Return who asked to be told, if anybody did."""
    return _LISTENER.get()


@contextmanager
def told_to(progress: Progress) -> Generator[None, None, None]:
    """Tell `progress` of the runs that are started inside."""
    token = _LISTENER.set(progress)
    try:
        yield
    finally:
        _LISTENER.reset(token)
