"""The handle on a run that is under way in this process: others look at it and stop it by this alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

from batchata_tasks.execution.snapshot import snapshot
from batchata_tasks.progress.snapshot import Snapshot

if TYPE_CHECKING:
    from batchata_tasks.execution.held_dataset import Site
    from batchata_tasks.execution.run_context import Session


class LiveRun:
    """See RunHandle. It is made before anything waits, so that a run can be stopped from its first second."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._session: Session | None = None

    def show(self, session: Session | None) -> None:
        """Let snapshots be of this run from now on; None: of none."""
        self._session = session

    def snapshot(self) -> Snapshot:
        """See RunHandle."""
        return Snapshot() if self._session is None else snapshot(self._session)

    def request_stop(self, reason: str) -> None:
        """See RunHandle. What an earlier run left open is treated alike."""
        self._site.asked = reason
        if (session := self._session) is not None:
            session.ledger.request_stop(session.run_id, reason)

    def abandon(self) -> None:
        """See RunHandle."""
        self._site.stop.set()
