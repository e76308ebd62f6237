"""Names of flow runs."""

from __future__ import annotations

import pytest
from prefect.utilities.names import generate_slug

from batchata_tasks.flows.names import is_drawn


def test_names_that_prefect_draws_are_known() -> None:
    """Whatever name Prefect draws for a run is known as such, and may be replaced."""
    assert [name for name in (generate_slug(2) for _ in range(2000)) if not is_drawn(name)] == []


@pytest.mark.parametrize("name", ["backfill", "night-run", "full-load", "enrich x", "a-b", "1-2-3"])
def test_other_names_are_not(name: str) -> None:
    """A name that somebody gave is none of them."""
    assert not is_drawn(name)
