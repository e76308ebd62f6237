"""Runs that let go of their dataset while batches are open, as a suspended flow run does.

Passes of `watch` land what they left.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING
from unittest.mock import patch

from batchata_tasks.execution.held_dataset import LettingGo

if TYPE_CHECKING:
    from contextlib import ExitStack

    from tests.support.launcher import Run
    from tests.support.recovery.place import Place

LETS_GO = "TEST_LETS_GO"  # after how many seconds a run that finds this lets go; else never
_LET_GO, _HELD = "waiting for ", "another run holds this dataset"  # as errors say it


def lets_go(patches: ExitStack) -> None:
    """Let this process's runs let go if its environment says so.

    Only the launcher's child calls it.
    """
    if (after := os.environ.pop(LETS_GO, None)) is not None:
        defaults = (float(after), frozenset[str](), True)
        patches.enter_context(patch.object(LettingGo.__init__, "__defaults__", defaults))


def has_let_go(run: Run) -> bool:
    """Whether a run that has ended let go of its dataset."""
    return run.poll() == 1 and _LET_GO in run.text()


def found_it_held(run: Run) -> bool:
    """Whether a run ended since a pass of `watch` was at work on its dataset."""
    return run.poll() == 1 and _HELD in run.text()


def watching(place: Place, **env: str) -> Run:
    """Start a pass of `watch`, for which no batch that ended waits for others."""
    return place.batchata("watch", "--once", "--minutes", "0", **env)
