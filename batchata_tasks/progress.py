"""Progress for people: what a run does, as it does it, on a terminal or line by line."""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Protocol, Self

from rich.console import Console, Group
from rich.live import Live
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from batchata_tasks.snapshot import Snapshot, snapshot

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from rich.console import RenderableType

    from batchata_tasks.session import Session


class Progress(Protocol):
    """What a run tells while it works; called from several threads.

    `receipt` is None until the run has ended by itself; `sent` says whether a batch of it went out, or may have.
    """

    receipt: dict[str, Any] | None
    sent: bool

    def follow(self, session: Session | None) -> None:
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


class Follower:
    """Looks at a run while it works, from whatever thread."""

    def __init__(self) -> None:
        self.receipt: dict[str, Any] | None = None
        self.sent = False
        self.session: Session | None = None
        self._last = Snapshot()
        self._looking = threading.Lock()

    def follow(self, session: Session | None) -> None:
        """See Progress."""
        if session is None:
            self.look()
        with self._looking:
            self.session = session

    def look(self) -> Snapshot:
        """See Progress."""
        with self._looking:
            if self.session is not None:
                self._last = snapshot(self.session)
            return self._last


class Lines(Follower):
    """Progress as plain lines, for logs and for output that is not a terminal."""

    def __init__(self, write: Callable[[str], None], every: float = 5.0) -> None:
        super().__init__()
        self._write, self._every, self._told_at = write, every, time.monotonic()

    def planning(self, rows: int) -> None:
        """Tell at most every few seconds."""
        if time.monotonic() - self._told_at >= self._every:
            self._told_at = time.monotonic()
            self._write(f"planning: {counted(rows, 'row')} read")

    def planned(self, requests: int, batches: int, up_to_date: int) -> None:
        """See Progress."""
        self._write(f"planned: {_planned(requests, batches, up_to_date)}")

    def chunk(self, number: int, rows: int, state: str) -> None:
        """See Progress."""
        self.sent = True
        self._write(f"batch {number} ({counted(rows, 'row')}): {state}")

    def note(self, text: str) -> None:
        """See Progress."""
        self._write(text)

    def close(self) -> None:
        """See Progress."""


def silent() -> Lines:
    """Return progress that tells nothing."""
    return Lines(lambda _text: None)


class Terminal(Follower):
    """Progress as a live display: one line for the plan, one per batch that is open."""

    def __init__(self, console: Console) -> None:
        super().__init__()
        self._lock = threading.Lock()
        self._head = "planning"
        self._chunks: dict[int, tuple[int, str, float]] = {}
        self._landed = self._landed_rows = 0
        self._started = time.monotonic()
        self._spinner = Spinner("dots")
        self._live = Live(console=console, get_renderable=self._picture, refresh_per_second=8, transient=True)

    def __enter__(self) -> Self:
        self._live.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """See Progress."""
        self._live.stop()

    def planning(self, rows: int) -> None:
        """See Progress."""
        self._head = f"planning: {counted(rows, 'row')} read"

    def planned(self, requests: int, batches: int, up_to_date: int) -> None:
        """See Progress."""
        self._head = _planned(requests, batches, up_to_date)

    def chunk(self, number: int, rows: int, state: str) -> None:
        """See Progress."""
        self.sent = True
        with self._lock:
            if state == "landed":
                self._chunks.pop(number, None)
                self._landed += 1
                self._landed_rows += rows
            else:
                self._chunks[number] = (rows, state, time.monotonic())

    def note(self, text: str) -> None:
        """See Progress."""
        self._live.console.print(Text(text, style="yellow"))

    def _picture(self) -> RenderableType:
        now = time.monotonic()
        table = Table.grid(padding=(0, 2))
        with self._lock:
            for number, (rows, state, since) in sorted(self._chunks.items()):
                table.add_row("", f"batch {number}", counted(rows, "row"), state, _clock(now - since))
            landed = f", {counted(self._landed, 'batch')} landed with {counted(self._landed_rows, 'row')}" if self._landed else ""
        self._spinner.update(text=Text(f"{self._head}{landed}  {_clock(now - self._started)}"))
        return Group(self._spinner, table)


def counted(number: int, one: str, many: str | None = None) -> str:
    """Return a number with its noun, or with what else depends on it: 1 batch, 2 batches; 1 row is held, 2 rows are held."""
    return f"{number:,} {one if number == 1 else many or one + ('es' if one.endswith('h') else 's')}"


def _planned(requests: int, batches: int, up_to_date: int) -> str:
    return f"{counted(requests, 'request')} in {counted(batches, 'batch')}, {counted(up_to_date, 'row')} up to date"


def _clock(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


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


@contextmanager
def for_console(console: Console) -> Generator[Lines | Terminal, None, None]:
    """Yield a live display on a terminal, plain lines elsewhere."""
    if console.is_terminal:
        with Terminal(console) as display:
            yield display
    else:
        yield Lines(lambda text: console.print(text, highlight=False, markup=False, soft_wrap=True))
