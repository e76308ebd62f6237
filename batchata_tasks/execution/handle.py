"""The handle by which others look at a run under way in this process, and stop it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from batchata_tasks.execution.snapshot import snapshot
from batchata_tasks.progress.snapshot import Snapshot

if TYPE_CHECKING:
    from batchata_tasks.execution.held_dataset import OwnDataset
    from batchata_tasks.execution.run_context import RunContext


class LiveRun:
    """See RunHandle. It is made first, so a run can be stopped from its first second."""

    def __init__(self, held: OwnDataset) -> None:
        self._held = held
        self._context: RunContext | None = None

    def show(self, context: RunContext | None) -> None:
        """Take snapshots of this run from now on; of none if None."""
        self._context = context

    def snapshot(self) -> Snapshot:
        """See RunHandle."""
        return Snapshot() if self._context is None else snapshot(self._context)

    def request_stop(self, reason: str) -> None:
        """See RunHandle. An earlier run whose batches are landed at the moment stops, too."""
        self._held.stop_requested = reason
        if (run_id := self._held.run_at_work) is not None:
            self._held.ledger.request_stop(run_id, reason)

    def abandon(self) -> None:
        """See RunHandle."""
        self._held.stop.set()

    def give_back(self) -> None:
        """See RunHandle."""
        self._held.give_back()
