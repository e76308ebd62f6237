"""What a command does at Ctrl-C, at moments that a run in a test would rarely hit."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from typing import Any, cast

import pytest

from batchata_tasks.cli import running
from batchata_tasks.progress.listener import silent
from tests.support.paths import ROOT
from tests.support.waiting import PATIENCE


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


INTERRUPTED_WITH_A_LOCK = """
import os, signal, sys, threading
from batchata_tasks.cli import running
from batchata_tasks.progress.listener import silent

running._AT_MOST = 0.1
held = threading.Lock()
progress = silent()
progress.close = held.acquire
running._leave_at_signals(progress)
with held:
    os.kill(os.getpid(), int(sys.argv[1]))
"""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_lock_that_a_signal_interrupts_keeps_no_process_alive(number: int, code: int) -> None:
    """Restoring the terminal may need what the interrupted code holds; signals are ignored then."""
    command = [sys.executable, "-c", INTERRUPTED_WITH_A_LOCK, str(int(number))]
    done = subprocess.run(
        command, env={**os.environ, "PYTHONPATH": str(ROOT)}, timeout=PATIENCE, check=False
    )
    assert done.returncode == code
