"""The entry point of `batchata`: little is imported before it can handle Ctrl-C."""

from __future__ import annotations

import ctypes
import os
import platform
import sys
from contextlib import suppress
from io import TextIOWrapper

from batchata_tasks.cli.interrupts import leave_at_ctrl_c
from batchata_tasks.common.text import NEAREST

_M_ARENA_MAX = -8  # of mallopt(3)
_DEFAULTS = ("strict", "surrogateescape", "backslashreplace")


def main() -> None:
    """Run the command line."""
    leave_at_ctrl_c()
    _write_anywhere()
    _keep_memory_small()
    from batchata_tasks.cli.commands import app

    app()


def _keep_memory_small() -> None:
    """Let what rows took while they streamed through be used again: 100 MB of a run's peak.

    Arrow's own allocator keeps what was freed, and glibc gives each thread memory of its own.
    """
    os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")
    if platform.libc_ver()[0] == "glibc" and "MALLOC_ARENA_MAX" not in os.environ:
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 1)


def _write_anywhere() -> None:
    """Let the standard streams replace what their encoding lacks, also in texts of libraries."""
    for stream in (sys.stdout, sys.stderr):
        # None in a program without a console; another errors handler was asked for
        if isinstance(stream, TextIOWrapper) and stream.errors in _DEFAULTS:
            with suppress(OSError):  # some streams cannot be changed any more
                stream.reconfigure(errors=NEAREST)


if __name__ == "__main__":
    main()
