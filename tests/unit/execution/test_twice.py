"""Which listed batches are second ones: of a create that was accepted twice."""

from __future__ import annotations

from dataclasses import replace

import pytest

from batchata_tasks.execution.twice import is_beside, ran_nothing
from batchata_tasks.providers import BatchLook
from tests.support.chunks import planned_chunk

LOOK = BatchLook("second", "in_progress", ended=False, created_at=1.0, requests=3, token="c")
SENT = replace(planned_chunk("c", "r", "d", range(3)), batch_id="first")


@pytest.mark.parametrize(
    ("own", "listed", "second"),
    [
        ("first", {"first", "second"}, True),
        ("second", {"first", "second"}, False),
        ("job", {"second"}, False),  # a gateway may list it under another id than it answered
        (None, {"first", "second"}, False),
    ],
)
def test_a_list_shows_a_second_batch_only_beside_the_first(
    own: str | None, listed: set[str], second: bool
) -> None:
    """One that is listed alone may be the chunk's own by another id; one in doubt is adopted."""
    assert is_beside(LOOK, replace(SENT, batch_id=own), listed) == second


@pytest.mark.parametrize(
    ("changes", "nothing"),
    [
        ({}, False),
        ({"done": 0}, False),
        ({"ended": True, "done": 0}, True),
        ({"ended": True, "done": 1}, False),
        ({"ended": True}, False),
        ({"ended": True, "refused": True}, True),
        ({"ended": True, "no_room": True}, True),
    ],
)
def test_what_ran_nothing_cost_nothing(changes: dict[str, bool | int], nothing: bool) -> None:
    """One that was refused as a whole, or was stopped before anything ran, counts nowhere."""
    assert ran_nothing(replace(LOOK, **changes)) == nothing  # type: ignore[arg-type]
