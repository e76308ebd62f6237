"""A dataset that another process holds, for the steps of its run that are done here."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from batchata_tasks.common.clock import awake_clock
from batchata_tasks.common.errors import SpecError, StorageError, WrongLedgerError
from batchata_tasks.dataset.folder import DatasetFolder
from batchata_tasks.execution.held_dataset import HeldDataset, require_unexpired
from batchata_tasks.ledger import Ledger, ledger_exists, ledger_place
from batchata_tasks.progress.listener import LineProgress

if TYPE_CHECKING:
    from batchata_tasks.common.settings import Settings
    from batchata_tasks.execution.run_ref import RunRef

_BELIEVED = 0.5  # seconds for which one answer of the ledger about the lease counts
_LOG = logging.getLogger(__name__)


@dataclass
class BorrowedDataset(HeldDataset):
    """A dataset that another process holds.

    The lease is the other process's: it is never taken, renewed or released here. That it still
    holds is read in the ledger before anything is sent and before files change, and while a step
    waits, so a step ends soon after the run was stopped, lost its lease or gave it back.
    """

    _asked_at: float = float("-inf")
    _held_until: float = float("-inf")

    def require_own(self) -> None:
        """See HeldDataset."""
        message = (
            f"landing: the file system of {self.folder.root} has no file locks, so rows are landed "
            "only by the process that began the run; do the step collect there."
        )
        raise StorageError(message)

    def require_lease(self) -> None:
        """See HeldDataset. A create asks before each block, so one read counts for a moment."""
        if awake_clock() - self._asked_at > _BELIEVED:
            now = awake_clock()
            self._held_until = now + self.ledger.lease_left(self.lease)
            self._asked_at = now
        require_unexpired(self._held_until)

    def raise_if_left(self) -> None:
        """See HeldDataset. A run that is left gives its lease back."""
        self.require_lease()

    def sleep(self, seconds: float) -> None:
        """See HeldDataset."""
        until = time.monotonic() + seconds
        self.require_lease()
        while (rest := until - time.monotonic()) > 0:
            time.sleep(min(rest, self.settings.lease_seconds / 4))
            self.require_lease()


def borrow_dataset(ref: RunRef, settings: Settings) -> BorrowedDataset:
    """Return a run's dataset, in another process than the one that holds it.

    Raises:
        WrongLedgerError: this process's ledger is not the run's.
        SpecError: the dataset is not found here.
    """
    ledger = _ledger(ref, settings)
    folder = DatasetFolder(ref.output)
    if (folder.owner() or {}).get("dataset_id") != ref.lease.dataset_id:
        ledger.close()
        message = (
            f"output: the dataset is not found in {folder.root}; a process that does steps "
            "of a run needs the same folder as the process that began it."
        )
        raise SpecError(message)
    return BorrowedDataset(folder, ledger, ref.lease, settings, LineProgress(_LOG.info))


def _ledger(ref: RunRef, settings: Settings) -> Ledger:
    """Return the ledger of this process; it is neither made nor migrated here."""
    if ledger_exists(settings.ledger_url):
        ledger = Ledger(settings.ledger_url, read_only=True)
        if ledger.id == ref.ledger_id:
            return ledger
        ledger.close()
    message = (
        f"BATCHATA_LEDGER_URL: the run is in the ledger {ref.ledger_place}, and this process "
        f"uses {ledger_place(settings.ledger_url)}; set the variable to the run's ledger."
    )
    raise WrongLedgerError(message)
