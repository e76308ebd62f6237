"""The ledger: runs, chunks, intents, batches, money and leases, in SQLite or another database.

It decides. A file, a Prefect cache or a process's memory may save time, but what was sent, what it
may cost and who may send next is read here. Every write is one transaction, durable on return.
"""

from __future__ import annotations

from batchata_tasks.ledger.calibration import Calibration, Usual
from batchata_tasks.ledger.corrections import Corrections
from batchata_tasks.ledger.money import Money
from batchata_tasks.ledger.opening import is_made
from batchata_tasks.ledger.reporting import Books, Reporting, Spending
from batchata_tasks.ledger.restoring import Restored, Restoring
from batchata_tasks.ledger.runs import Runs
from batchata_tasks.ledger.sending import Sending
from batchata_tasks.ledger.values import (
    COLLECTED,
    DROPPED,
    HELD,
    LANDED,
    OVER_BOUND,
    PLANNED,
    SENDING_ENDS,
    SHUTDOWN,
    SUBMITTED,
    UNCLEAR,
    UNFINISHED,
    BudgetTerms,
    Chunk,
    Intent,
    Lease,
    Left,
    Tally,
    Tracked,
    new_id,
    now_us,
)

__all__ = [
    "COLLECTED",
    "DROPPED",
    "HELD",
    "LANDED",
    "OVER_BOUND",
    "PLANNED",
    "SENDING_ENDS",
    "SHUTDOWN",
    "SUBMITTED",
    "UNCLEAR",
    "UNFINISHED",
    "Books",
    "BudgetTerms",
    "Chunk",
    "Intent",
    "Lease",
    "Ledger",
    "Left",
    "Restored",
    "Spending",
    "Tally",
    "Tracked",
    "Usual",
    "is_made",
    "new_id",
    "now_us",
]


class Ledger(Runs, Sending, Money, Corrections, Calibration, Reporting, Restoring):
    """One ledger; safe to use from several threads and processes."""
