"""Clocks: the time as ledgers keep it, and one that goes on while the machine sleeps."""

from __future__ import annotations

import time


def now_us() -> int:
    """Return the time as microseconds since 1970."""
    return time.time_ns() // 1000


def awake_clock() -> float:
    """Return seconds of a clock that goes on while the process or the machine sleeps."""
    return (
        time.clock_gettime(time.CLOCK_BOOTTIME)
        if hasattr(time, "CLOCK_BOOTTIME")
        else time.monotonic()
    )
