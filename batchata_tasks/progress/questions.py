"""Questions to the person at a terminal, if there is one."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, TextIO

from batchata_tasks.common.text import printable

if TYPE_CHECKING:
    from rich.console import Console


def answered_yes(console: Console, question: str) -> bool:
    """Ask on a terminal; any other answer than yes means no. If nobody can answer, it is yes."""
    if not (is_interactive() and console.is_terminal):
        return True
    # not through the console, which would print again what Ctrl-C cut off
    console.file.write(f"{printable(question)} [y/N] ")
    console.file.flush()
    answer = sys.stdin.readline()
    if not answer.endswith("\n"):  # Ctrl-D: the cursor is still in that line
        console.print()
    return answer.strip().lower() in ("y", "yes")


def is_interactive() -> bool:
    """Whether a person can answer; services run with a closed standard input."""
    stdin: TextIO | None = sys.stdin  # None in a program without a console
    return stdin is not None and not stdin.closed and stdin.isatty()
