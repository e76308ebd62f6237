"""Deaths that nobody but `watch` notices: on a real server with real workers, nothing by hand."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.deaths.cases import died
from tests.support.deaths.world import World

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.slow, pytest.mark.nights, pytest.mark.timeout(1800)]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Run a server without automations, and a team's worker."""
    with World(tmp_path_factory.mktemp("deaths") / "world", automations=False) as world:
        yield world


@pytest.mark.parametrize(
    ("moment", "victim"),
    [
        ("pending", "both"),
        ("submitting", "drain"),
        ("cancelling", "both"),
        ("resuming", "server"),
        ("waiting in its process", "cancelled"),
    ],
)
def test_a_run_is_taken_up_whatever_dies(world: World, moment: str, victim: str) -> None:
    """Its rows land once, within three minutes of what happened, or its batches are cancelled."""
    fate = died(world.lanes[0], moment, victim)
    assert fate.problems() == [], fate
