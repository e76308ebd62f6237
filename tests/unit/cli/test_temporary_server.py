"""Signals on Prefect's temporary server, at the moments that a run in a test would rarely hit."""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING

from batchata_tasks.cli import temporary_server

if TYPE_CHECKING:
    import pytest

MODULE = "prefect.server.api.server"


def test_a_server_whose_module_is_half_imported_has_not_started(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A signal during Prefect's import ends the run; it does not look for a name in vain."""
    monkeypatch.setitem(sys.modules, MODULE, ModuleType(MODULE))
    assert temporary_server.kill()


def test_a_server_that_is_being_started_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Between its start and the note of its process id nobody could kill it."""
    module = ModuleType(MODULE)
    server = SimpleNamespace(server_process=None, running=True)
    monkeypatch.setattr(module, "SubprocessASGIServer", lambda: server, raising=False)
    monkeypatch.setitem(sys.modules, MODULE, module)
    assert not temporary_server.kill()
    server.running = False
    assert temporary_server.kill()
