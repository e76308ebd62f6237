"""The ledger: runs, chunks, intents, batches, money and leases, in SQLite or another database.

The ledger decides. A file, a Prefect cache or a process's memory may save time, but what was sent,
what it may cost and who may send next are read here. Every write is one transaction, durable on
return.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from batchata_tasks.ledger.awaited import AwaitedBatch, Awaiting, OpenWork
from batchata_tasks.ledger.budgets import ChangedBudget
from batchata_tasks.ledger.calibration import Calibration, UsageHistory
from batchata_tasks.ledger.changes import Changes
from batchata_tasks.ledger.corrections import Corrections
from batchata_tasks.ledger.leases import WATCHING, is_flow_run
from batchata_tasks.ledger.money import Money
from batchata_tasks.ledger.opening import ledger_exists, open_ledger
from batchata_tasks.ledger.overdue import Overdue
from batchata_tasks.ledger.pauses import Pauses
from batchata_tasks.ledger.queue_line import QueueRoom
from batchata_tasks.ledger.queues import Queue, Queues, QueueStanding
from batchata_tasks.ledger.rehearsals import Rehearsals
from batchata_tasks.ledger.reporting import LedgerTotals, Reporting, Spending
from batchata_tasks.ledger.restoring import Restored, Restoring
from batchata_tasks.ledger.runs import Runs
from batchata_tasks.ledger.sending import Sending
from batchata_tasks.ledger.store import ledger_place
from batchata_tasks.ledger.twice import SecondBatch, Twice, name_of_second
from batchata_tasks.ledger.values import (
    SENDING_ENDS,
    SET_ASIDE,
    UNFINISHED,
    UNTIL_LOOKED_AT,
    BudgetStatus,
    Chunk,
    ChunkKind,
    ChunkState,
    Intent,
    KnownBatch,
    Lease,
    MoneyInFlight,
    OutcomeTotals,
    RemainingBudget,
    RunEnd,
    RunPhase,
    RunRow,
    StopReason,
    new_id,
)
from batchata_tasks.types.budget import BudgetTerms

if TYPE_CHECKING:
    from collections.abc import Generator

__all__ = [
    "SENDING_ENDS",
    "SET_ASIDE",
    "UNFINISHED",
    "UNTIL_LOOKED_AT",
    "WATCHING",
    "AwaitedBatch",
    "BudgetStatus",
    "BudgetTerms",
    "ChangedBudget",
    "Chunk",
    "ChunkKind",
    "ChunkState",
    "Intent",
    "KnownBatch",
    "Lease",
    "Ledger",
    "LedgerTotals",
    "MoneyInFlight",
    "OpenWork",
    "OutcomeTotals",
    "Queue",
    "QueueRoom",
    "QueueStanding",
    "RemainingBudget",
    "Restored",
    "RunEnd",
    "RunPhase",
    "RunRow",
    "SecondBatch",
    "Spending",
    "StopReason",
    "UsageHistory",
    "is_flow_run",
    "ledger_exists",
    "ledger_place",
    "name_of_second",
    "new_id",
    "opened_ledger",
]


class Ledger(
    Runs,
    Sending,
    Money,
    Overdue,
    Twice,
    Corrections,
    Calibration,
    Reporting,
    Restoring,
    Rehearsals,
    Changes,
    Queues,
    Pauses,
    Awaiting,
):
    """One ledger; safe to use from several threads and processes.

    `patience` is how many seconds to wait for a Postgres that answered before and does not now (it
    is being restarted, say). `read_only` neither creates nor migrates the ledger.

    Raises:
        WrongLedgerError: the database belongs to another program.
        LedgerError: it cannot be used; see `open_ledger`.
    """

    def __init__(self, url: str, *, patience: float = 30, read_only: bool = False) -> None:
        super().__init__(url, patience=patience)
        self.id = open_ledger(self, read_only=read_only)


@contextmanager
def opened_ledger(url: str, *, read_only: bool = False) -> Generator[Ledger, None, None]:
    """Open a ledger and close it at the end of the block; see `Ledger` for the errors raised."""
    ledger = Ledger(url, read_only=read_only)
    try:
        yield ledger
    finally:
        ledger.close()
