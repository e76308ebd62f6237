"""Ctrl-C while a command's modules are imported: before it can have done anything."""

from __future__ import annotations

import os
import signal
from contextlib import suppress

INTERRUPTED = 130
_STOPPED = b"Stopped. Nothing was sent.\n"


def leave_at_ctrl_c() -> None:
    """Let Ctrl-C end the process at once, unless it is ignored or handled already."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _leave)


def raise_at_ctrl_c() -> None:
    """Let Ctrl-C raise KeyboardInterrupt again, for code that handles it."""
    if signal.getsignal(signal.SIGINT) is _leave:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _leave(_number: int, _frame: object) -> None:
    # not by KeyboardInterrupt, which imports may turn into other errors, or lose
    with suppress(OSError):
        os.write(2, _STOPPED)
    os._exit(INTERRUPTED)
