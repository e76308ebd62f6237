"""The flow `watch`: looks once at all open batches, resumes flow runs, lands what is nobody's."""

from __future__ import annotations

from typing import Any

from prefect import flow, get_run_logger
from prefect.client.schemas.objects import State  # noqa: TC002 - Prefect reads a flow's annotations
from prefect.settings import get_current_settings
from prefect.states import Completed

from batchata_tasks.common.errors import InputError
from batchata_tasks.common.settings import Settings
from batchata_tasks.flows.events import send_ended
from batchata_tasks.flows.flow_runs import PrefectFlowRuns, make_room, this_flow_run
from batchata_tasks.flows.names import WATCH
from batchata_tasks.flows.refused import refused
from batchata_tasks.operations import watch as watching
from batchata_tasks.operations.flow_runs import FlowRuns, NoFlowRuns
from batchata_tasks.progress.listener import LineProgress


@flow(name=WATCH, flow_run_name=WATCH, validate_parameters=True)
def watch(minutes: float = watching.GATHERED / 60) -> State[dict[str, Any]]:
    """Look once at every open batch of the ledger, and do what there is to do.

    Suspended flow runs whose batches ended are resumed, what a person cancelled is cancelled at the
    provider, and what no flow run is there for lands here.

    Args:
        minutes: for how long batches that ended wait for the others of their run.
    """
    progress = LineProgress(get_run_logger().info)
    make_room()
    run = this_flow_run()
    flow_runs = PrefectFlowRuns(repeated=run is not None and run.auto_scheduled)
    try:
        report = watching.watch(Settings(), flow_runs, gathered=minutes * 60, progress=progress)
        state: State[Any] = Completed(message=report.in_words(), data=report.to_json())
    except InputError as error:
        state = refused(error)
    send_ended()
    return state


def flow_runs(*, repeated: bool) -> FlowRuns:
    """Return the flow runs of the server that is configured; of none if none is.

    `repeated` tells whether more passes follow.
    """
    if get_current_settings().api.url:
        return PrefectFlowRuns(repeated=repeated)
    return NoFlowRuns()
