"""Runs that die with a create of unknown fate."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from batchata_tasks.common.errors import TransientError
from batchata_tasks.common.settings import Settings
from batchata_tasks.ledger import ChunkState, Ledger

if TYPE_CHECKING:
    from tests.support.table import Table


def leave_in_doubt(
    table: Table,
    monkeypatch: pytest.MonkeyPatch,
    fault: str = "drop_after",
    *,
    add: str | None = None,
    **changes: Any,
) -> str:
    """Leave a run of a spec with `changes` dead, with a create of unknown fate; return its chunk.

    Of the faults, only `add` stays.
    """
    control = table.emulator.control
    if add is not None:
        control.faults(kind=add)
    control.faults(kind=fault, count=1)
    for call in range(2, 12):  # the first list goes before the create
        control.faults(kind="http_error", route="list", status=500, nth=call)
    with monkeypatch.context() as hasty:
        hasty.setenv("BATCHATA_PATIENCE", "0")
        with pytest.raises(TransientError):
            table.run(**changes)
    control.clear_faults()
    if add is not None:
        control.faults(kind=add)
    (chunk,) = in_state(ChunkState.UNCLEAR)
    return chunk


def in_state(*states: str) -> list[str]:
    ledger = Ledger(Settings().ledger_url)
    try:
        return [chunk.id for chunk in ledger.chunks_in(states)]
    finally:
        ledger.close()
