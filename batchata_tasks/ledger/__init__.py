"""The ledger: runs, chunks, intents, batches, money and leases, in SQLite or another database.

It decides. A file, a Prefect cache or a process's memory may save time, but what was sent, what it
may cost and who may send next is read here. Every write is one transaction, durable on return.
"""

from __future__ import annotations

from batchata_tasks.common.clock import now_us
from batchata_tasks.ledger.calibration import Calibration, UsageHistory
from batchata_tasks.ledger.corrections import Corrections
from batchata_tasks.ledger.money import Money
from batchata_tasks.ledger.opening import is_made, open_ledger
from batchata_tasks.ledger.reporting import LedgerTotals, Reporting, Spending
from batchata_tasks.ledger.restoring import Restored, Restoring
from batchata_tasks.ledger.runs import Runs
from batchata_tasks.ledger.sending import Sending
from batchata_tasks.ledger.values import (
    SENDING_ENDS,
    UNFINISHED,
    BudgetStatus,
    Chunk,
    ChunkState,
    Intent,
    Lease,
    OutcomeTotals,
    RemainingBudget,
    RunRow,
    StopReason,
    new_id,
)
from batchata_tasks.types.budget import BudgetTerms

__all__ = [
    "SENDING_ENDS",
    "UNFINISHED",
    "BudgetStatus",
    "BudgetTerms",
    "Chunk",
    "ChunkState",
    "Intent",
    "Lease",
    "Ledger",
    "LedgerTotals",
    "OutcomeTotals",
    "RemainingBudget",
    "Restored",
    "RunRow",
    "Spending",
    "StopReason",
    "UsageHistory",
    "is_made",
    "new_id",
    "now_us",
]


class Ledger(Runs, Sending, Money, Corrections, Calibration, Reporting, Restoring):
    """One ledger; safe to use from several threads and processes.

    `patience` is for how many seconds a Postgres that is away (restarted, say) is waited for, once
    it has been there. `as_it_is` is for looking: the ledger is neither made nor migrated.

    Raises:
        WrongLedgerError: it is somebody else's database.
        LedgerError: it cannot be used; see `open_ledger`.
    """

    def __init__(self, url: str, *, patience: float = 30, as_it_is: bool = False) -> None:
        super().__init__(url, patience=patience)
        self.id = open_ledger(self, as_it_is=as_it_is)
