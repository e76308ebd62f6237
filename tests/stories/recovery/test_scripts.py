"""Batch scripts that are killed at drawn moments: small and seeded.

The same for as long as you like:

`python -m tests.support.recovery.scripts --provider openai --kills 20`
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest

from tests.support.recovery.scripts import MODELS, Killed, Script, scenario

if TYPE_CHECKING:
    from pathlib import Path

    from batchata_tasks.emulator import EmulatorProcess

pytestmark = pytest.mark.in_turn


@pytest.mark.parametrize("provider", MODELS)
def test_a_killed_script_is_carried_on(
    provider_process: EmulatorProcess, tmp_path: Path, provider: str
) -> None:
    """A killed script is started again: each job has its own answer, and none was accepted twice.

    There are drops, 500s and cut downloads.
    """
    tally = Killed()
    scenario(
        Script(tmp_path / provider, provider_process, provider, 30), random.Random(5), 2, tally
    )
    assert not tally.problems, tally
    assert tally.kills == 2
