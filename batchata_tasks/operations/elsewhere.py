"""Open batches that were sent under another account than the present keys and settings select.

No look under these shows them, so they are told from the ledger alone, with
what is to be set again.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from batchata_tasks.execution.elsewhere import what_to_set
from batchata_tasks.ledger import ChunkState
from batchata_tasks.operations.reconcile_report import ElsewhereBatch

if TYPE_CHECKING:
    from collections.abc import Container

    from batchata_tasks.ledger import Ledger
    from batchata_tasks.operations.asked import Asked
    from batchata_tasks.operations.reconcile_report import ReconcileReport


def report_elsewhere(
    ledger: Ledger, asked: Asked, seen: Container[str], report: ReconcileReport
) -> None:
    """Report the open batches of other accounts; those in `seen` are listed all the same."""
    for chunk in ledger.chunks_in((ChunkState.SUBMITTED, ChunkState.OVERDUE)):
        batch_id, adapter = chunk.batch_id or "", asked.find(chunk)
        if adapter is None or batch_id in seen:  # that a key is missing is told already
            continue
        if (change := what_to_set(adapter, ledger, chunk)) is None:
            continue
        sent_at = (ledger.submitted_at(batch_id) or 0) / 1e6
        batch = ElsewhereBatch(
            batch_id=batch_id,
            chunk=chunk.id,
            dataset=ledger.dataset_url(chunk.dataset_id) or "replaced by another one",
            provider=chunk.provider,
            requests=chunk.rows,
            age=max(round(time.time() - sent_at), 0),
            change=change,
        )
        report.elsewhere.append(batch)
