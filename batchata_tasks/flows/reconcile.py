"""The flow `reconcile`: compares the providers' batches with the ledger."""

from __future__ import annotations

from typing import Any

from prefect import flow, get_run_logger
from prefect.artifacts import create_markdown_artifact
from prefect.client.schemas.objects import State  # noqa: TC002 - Prefect reads a flow's annotations

from batchata_tasks.common.errors import InputError
from batchata_tasks.common.settings import Settings
from batchata_tasks.flows.artifacts import markdown
from batchata_tasks.flows.refused import refused
from batchata_tasks.operations import reconcile as reconciling
from batchata_tasks.operations.reconcile_report import ReconcileRequest, pairs_of
from batchata_tasks.progress.listener import LineProgress


@flow(name="reconcile", validate_parameters=True)
def reconcile(
    adopt: list[str] | None = None,
    resend: list[str] | None = None,
    hold: list[str] | None = None,
    cancel_batches: list[str] | None = None,
    abandon: list[str] | None = None,
    days: float = 30,
) -> dict[str, Any] | State[Any]:
    """Compare the providers' batches with the ledger: adopt ours, report strangers, settle doubt.

    Args:
        adopt: `CHUNK=BATCH` texts: this chunk in doubt is that batch.
        resend: held chunks that never were accepted; their rows are planned again.
        hold: chunks that nobody can look for any more.
        cancel_batches: batches that nobody owns, to be cancelled.
        abandon: batches of ours that do not end: their rows are planned again.
        days: how far back batches are listed.
    """
    progress = LineProgress(get_run_logger().info)
    try:
        request = ReconcileRequest(
            pairs_of(adopt or []),
            tuple(resend or ()),
            tuple(hold or ()),
            tuple(cancel_batches or ()),
            tuple(abandon or ()),
        )
        report = reconciling.reconcile(Settings(), request, days=days, progress=progress)
    except InputError as error:
        return refused(error)
    create_markdown_artifact(
        markdown=markdown("reconcile", report.lines()),
        key="reconcile",
        description="Batches against the ledger.",
    )
    return report.to_json()
