"""What a Prefect server knows of runs in `status`: cancelled there, or of a deployment."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from batchata_tasks.common.text import pluralize
from batchata_tasks.ledger import ChunkState, is_flow_run

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_AGAIN = "start the same command again"
_OPEN = (ChunkState.SUBMITTED, ChunkState.UNCLEAR)
_MAY_GO_ON = ("RUNNING", "PENDING", "CRASHED")  # types of states in which a lost run is taken up


def asked_of_server(runs: Iterable[dict[str, Any]]) -> set[str]:
    """Return the flow runs of open runs at which no process is at work, as the ledger names them.

    Their server may know more than the ledger.
    """
    works = {str(run["work"]) for run in runs if not run["cancel_asked"]}
    return {work for work in works if is_flow_run(work)}


def note_flow_runs(runs: Iterable[dict[str, Any]], known: Mapping[str, dict[str, Any]]) -> None:
    """Note of runs what their server knows of the flow runs that began them."""
    for run in runs:
        run["flow_run"] = known.get(str(run["work"]))


def cancelled_there(run: dict[str, Any]) -> bool:
    """Whether a person cancelled the flow run of a run, and nobody has carried that out."""
    flow_run = run.get("flow_run")
    return flow_run is not None and flow_run["state"] == "CANCELLED"


def cancelled_text(run: dict[str, Any], *, watched: bool) -> str:
    """Return that a run was cancelled on Prefect's server alone, and what carries it out."""
    still_open = sum(batch["state"] in _OPEN for batch in run["batches"])
    what, it = "nothing of it is at the provider, but it has not ended", "ends it"
    if still_open:
        what = (
            f"{pluralize(still_open, 'batch goes', 'batches go')} on at the provider, and what "
            f"{'it does' if still_open == 1 else 'they do'} is paid for"
        )
        it = f"cancels {'it' if still_open == 1 else 'them'}, and lands what ran"
    text = f"{run['name']}: its flow run was cancelled on Prefect's server: {what}."
    if watched:
        return f"{text} `watch` {it}, at its next pass; `batchata watch --once` does so now."
    return f"{text} Nobody watches: `batchata watch --once` {it}."


def how_to_start(run: dict[str, Any], *, watched: bool) -> str:
    """Return how a run that stopped is started again, in an imperative."""
    flow_run, work = run.get("flow_run"), run.get("work")
    if flow_run is None or flow_run["deployment"] is None:
        others = "" if flow_run is not None or not is_flow_run(work) else _BY_DEPLOYMENT
        return _AGAIN + others
    command = f"`prefect deployment run {flow_run['deployment']!r}`"
    if watched and flow_run["state"] in _MAY_GO_ON:
        return f"`watch` has its flow run started again, within some minutes, or {command} now"
    return f"start it again by {command}"


_BY_DEPLOYMENT = " (a run of a deployment: `watch` does, or `prefect deployment run`)"


def how_to_take_over(runs: Iterable[dict[str, Any]]) -> str:
    """Return the command that goes on at once with runs that wait without a process."""
    flow_runs = [run.get("flow_run") for run in runs]
    deployed = any(one is not None and one["deployment"] is not None for one in flow_runs)
    return "`batchata run SPEC`" if deployed else "the same command"
