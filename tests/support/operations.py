"""Operations and reports with the settings of the environment, as the commands call them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from batchata_tasks.common.settings import Settings
from batchata_tasks.operations import cancel as cancelling
from batchata_tasks.operations import reconcile as reconciling
from batchata_tasks.reports import costs, plan, status

if TYPE_CHECKING:
    from datetime import datetime

    from batchata_tasks.operations.reconcile_report import ReconcileReport, ReconcileRequest
    from batchata_tasks.planning.summary import Options
    from batchata_tasks.progress.listener import Progress
    from batchata_tasks.reports.preview import Preview
    from batchata_tasks.spec.enrichment import EnrichmentSpec
    from batchata_tasks.spec.run import RunSpec


def cancel(spec: EnrichmentSpec, progress: Progress | None = None) -> cancelling.Cancelled:
    """Cancel the open run of a spec."""
    return cancelling.cancel(spec, Settings(), progress)


def reconcile(request: ReconcileRequest | None = None, days: float = 30) -> ReconcileReport:
    """Compare the providers' batches with the ledger."""
    return reconciling.reconcile(Settings(), request, days=days)


def preview(spec: RunSpec, options: Options | None = None, *, sample: int = 0) -> Preview:
    """Plan without running."""
    return plan.preview(spec, Settings(), options, sample=sample)


def runs_overview(spec: RunSpec | None) -> list[dict[str, Any]]:
    """Return the newest runs of a spec, or of the ledger."""
    return status.runs_overview(spec, Settings())


def gather(by: str, since: datetime) -> costs.Costs:
    """Return what was spent since a moment."""
    return costs.gather(by, since, Settings())
