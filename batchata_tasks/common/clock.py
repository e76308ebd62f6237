"""Clocks: the time as ledgers store it, and clocks that nobody sets back."""

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


_BEGAN = time.time() - awake_clock()


def forward_us() -> int:
    """Return the time as `now_us` does; it runs on if the machine's clock is set back meanwhile."""
    return max(now_us(), int((_BEGAN + awake_clock()) * 1e6))
