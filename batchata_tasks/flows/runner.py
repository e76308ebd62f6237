"""Runs a spec as a flow run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from prefect.client.orchestration import get_client
from prefect.settings import get_current_settings

from batchata_tasks.common.errors import LeaseError, SpecError
from batchata_tasks.flows.enrich import as_flow, enrich, handed_on
from batchata_tasks.flows.tasks import STEPS
from batchata_tasks.flows.workers import require_installed
from batchata_tasks.pipeline.receipt import Receipt
from batchata_tasks.pipeline.runner import in_flow
from batchata_tasks.progress.listener import told_to

if TYPE_CHECKING:
    from collections.abc import Callable

    from batchata_tasks.pipeline.steps import Steps
    from batchata_tasks.planning.prepare import PreparedRun
    from batchata_tasks.progress.listener import Progress
    from batchata_tasks.spec.enrichment import EnrichmentSpec
    from batchata_tasks.spec.jobs import JobsSpec


class PrefectRunner:
    """See Runner: a flow run of its own, or, inside of somebody's flow, tasks of that one.

    `begun` is called in each flow run of a table, once Prefect has set its signal handlers.
    """

    def __init__(self, begun: Callable[[], None] = lambda: None) -> None:
        self._begun = begun

    def table(
        self,
        ready: PreparedRun,
        progress: Progress,
        *,
        refresh: bool,
        retry_failed: bool,
        take_over: bool = False,
    ) -> Receipt:
        """See Runner."""
        require_installed(ready.settings.task_runner)
        _require_server()
        spec = cast("EnrichmentSpec", ready.spec)  # nothing else describes a table
        with told_to(progress), handed_on(ready, self._begun):
            state: Any = enrich(
                spec,
                refresh=refresh,
                retry_failed=retry_failed,
                take_over=take_over,
                wait="process",
                return_state=True,
            )
        if progress.receipt is None:
            # raises what stopped the run, unless another one holds the dataset
            result = state.result()
            raise LeaseError(str(result["error"]))
        return Receipt(**progress.receipt)

    def jobs(self, spec: JobsSpec, work: Callable[[Steps], Receipt]) -> Receipt:
        """See Runner."""
        if in_flow():
            return work(STEPS)
        _require_server()
        return as_flow(spec, work)


def _require_server() -> None:
    """Refuse to begin a flow run on a server that is configured, but does not answer.

    Prefect would fail with a long traceback. The setting may be years old: `prefect config set`
    writes it to a profile.

    Raises:
        SpecError: the server cannot be reached.
    """
    url = get_current_settings().api.url
    if url is None:
        return  # a temporary server is started
    with get_client(sync_client=True) as client:
        error = client.api_healthcheck()
    # an answer of any kind is an answer: a proxy may not pass the health check on
    if error is not None and not hasattr(error, "response"):
        message = (
            f"PREFECT_API_URL: Prefect's server at {url} cannot be reached; start it "
            "(`prefect server start`), forget it (`prefect config unset PREFECT_API_URL`), or run "
            "with --direct."
        )
        raise SpecError(message)
