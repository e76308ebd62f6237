"""A step of `prefect deploy`: no deployment of another project is taken over in silence.

A Prefect server knows a deployment by its flow's name and its own, which is that of the spec. Two
projects may have a spec of one name, and the second one's deployments would replace the first's.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from httpx import HTTPError
from prefect.client.orchestration import get_client
from prefect.exceptions import ObjectNotFound
from prefect.settings import get_current_settings

from batchata_tasks.common.text import printable

if TYPE_CHECKING:
    from collections.abc import Iterable

    from prefect.client.schemas.responses import DeploymentResponse

_USER = re.compile(r"(?<=://)[^/?#\s]*@")  # a token, often; the server hides it from nobody
_FLOWS = ("enrich", "plan", "cancel", "reconcile")


def refuse_taken(name: str, origin: str) -> dict[str, Any]:
    """Refuse to deploy under a name that another project has deployments of on the server.

    `origin` is a tag that the deployments of one prefect.yaml share, whoever deploys it and from
    wherever. Those without such a tag are ours if they work in this folder.

    Raises:
        SystemExit: one of them is of another project, or the server cannot be asked; nothing was
            changed.
    """
    try:
        _refuse_taken(name, origin)
    except HTTPError as error:
        raise SystemExit(unreachable(error, "nothing was deployed")) from None
    return {}


def unreachable(error: HTTPError, outcome: str) -> str:
    """Say that Prefect's server did not answer as it must, and what came of that."""
    url = _USER.sub("", str(get_current_settings().api.url))
    return (
        f"PREFECT_API_URL: Prefect's server at {printable(url)} cannot be asked "
        f"({type(error).__name__}): {outcome}. Start it (`prefect server start`), "
        "or set the address of the one that runs."
    )


def _refuse_taken(name: str, origin: str) -> None:
    with get_client(sync_client=True) as client:
        for flow in _FLOWS:
            try:
                found = client.read_deployment_by_name(f"{flow}/{name}")
            except ObjectNotFound:
                continue
            if origin not in found.tags and not _works_here(found):
                message = (
                    f"{flow}/{name} on this Prefect server is another project's, and would be "
                    f"replaced (it works in {shown(_places(found)) or 'an unknown place'}): "
                    "nothing was deployed. Give the spec another name, in its file and in this "
                    f"one; or, if it is yours, run `prefect deployment delete {flow}/{name}` first."
                )
                # any other error would be a traceback
                raise SystemExit(message)


def _places(found: DeploymentResponse) -> list[str]:
    """Return the folders and repositories that the runs of a deployment work in."""
    inputs: list[dict[str, Any]] = [
        dict(one) for step in found.pull_steps or [] for one in step.values()
    ]
    names = ("repository", "directory")
    return [str(one[name]) for one in inputs for name in names if name in one]


def shown(places: Iterable[str]) -> str:
    """Return folders and repositories for a terminal, without the passwords of their URLs."""
    return printable(" ".join(_USER.sub("", place) for place in places))


def _works_here(found: DeploymentResponse) -> bool:
    return any(Path(place).resolve() == Path.cwd() for place in _places(found))
