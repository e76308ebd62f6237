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


def at_awake(moment_us: int) -> float:
    """Return the `awake_clock` of a moment (microseconds since 1970), not later than it is now.

    From here on nobody's setting of the machine's clock counts. A moment to come, of a clock that
    was set back since, reads as now.
    """
    return awake_clock() - max(now_us() - moment_us, 0) / 1e6
