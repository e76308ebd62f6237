"""Waiting for what another thread, process or server brings about."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")
# seconds that a test waits for what must come: only a failure takes so long, not a busy machine
PATIENCE = 400.0


def until(look: Callable[[], T], every: float = 0.02) -> T:
    """Look until something true is seen; return it."""
    give_up = time.monotonic() + PATIENCE
    while not (seen := look()):
        assert time.monotonic() < give_up, "it never came"
        time.sleep(every)
    return seen
