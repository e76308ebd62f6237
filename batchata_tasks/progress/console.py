"""Selects how progress is shown: drawn on a terminal, as lines elsewhere."""

from __future__ import annotations

from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

from rich.text import Text

from batchata_tasks.progress.listener import LineProgress
from batchata_tasks.progress.output import print_on
from batchata_tasks.progress.questions import answered_yes

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from rich.console import Console

    from batchata_tasks.progress.display import LiveProgress


@contextmanager
def for_console(
    console: Console,
    *,
    transient: bool = True,
    asks: bool = False,
    worded: Callable[[str], str] = str,
) -> Generator[LineProgress | LiveProgress, None, None]:
    """Yield a live display on a terminal, plain lines elsewhere.

    A display that is not `transient` leaves the run's last state on the screen. If it `asks`,
    questions are put to the person at the terminal, if there is one. Notes are `worded` for them.
    """
    # what draws takes long to import
    from batchata_tasks.progress.display import LiveProgress  # noqa: PLC0415 - slow
    from batchata_tasks.progress.terminal import can_draw  # noqa: PLC0415 - slow

    def write(text: str) -> None:
        print_on(console, Text(text))

    if can_draw(console):
        with LiveProgress(console, transient=transient) as display:
            display.worded = worded
            display.ask = partial(answered_yes, console) if asks else None
            yield display
    else:
        lines = LineProgress(write)
        lines.worded = worded
        lines.ask = partial(answered_yes, console) if asks else None
        yield lines
