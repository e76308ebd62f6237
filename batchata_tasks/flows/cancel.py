"""The flow `cancel`: cancels the open batches of a spec and lands what ran."""

from __future__ import annotations

from typing import Any
from uuid import UUID  # noqa: TC003 - Prefect reads a flow's annotations

from prefect import flow, get_run_logger
from prefect.artifacts import create_markdown_artifact
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import State  # noqa: TC002 - as above
from prefect.exceptions import ObjectNotFound

from batchata_tasks.common.errors import InputError, SpecError
from batchata_tasks.common.json import as_dict
from batchata_tasks.common.settings import Settings
from batchata_tasks.flows.artifacts import markdown
from batchata_tasks.flows.refused import path_of, refused
from batchata_tasks.operations import cancel as cancelling
from batchata_tasks.progress.listener import LineProgress
from batchata_tasks.spec.enrichment import EnrichmentSpec  # noqa: TC001 - as above
from batchata_tasks.spec.loading import overridden, parse_spec


@flow(name="cancel", validate_parameters=True)
def cancel(
    spec: EnrichmentSpec | str | None = None, flow_run_id: UUID | None = None
) -> dict[str, Any] | State[Any]:
    """Cancel the open batches of a spec and land what ran.

    Args:
        spec: the enrichment, or the path of its YAML or JSON file.
        flow_run_id: the run of the flow `enrich` whose spec is meant, whatever `spec` says; for
            automations on cancelled runs.
    """
    try:
        loaded = overridden(
            _spec_of(flow_run_id) if flow_run_id is not None or spec is None else spec, {}
        )
        cancelled = cancelling.cancel(loaded, Settings(), LineProgress(get_run_logger().info))
    except InputError as error:
        return refused(error, spec)
    create_markdown_artifact(
        markdown=markdown(f"cancel {loaded.name}", cancelled.lines(), path_of(spec)),
        key="cancel",
        description="What was cancelled.",
    )
    return cancelled.to_json()


def _spec_of(flow_run_id: UUID | None) -> EnrichmentSpec:
    """Return the spec that a run of `enrich` was given."""
    if flow_run_id is None:
        message = "give `spec` or `flow_run_id`."
        raise SpecError(message)
    try:
        with get_client(sync_client=True) as client:
            run = client.read_flow_run(flow_run_id)
            flow_name = client.read_flow(run.flow_id).name
    except ObjectNotFound as error:
        message = f"flow_run_id: Prefect's server knows no flow run {flow_run_id}; check the id."
        raise SpecError(message) from error
    if flow_name != "enrich":
        message = (
            f"flow_run_id: {flow_run_id} is a run of the flow {flow_name!r}; give one of `enrich`."
        )
        raise SpecError(message)
    parameters = run.parameters
    given, overrides = parameters.get("spec"), as_dict(parameters.get("overrides"))
    return overridden(given if isinstance(given, str) else parse_spec(given or {}), overrides)
