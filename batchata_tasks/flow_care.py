"""The flows that look at what a run would do, and after what runs left: `plan`, `cancel` and `reconcile`."""

from __future__ import annotations

from typing import Any
from uuid import UUID  # noqa: TC003 - Prefect reads a flow's annotations

from prefect import flow, get_run_logger
from prefect.artifacts import create_markdown_artifact
from prefect.client.orchestration import get_client
from prefect.exceptions import ObjectNotFound

from batchata_tasks import cancel as cancelling
from batchata_tasks import reconcile as reconciling
from batchata_tasks.artifacts import markdown, slug
from batchata_tasks.errors import SpecError
from batchata_tasks.jobs import as_dict
from batchata_tasks.preview import preview
from batchata_tasks.progress import Lines
from batchata_tasks.reconcile_report import Request, pairs_of
from batchata_tasks.spec import EnrichmentSpec  # noqa: TC001 - as above
from batchata_tasks.spec_file import overridden, parse_spec


@flow(name="plan", validate_parameters=True)
def plan(spec: EnrichmentSpec | str, overrides: dict[str, Any] | None = None) -> dict[str, Any]:
    """Tell what a run would send, why, and what it would cost. Sends nothing, spends nothing.

    Args:
        spec: the enrichment, or the path of its YAML or JSON file.
        overrides: keys of the spec to set otherwise, such as {"limit": 20}.
    """
    found = preview(overridden(spec, overrides or {}))
    name, what = found.spec.name, "What a run would do and cost."
    create_markdown_artifact(markdown=markdown(f"plan {name}", found.lines()), key=slug(f"plan-{name}"), description=what)
    return found.to_json()


@flow(name="cancel", validate_parameters=True)
def cancel(spec: EnrichmentSpec | str | None = None, flow_run_id: UUID | None = None) -> dict[str, Any]:
    """Cancel the open batches of a spec and land what ran.

    Args:
        spec: the enrichment, or the path of its YAML or JSON file.
        flow_run_id: the run of the flow `enrich` whose spec is meant, whatever `spec` says; for automations on cancelled runs.
    """
    loaded = overridden(_spec_of(flow_run_id) if flow_run_id is not None or spec is None else spec, {})
    found = cancelling.cancel(loaded, progress=Lines(get_run_logger().info))
    create_markdown_artifact(markdown=markdown(f"cancel {loaded.name}", found.lines()), key="cancel", description="What was cancelled.")
    return found.to_json()


def _spec_of(flow_run_id: UUID | None) -> EnrichmentSpec:
    """Return the spec that a run of `enrich` was given."""
    if flow_run_id is None:
        message = "give `spec` or `flow_run_id`."
        raise SpecError(message)
    try:
        with get_client(sync_client=True) as client:
            found = client.read_flow_run(flow_run_id)
            flow_name = client.read_flow(found.flow_id).name
    except ObjectNotFound as error:
        message = f"flow_run_id: Prefect's server knows no flow run {flow_run_id}; check the id."
        raise SpecError(message) from error
    if flow_name != "enrich":
        message = f"flow_run_id: {flow_run_id} is a run of the flow {flow_name!r}; give one of `enrich`."
        raise SpecError(message)
    parameters = found.parameters
    given, overrides = parameters.get("spec"), as_dict(parameters.get("overrides"))
    return overridden(given if isinstance(given, str) else parse_spec(given or {}), overrides)


@flow(name="reconcile", validate_parameters=True)
def reconcile(
    adopt: list[str] | None = None,
    resend: list[str] | None = None,
    hold: list[str] | None = None,
    cancel_batches: list[str] | None = None,
    days: float = 30,
) -> dict[str, Any]:
    """Compare the providers' batches with the ledger: adopt ours, report what nobody owns, settle doubt.

    Args:
        adopt: `CHUNK=BATCH` texts: this chunk in doubt is that batch.
        resend: held chunks that never were accepted; their rows are planned again.
        hold: chunks that nobody can look for any more.
        cancel_batches: batches that nobody owns, to be cancelled.
        days: how far back batches are listed.
    """
    request = Request(pairs_of(adopt or []), tuple(resend or ()), tuple(hold or ()), tuple(cancel_batches or ()))
    found = reconciling.reconcile(request, days, progress=Lines(get_run_logger().info))
    create_markdown_artifact(markdown=markdown("reconcile", found.lines()), key="reconcile", description="Batches against the ledger.")
    return found.to_json()
