"""The flow `plan`: tells what a run would send, why, and what it would cost. Sends nothing."""

from __future__ import annotations

from typing import Any

from prefect import flow
from prefect.artifacts import create_markdown_artifact
from prefect.client.schemas.objects import State  # noqa: TC002 - Prefect reads a flow's annotations

from batchata_tasks.common.errors import InputError
from batchata_tasks.common.settings import Settings
from batchata_tasks.flows.artifacts import markdown, slug
from batchata_tasks.flows.refused import path_of, refused
from batchata_tasks.pipeline.start import refresh_mark
from batchata_tasks.planning.summary import Options
from batchata_tasks.reports.plan import preview
from batchata_tasks.spec.enrichment import EnrichmentSpec  # noqa: TC001 - as above
from batchata_tasks.spec.loading import overridden


@flow(name="plan", validate_parameters=True)
def plan(
    spec: EnrichmentSpec | str,
    overrides: dict[str, Any] | None = None,
    # the form of the Prefect UI names every parameter
    refresh: bool = False,  # noqa: FBT001, FBT002 - see above
    retry_failed: bool = False,  # noqa: FBT001, FBT002 - see above
    take_over: bool = False,  # noqa: FBT001, FBT002 - see above
) -> dict[str, Any] | State[Any]:
    """Tell what a run would send, why, and what it would cost. Sends nothing, spends nothing.

    Args:
        spec: the enrichment, or the path of its YAML or JSON file.
        overrides: keys of the spec to set otherwise, such as {"limit": 20}.
        refresh: count rows that landed as not landed, as a run so started would.
        retry_failed: count rows that failed for good or used up their attempts, likewise.
        take_over: the dataset may be filled by another spec, which a run would replace.
    """
    options = Options(refresh_mark(refresh), retry_failed, take_over)
    try:
        report = preview(overridden(spec, overrides or {}), Settings(), options)
    except InputError as error:
        return refused(error, spec)
    name, what = report.spec.name, "What a run would do and cost."
    create_markdown_artifact(
        markdown=markdown(f"plan {name}", report.lines(), path_of(spec)),
        key=slug(f"plan-{name}"),
        description=what,
    )
    return report.to_json()
