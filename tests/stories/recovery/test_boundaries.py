"""Runs that die at each boundary between two steps, and the next run."""

from __future__ import annotations

from itertools import cycle
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.recovery.boundaries import BOUNDARIES, KILL_AT
from tests.support.recovery.place import MODELS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.support.recovery.place import Place, Provider

pytestmark = pytest.mark.in_turn

ROWS = 12
# two batches that a list of batches tells apart; other rows in each than before
PER_BATCH = {
    "v1": 7,
    "v2": 8,
}
FIRST_ONLY = ("owner.json is written aside",)
AROUND_THE_CREATE = (
    "the intent is in the ledger",
    "the create is about to be sent",
    "the create is half sent",
    "the create is sent",
    "the create is answered",
    "the batch id is about to be recorded",
)


def cases() -> Iterator[Any]:
    """Yield provider, boundary, and whether the dataset is new when the run dies there.

    The providers take turns, and so do new and older datasets: the other one of the two, where a
    run can die with both, is left to the nights. Each day has those at which money is at stake.
    """
    turns = zip(cycle(MODELS), BOUNDARIES.items(), strict=False)
    for number, (provider, (boundary, what)) in enumerate(turns):
        deaths = [True] * (not what.second_round) + [False] * (boundary not in FIRST_ONLY)
        for is_new in deaths:
            by_day = is_new == deaths[number // 2 % len(deaths)]
            marks = (pytest.mark.slow, pytest.mark.nights)
            if by_day:
                marks = () if boundary in AROUND_THE_CREATE else (pytest.mark.sampled(14),)
            name = f"{provider}-{boundary}-{'new' if is_new else 'older'}"
            yield pytest.param(provider, boundary, is_new, marks=marks, id=name)


@pytest.mark.parametrize(("provider", "boundary", "is_new"), list(cases()))
def test_a_run_that_dies_at_a_boundary_is_carried_on(
    make: Callable[..., Place], provider: Provider, boundary: str, *, is_new: bool
) -> None:
    """A run dies there with a new dataset, or while older rows are superseded.

    One start later, all is well. Each row is there once, with its own answer, accepted once, at its
    exact cost. The harness dies at each boundary with both providers (`kills.py`).
    """
    place, what = make(provider, rows=ROWS, seconds=0.0), BOUNDARIES[boundary]
    # a create that arrived is soon findings; a longer grace then only guards against a slow machine
    quick = {
        "BATCHATA_POLL_INTERVAL": "0.02",
        "BATCHATA_UNCLEAR_GRACE": "0.3" if what.absent else "1.5",
    }
    for number, version in enumerate(("v1",) if is_new else ("v1", "v2"), 1):
        place.ask(version, items_per_batch=1 if what.merges else PER_BATCH[version])
        if is_new or version == "v2":
            run = place.start(**quick, **{KILL_AT: f"{boundary}:{number if what.per_chunk else 1}"})
            assert run.wait() == -9, f"never reached: {run.text()}"
        place.finish(**quick)
        findings = place.check()
        assert not findings.problems()
        assert findings.accepted == number * ROWS
