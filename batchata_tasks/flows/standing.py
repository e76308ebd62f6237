"""What the Prefect server that is configured knows of flow runs, for those who only look.

It imports no more of Prefect than it needs, and waits for the server for no more than a moment.
"""

from __future__ import annotations

from contextlib import suppress
from threading import Thread
from typing import TYPE_CHECKING, Any
from uuid import UUID

from httpx import HTTPError, InvalidURL
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import (
    DeploymentFilter,
    DeploymentFilterId,
    FlowRunFilter,
    FlowRunFilterId,
)
from prefect.exceptions import PrefectException
from prefect.settings import get_current_settings

from batchata_tasks.flows.names import ENRICH

if TYPE_CHECKING:
    from collections.abc import Collection

_AT_MOST = 2.0  # seconds that the server has to answer


def standing(works: Collection[str]) -> dict[str, dict[str, Any]]:
    """Return the facts of flow runs, which are named as the ledger names them.

    They are `id`, `name`, `state` (its type) and `deployment` (flow and name; None if it is of
    none). Those are missing that the server does not have; and so are all of them if none is
    configured, or it does not answer at once.
    """
    found = dict[str, dict[str, Any]]()
    if not get_current_settings().api.url:
        return found

    def ask() -> None:
        # whatever is wrong with the server, or the way to it: this is only beside the point
        with suppress(HTTPError, InvalidURL, PrefectException, OSError, RuntimeError, ValueError):
            found.update(_asked(works))

    asking = Thread(target=ask, name="flow runs", daemon=True)
    asking.start()
    asking.join(_AT_MOST)
    return dict(found)


def flow_run_of(work: str) -> UUID | None:
    """Return the id of a flow run, also if it is named as the ledger names its work."""
    try:
        return UUID(work.removeprefix("flow run "))
    except ValueError:
        return None


def _asked(works: Collection[str]) -> dict[str, dict[str, Any]]:
    ids = {found: work for work in works if (found := flow_run_of(work)) is not None}
    with get_client(httpx_settings={"timeout": _AT_MOST}, sync_client=True) as client:
        wanted = FlowRunFilter(id=FlowRunFilterId(any_=list(ids)))
        runs = client.read_flow_runs(flow_run_filter=wanted)
        deployed = {run.deployment_id for run in runs if run.deployment_id is not None}
        of_these = DeploymentFilter(id=DeploymentFilterId(any_=list(deployed)))
        deployments = client.read_deployments(deployment_filter=of_these) if deployed else []
    names = {one.id: f"{ENRICH}/{one.name}" for one in deployments}
    return {
        ids[run.id]: {
            "id": str(run.id),
            "name": run.name,
            "state": None if run.state is None else run.state.type.value,
            "deployment": None if run.deployment_id is None else names.get(run.deployment_id),
        }
        for run in runs
    }
