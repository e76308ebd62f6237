"""A Prefect server for each test of the schedule.

A server has one set of automations and work pools, with unique names.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.prefect_server import Server

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """Run a Prefect server with an empty database."""
    home = tmp_path / "prefect"
    home.mkdir()
    with Server(home) as running:
        yield running
