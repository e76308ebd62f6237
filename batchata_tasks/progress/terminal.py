"""The foot of a terminal: lines that are redrawn there, below everything that is printed."""

from __future__ import annotations

import atexit
import os
import sys
import threading
from typing import TYPE_CHECKING, ClassVar, TextIO, cast

from rich.console import RenderHook
from rich.control import Control
from rich.file_proxy import FileProxy
from rich.segment import ControlType
from rich.text import Text

from batchata_tasks.common.errors import StorageError
from batchata_tasks.progress.output import print_on

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from rich.console import Console, ConsoleRenderable

_SECONDS = 0.5  # between two drawings


def can_draw(console: Console) -> bool:
    """Whether lines can be redrawn.

    They cannot in a pipe, a log or a notebook, with TERM=dumb or NO_COLOR, or without UTF-8.
    """
    if console.is_dumb_terminal or console.no_color or not console.encoding.startswith("utf"):
        return False
    # a log that takes colours is not a terminal
    forced = bool(os.environ.get("FORCE_COLOR")) and not console.file.isatty()
    return console.is_interactive and not forced


class Region(RenderHook):
    """Lines at the foot of a terminal. A process shows one region; a second one does not start.

    rich's own Live assumes that lines are still as they were drawn. If a terminal was made
    narrower, it has wrapped them, and Live leaves parts of them on the screen.
    """

    _current: ClassVar[Region | None] = None
    _current_lock: ClassVar[threading.Lock] = threading.Lock()

    def __init__(self, console: Console, lines: Callable[[int, int], Sequence[Text]]) -> None:
        self.console = console
        self.live = False
        self._lines = lines  # returns the lines for a width and a height
        self._held = False  # while the user is asked something
        self._held_back = list[Text]()  # is printed after the answer
        self._drawn = list[Text]()
        self._lock = threading.RLock()
        self._over = threading.Event()
        self._streams: dict[str, TextIO] = {}

    def start(self) -> bool:
        """Draw from now on; return False if another region of this process is drawn."""
        with Region._current_lock:
            if Region._current not in (None, self):
                return False
            Region._current = self
        with self._lock:
            if self.live:
                return True
            self.live, self._over = True, threading.Event()
            try:
                self._show()
            except BaseException:
                self.stop()  # or no other region of this process could start
                raise
        return True

    def _show(self) -> None:
        atexit.register(self.stop)
        self.console.push_render_hook(self)
        self._redirect()
        self.console.show_cursor(show=False)
        self.draw()
        redraw = threading.Thread(
            target=self._redraw, args=(self._over,), name="display", daemon=True
        )
        redraw.start()

    def _redraw(self, over: threading.Event) -> None:
        while not over.wait(_SECONDS):
            self.draw()

    def draw(self) -> None:
        """Draw the lines in place of the last ones."""
        self._output(Control())  # the hook adds the rest

    def print(self, text: Text) -> None:
        """Print above the lines; while the user is asked something, print after the answer."""
        region = Region._current or self
        with region._lock:  # noqa: SLF001 - of another object of this class
            if region._held:  # noqa: SLF001 - its own class
                region._held_back.append(text)  # noqa: SLF001 - its own class
            else:
                region._output(text)  # noqa: SLF001 - its own class

    def _output(self, what: Control | Text) -> None:
        with self._lock:
            try:
                if not self.live:
                    print_on(self.console, what)
                elif not (self._held and isinstance(what, Control)):
                    self.console.print(what)
            except (OSError, StorageError):  # the terminal is gone; the run goes on
                self._over.set()

    def process_renderables(self, renderables: list[ConsoleRenderable]) -> list[ConsoleRenderable]:
        """Replace the lines by what is printed, and add them below it; rich calls this."""
        with self._lock:
            if not self.live or self._held:
                return renderables
            width, height = self.console.size
            erase = self._erase()
            # a full line would put the cursor on the next one
            longest, most = max(width - 1, 1), max(height - 1, 1)
            self._drawn = [line.copy() for line in self._lines(width - 1, height - 1)][:most]
            for place, line in enumerate(self._drawn, 1):
                line.truncate(longest, overflow="ellipsis")
                line.no_wrap = True
                line.end = "\n" if place < len(self._drawn) else ""
            return [erase, *renderables, *self._drawn]

    def _erase(self) -> Control:
        """Return the control that erases the lines, which the terminal may have wrapped since."""
        width = max(self.console.size.width, 1)
        rows = sum(max(-(-line.cell_len // width), 1) for line in self._drawn)
        up = ((ControlType.CURSOR_UP, 1), (ControlType.ERASE_IN_LINE, 2)) * max(rows - 1, 0)
        return Control(ControlType.CARRIAGE_RETURN, (ControlType.ERASE_IN_LINE, 2), *up)

    def hold(self) -> None:
        """Erase the lines, and hold back all printing, while the user is asked something."""
        with self._lock:
            if self.live:
                self._wipe()
            self._held = True

    def release(self) -> None:
        """Print everything that was held back, and draw again."""
        with self._lock:
            self._held = False
            held_back, self._held_back = self._held_back, []
            for text in held_back:
                self._output(text)
            if self.live:
                self.console.show_cursor(show=False)
                self.draw()

    def stop(self) -> None:
        """Restore the terminal."""
        with self._lock:
            self._over.set()
            if not self.live:
                return
            if not self._held:
                self._wipe()
            self.live = False
            self.console.pop_render_hook()
            for name, stream in self._streams.items():
                setattr(sys, name, stream)
            self._streams = {}
        atexit.unregister(self.stop)
        with Region._current_lock:
            Region._current = None

    def _wipe(self) -> None:
        try:
            self.console.control(self._erase())
            self.console.show_cursor(show=True)
        except (OSError, ValueError):  # the terminal is gone, or its stream is closed
            pass
        self._drawn = []

    def _redirect(self) -> None:
        """Make everything that the program prints appear above; streams to files are left alone."""
        for name in ("stdout", "stderr"):
            stream: TextIO = getattr(sys, name)
            if not isinstance(stream, FileProxy) and stream.isatty():
                self._streams[name] = stream
                setattr(sys, name, cast("TextIO", FileProxy(self.console, stream)))
