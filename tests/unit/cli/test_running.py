"""What a command does at Ctrl-C, at moments that a run in a test would rarely hit."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, cast

from batchata_tasks.cli import running
from batchata_tasks.progress.listener import silent
from tests.support.waiting import PATIENCE

if TYPE_CHECKING:
    import pytest


def test_ctrl_c_does_not_wait_for_a_ledger_that_is_locked(monkeypatch: pytest.MonkeyPatch) -> None:
    """The thread that it interrupted may hold the lock, and would never let go of it."""
    monkeypatch.setattr(running, "_AT_MOST", 0.01)
    asked, unlocked = threading.Event(), threading.Event()

    class Locked:
        def give_back(self) -> None:
            asked.set()
            unlocked.wait()

    progress, handle = silent(), cast("Any", Locked())
    progress.handle = handle
    running._give_back(progress)
    assert asked.wait(PATIENCE)
    unlocked.set()
