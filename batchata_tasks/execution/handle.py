"""The handle on a run that is under way in this process: others look at it and stop it by this alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

from batchata_tasks.execution.snapshot import snapshot
from batchata_tasks.progress.snapshot import Snapshot

if TYPE_CHECKING:
    from batchata_tasks.execution.held_dataset import HeldDataset
    from batchata_tasks.execution.run_context import RunContext


class LiveRun:
    """See RunHandle. It is made before anything waits, so that a run can be stopped from its first second."""

    def __init__(self, held: HeldDataset) -> None:
        self._held = held
        self._context: RunContext | None = None

    def show(self, context: RunContext | None) -> None:
        """Let snapshots be of this run from now on; None: of none."""
        self._context = context

    def snapshot(self) -> Snapshot:
        """See RunHandle."""
        return Snapshot() if self._context is None else snapshot(self._context)

    def request_stop(self, reason: str) -> None:
        """See RunHandle. What an earlier run left open is treated alike."""
        self._held.asked = reason
        if (context := self._context) is not None:
            context.ledger.request_stop(context.run_id, reason)

    def abandon(self) -> None:
        """See RunHandle."""
        self._held.stop.set()
