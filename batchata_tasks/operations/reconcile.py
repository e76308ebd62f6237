"""Reconciling: compare the providers' batches with the ledger.

Batches of ours whose create was never confirmed are adopted (`in_doubt.py`), batches that no chunk
of the ledger owns are reported, and cancelled on request (`strays.py`), open ones that the present
account does not show are named (`elsewhere.py`), and those that do not end can be given up
(`abandon.py`).
"""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

from batchata_tasks.ledger import opened_ledger
from batchata_tasks.operations.abandon import Abandoning
from batchata_tasks.operations.asked import Asked
from batchata_tasks.operations.elsewhere import report_elsewhere
from batchata_tasks.operations.in_doubt import InDoubt
from batchata_tasks.operations.reconcile_report import ReconcileReport, ReconcileRequest
from batchata_tasks.operations.strays import Strays
from batchata_tasks.progress.listener import silent

if TYPE_CHECKING:
    from batchata_tasks.common.settings import Settings
    from batchata_tasks.progress.listener import Progress


def reconcile(
    settings: Settings,
    request: ReconcileRequest | None = None,
    *,
    days: float = 30,
    progress: Progress | None = None,
) -> ReconcileReport:
    """Compare the providers' batches of the last `days` with the ledger; do what `request` asks.

    Only accounts are asked whose key is in the environment, or in a block of credentials that
    batches were sent with. Datasets that a run holds are left to
    that run.

    Raises:
        CredentialsError: no provider has a usable key, so there is nothing to compare.
        SpecError: the request names a chunk or batch to which it does not apply.
        BatchataError: the provider or the ledger cannot be used.
    """
    request, report = request or ReconcileRequest(), ReconcileReport()
    with (
        opened_ledger(settings.ledger_url) as ledger,
        closing(Asked(report, ledger, days)) as asked,
    ):
        abandoning = Abandoning(ledger, settings, asked, report)
        in_doubt = InDoubt(ledger, settings, progress or silent(), asked, report)
        strays = Strays(ledger, settings, asked, report)
        for batch_id in dict.fromkeys(request.abandon):
            abandoning.abandon(batch_id)
        asked.require_any()
        in_doubt.adopt_ours()
        in_doubt.settle(request, abandoning)
        strays.report(days)
        strays.cancel(request.cancel)
        in_doubt.report()
        report_elsewhere(ledger, asked, strays.seen, report)
        abandoning.report(days)
    return report
