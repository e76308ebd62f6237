"""One emulator and one launcher for the recovery tests, each in a process of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from batchata_tasks.emulator import EmulatorProcess
from tests.support.launcher import Launcher
from tests.support.recovery.place import Place, Provider

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path
    from typing import Any


@pytest.fixture(scope="session")
def launcher() -> Iterator[Launcher]:
    """Return a launcher of the command line."""
    with Launcher() as launcher:
        yield launcher


@pytest.fixture(scope="session")
def provider_process() -> Iterator[EmulatorProcess]:
    """Return an emulator that goes on while runs die."""
    with EmulatorProcess(anonymous=True) as emulator:
        yield emulator


@pytest.fixture
def make(
    launcher: Launcher, provider_process: EmulatorProcess, tmp_path: Path
) -> Callable[..., Place]:
    """Return a maker of tables: `make("openai", rows=60)`; each is `under` a folder of its own."""

    def make(provider: Provider, under: str = "", **knobs: Any) -> Place:
        return Place(tmp_path / under / provider, provider, provider_process, launcher, **knobs)

    return make
