"""The entry point of `batchata`: little is imported before it can handle Ctrl-C."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from io import TextIOWrapper

from batchata_tasks.cli.interrupts import leave_at_ctrl_c
from batchata_tasks.common.text import NEAREST

_DEFAULTS = ("strict", "surrogateescape", "backslashreplace")


def main() -> None:
    """Run the command line."""
    leave_at_ctrl_c()
    _write_anywhere()
    # Arrow's own allocator keeps what was freed: tens of megabytes, while rows stream through
    os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")
    from batchata_tasks.cli.commands import app

    app()


def _write_anywhere() -> None:
    """Let the standard streams replace what their encoding lacks, also in texts of libraries."""
    for stream in (sys.stdout, sys.stderr):
        # None in a program without a console; another errors handler was asked for
        if isinstance(stream, TextIOWrapper) and stream.errors in _DEFAULTS:
            with suppress(OSError):  # some streams cannot be changed any more
                stream.reconfigure(errors=NEAREST)


if __name__ == "__main__":
    main()
