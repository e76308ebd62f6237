"""How long a server asks to wait before a call is tried again.

Both SDKs try calls again by themselves, and wait inside of the call as long as a server says: days,
without a line, whatever the run's patience and limits are. So they are left the waits that they
take without being asked; longer ones are for those who called.
"""

from __future__ import annotations

import math
import time
from email.utils import mktime_tz, parsedate_tz
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import httpx2

LONGEST = 8.0  # seconds: the SDKs' own longest pause
_SCALES = (("retry-after-ms", 1e-3), ("retry-after", 1.0))


def retry_after(headers: httpx2.Headers) -> float | None:
    """Return the seconds that an answer asks to wait; None if it names none, or no future time.

    The header is a number or a date: https://www.rfc-editor.org/rfc/rfc9110#field.retry-after.
    """
    for name, scale in _SCALES:
        if (text := headers.get(name)) is None:
            continue
        seconds = _number(text) * scale
        if math.isnan(seconds) and name == "retry-after":
            seconds = _until(text)
        if seconds > 0:  # never of NaN
            return seconds
    return None


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def _until(date: str) -> float:
    """Return the seconds until a date of HTTP; NaN if it is none."""
    parts = parsedate_tz(date)
    try:
        return math.nan if parts is None else mktime_tz(parts) - time.time()
    except (ValueError, OverflowError):
        return math.nan


def leave_to_caller(response: httpx2.Response) -> None:
    """Response hook of the SDKs' HTTP clients: let them not wait longer than they do unasked.

    Both heed the header `x-should-retry`; the call then raises at once, with the answer as it came.
    """
    if (retry_after(response.headers) or 0) > LONGEST:
        response.headers["x-should-retry"] = "false"
