"""The foot of a terminal: lines that are drawn over and over, below what is printed meanwhile."""

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

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from rich.console import Console, ConsoleRenderable

_SECONDS = 0.5  # between two drawings


def can_draw(console: Console) -> bool:
    """Whether lines can be drawn over: not in a pipe, a log or a notebook, not with TERM=dumb or NO_COLOR, and in UTF-8 alone."""
    forced = (
        bool(os.environ.get("FORCE_COLOR")) and not console.file.isatty()
    )  # a log that takes colours is no terminal
    able = (
        console.is_interactive
        and not console.is_dumb_terminal
        and console.encoding.startswith("utf")
    )
    return able and not console.no_color and not forced


class Region(RenderHook):
    """Lines at the foot of a terminal; there is one in a process, and a second one is not started.

    rich's own Live takes lines to be as they were drawn. A terminal that was made narrower has wrapped them,
    and what it then leaves behind stays on the screen.
    """

    _current: ClassVar[Region | None] = None
    _choice: ClassVar[threading.Lock] = threading.Lock()

    def __init__(self, console: Console, picture: Callable[[int, int], Sequence[Text]]) -> None:
        self.console, self._picture = console, picture
        self.live = False
        self._held = False  # somebody is asked something
        self._kept = list[Text]()  # printed once that has been answered
        self._drawn = list[Text]()
        self._lock = threading.RLock()
        self._over = threading.Event()
        self._streams: dict[str, TextIO] = {}

    def start(self) -> bool:
        """Draw from here on; False where another region of this process does."""
        with Region._choice:
            if Region._current not in (None, self):
                return False
            Region._current = self
        with self._lock:
            if self.live:
                return True
            self.live, self._over = True, threading.Event()
            atexit.register(self.stop)
            self._redirect()
            self.console.push_render_hook(self)
            self.console.show_cursor(show=False)
            self.draw()
            threading.Thread(
                target=self._draws, args=(self._over,), name="display", daemon=True
            ).start()
        return True

    def _draws(self, over: threading.Event) -> None:
        while not over.wait(_SECONDS):
            self.draw()

    def draw(self) -> None:
        """Draw the picture anew, in place of the last one."""
        self._output(Control())  # the hook adds the rest

    def print(self, text: Text) -> None:
        """Print above the lines; while somebody is asked something, after the answer."""
        region = Region._current or self
        with region._lock:  # noqa: SLF001 - another one of this class
            if region._held:  # noqa: SLF001
                region._kept.append(text)  # noqa: SLF001
            else:
                region._output(text)  # noqa: SLF001

    def _output(self, what: Control | Text) -> None:
        with self._lock:
            try:
                if self.live and self._held and isinstance(what, Control):
                    return
                self.console.print(what, soft_wrap=not self.live)
            except OSError:  # the terminal is gone; the run goes on
                self._over.set()

    def process_renderables(self, renderables: list[ConsoleRenderable]) -> list[ConsoleRenderable]:
        """Put what is printed in place of the picture, and the picture below it; rich calls this."""
        with self._lock:
            if not self.live or self._held:
                return renderables
            width, height = self.console.size
            erase = self._erase()
            self._drawn = [line.copy() for line in self._picture(width - 1, height - 1)][
                : max(height - 1, 1)
            ]
            for place, line in enumerate(self._drawn, 1):
                line.truncate(
                    max(width - 1, 1), overflow="ellipsis"
                )  # a full line would put the cursor on the next one
                line.no_wrap, line.end = True, "\n" if place < len(self._drawn) else ""
            return [erase, *renderables, *self._drawn]

    def _erase(self) -> Control:
        """Return what wipes the picture, as the terminal may have wrapped it since."""
        width = max(self.console.size.width, 1)
        rows = sum(max(-(-line.cell_len // width), 1) for line in self._drawn)
        up = ((ControlType.CURSOR_UP, 1), (ControlType.ERASE_IN_LINE, 2)) * max(rows - 1, 0)
        return Control(ControlType.CARRIAGE_RETURN, (ControlType.ERASE_IN_LINE, 2), *up)

    def hold(self) -> None:
        """Wipe the lines, and keep back what is to be printed, while somebody is asked something."""
        with self._lock:
            if self.live:
                self._wipe()
            self._held = True

    def release(self) -> None:
        """Print what was kept back, and draw again."""
        with self._lock:
            self._held = False
            kept, self._kept = self._kept, []
            for text in kept:
                self._output(text)
            if self.live:
                self.console.show_cursor(show=False)
                self.draw()

    def stop(self) -> None:
        """Leave the terminal as it was found."""
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
        with Region._choice:
            Region._current = None

    def _wipe(self) -> None:
        try:
            self.console.control(self._erase())
            self.console.show_cursor(show=True)
        except OSError:  # the terminal is gone
            pass
        self._drawn = []

    def _redirect(self) -> None:
        """Let what a program prints meanwhile appear above; a stream that goes to a file stays there."""
        for name in ("stdout", "stderr"):
            stream: TextIO = getattr(sys, name)
            if not isinstance(stream, FileProxy) and stream.isatty():
                self._streams[name] = stream
                setattr(sys, name, cast("TextIO", FileProxy(self.console, stream)))
