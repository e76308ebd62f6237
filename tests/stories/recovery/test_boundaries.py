"""Runs that die at each boundary between two steps, and the next run."""

from __future__ import annotations

from itertools import cycle
from typing import TYPE_CHECKING

import pytest

from tests.support.recovery.boundaries import BOUNDARIES, KILL_AT
from tests.support.recovery.place import MODELS

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.recovery.place import Place, Provider

pytestmark = pytest.mark.in_turn

ROWS = 12
# two batches that a list of batches tells apart; other rows in each than before
PER_BATCH = {
    "v1": 7,
    "v2": 8,
}
FIRST_ONLY = ("owner.json is written aside",)


@pytest.mark.parametrize(
    ("provider", "boundary"), list(zip(cycle(MODELS), BOUNDARIES, strict=False))
)
def test_a_run_that_dies_at_a_boundary_is_carried_on(
    make: Callable[..., Place], provider: Provider, boundary: str
) -> None:
    """A run dies there with a new dataset, and again while older rows are superseded.

    One start later, all is well. Each row is there once, with its own answer, accepted once, at its
    exact cost. The providers take turns; the harness dies at each boundary with both (`kills.py`).
    """
    place, what = make(provider, rows=ROWS, seconds=0.0), BOUNDARIES[boundary]
    # a create that arrived is soon findings; a longer grace then only guards against a slow machine
    quick = {
        "BATCHATA_POLL_INTERVAL": "0.02",
        "BATCHATA_UNCLEAR_GRACE": "0.3" if what.absent else "1.5",
    }
    for number, version in enumerate(("v1", "v2"), 1):
        place.ask(version, items_per_batch=1 if what.merges else PER_BATCH[version])
        if version == "v2" if what.second_round else version == "v1" or boundary not in FIRST_ONLY:
            run = place.start(**quick, **{KILL_AT: f"{boundary}:{number if what.per_chunk else 1}"})
            assert run.wait() == -9, f"never reached: {run.text()}"
        place.finish(**quick)
        findings = place.check()
        assert not findings.problems()
        assert findings.accepted == number * ROWS
