"""Two runs at once.

As often as you like:

`python -m tests.support.recovery.harness --overlap 50 [--ledger-url URL]`
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest

from tests.support.recovery.overlap import Overlaps, overlap
from tests.support.recovery.place import MODELS

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.recovery.place import Place, Provider

pytestmark = pytest.mark.in_turn

PAIRS = 3  # of each provider


@pytest.mark.parametrize("provider", MODELS)
def test_two_runs_that_start_at_once_do_everything_once(
    make: Callable[..., Place], provider: Provider
) -> None:
    """On a new dataset and ledger, one run works; the other is refused or has nothing left to do.

    The refusal is a sentence. No row is lost or accepted twice, and a third run finds everything up
    to date.
    """
    tally, rng = Overlaps(), random.Random(5)
    for number in range(PAIRS):
        overlap(make(provider, rows=20, per_batch=9, seconds=0.1, under=str(number)), rng, tally)
    assert not tally.problems, tally.problems
    assert tally.pairs == PAIRS
