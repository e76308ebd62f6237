"""Runs that are killed at drawn moments, with faults at the provider: small and seeded.

The same for as long as you like:

`python -m tests.support.recovery.harness --provider openai --kills 100 --seed 7`
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest

from tests.support.recovery.kills import Tally, scenario
from tests.support.recovery.place import MODELS, Place, Provider

if TYPE_CHECKING:
    from collections.abc import Callable

WORK_SECONDS = 1.0  # about what an undisturbed run of this size works


@pytest.mark.in_turn
@pytest.mark.parametrize("provider", MODELS)
def test_a_killed_run_is_carried_on_and_nothing_is_paid_twice(
    make: Callable[..., Place], provider: Provider
) -> None:
    """A run that is killed again and again has each row once, with its own answer and exact money.

    There are drops, 500s, 429s and cut downloads. A reader that reads all the time, also while a
    second run supersedes every row, never misses a key.
    """
    tally = Tally()
    scenario(
        make(provider, rows=160, schema=provider == "openai"),
        random.Random(11),
        2,
        WORK_SECONDS,
        tally,
        rounds=True,
    )
    assert not tally.problems, tally
    assert tally.kills >= 3, tally
    assert tally.reads > 10


@pytest.mark.in_turn
@pytest.mark.slow
@pytest.mark.parametrize("provider", MODELS)
def test_runs_that_let_go_and_watch_are_killed(
    make: Callable[..., Place], provider: Provider
) -> None:
    """Runs let go while batches are open, passes of `watch` land what they left, both are killed.

    Each row is there once, with its own answer and exact money.
    """
    tally = Tally(boundary_share=0.3, lets_go_share=0.7, pass_share=0.7)
    scenario(make(provider, rows=160), random.Random(5), 3, WORK_SECONDS, tally)
    assert not tally.problems, tally
    assert tally.kills >= 3, tally
    assert tally.let_go, tally
    assert tally.passes, tally


@pytest.mark.slow
def test_the_real_command_is_carried_on(make: Callable[..., Place]) -> None:
    """`python -m batchata_tasks.cli run SPEC --direct` is killed with batches open.

    The next run carries on.
    """
    place = make("anthropic", rows=120)
    run = place.start(command=True)
    assert place.until(lambda: place.stages()["polling"], run)
    assert run.kill() == -9
    place.finish()
    findings = place.check()
    assert not findings.problems()
    assert (findings.rows, findings.accepted) == (120, 120)
