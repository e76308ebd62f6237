"""Clocks: the time as ledgers store it, and a clock that runs on while the machine sleeps."""

from __future__ import annotations

import time


def now_us() -> int:
    """Return the time as microseconds since 1970."""
    return time.time_ns() // 1000


def awake_clock() -> float:
    """Return the seconds of a clock that runs on while the process or the machine sleeps."""
    if hasattr(time, "CLOCK_BOOTTIME"):
        return time.clock_gettime(time.CLOCK_BOOTTIME)
    return time.monotonic()
