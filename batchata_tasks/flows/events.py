"""The events that a run sends to Prefect's server at its end, which automations can react to.

Names and facts are an interface: docs/prefect.md lists them.
"""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid5

from prefect.events import Event, RelatedResource, Resource, emit_event
from prefect.events.related import object_as_related_resource, tags_as_related_resources
from prefect.exceptions import ObjectNotFound
from prefect.runtime import flow_run

from batchata_tasks.pipeline.receipt import STOPPED, Receipt, RunResult
from batchata_tasks.types.outcome import Outcome

if TYPE_CHECKING:
    from collections.abc import Callable

    from prefect.client.orchestration import SyncPrefectClient
    from prefect.client.schemas.objects import FlowRun

COMMON = (
    *("run_id", "result", "rehearsal", "outcomes", "unsent_rows"),
    *("cost_usd", "cost_limit_usd", "warnings"),
)
"""The facts of a receipt that each event has."""
_OF_RUNS = UUID("5f1f4a0e-6d0c-4d0f-9a55-0a8d3f1c7e21")  # a name space of ids, drawn once
_BY_SPEC = ("prompt", "model", "schema")  # reasons to send landed rows again that a spec gives


@dataclass(frozen=True, slots=True)
class RunEvent:
    """An event: its name, whether a run is one, and the facts that it has beside the common ones.

    They are those of the receipt, and those of its plan.
    """

    name: str
    happened: Callable[[Receipt], bool]
    facts: tuple[str, ...] = ()
    of_plan: tuple[str, ...] = ()

    def payload(self, receipt: Receipt) -> dict[str, Any]:
        """Return the event's facts of a run, as plain JSON values."""
        known = receipt.to_json()
        told = {name: known[name] for name in (*COMMON, *self.facts)}
        return told | {name: receipt.plan[name] for name in self.of_plan}


def _has_failed_rows(receipt: Receipt) -> bool:
    return any(outcome != Outcome.SUCCEEDED for outcome in receipt.outcomes)


def _has_drifted(receipt: Receipt) -> bool:
    return bool(receipt.plan["renamed"]) or any(
        receipt.plan["reasons"].get(reason) for reason in _BY_SPEC
    )


EVENTS = (
    RunEvent(
        "batchata.rows-landed",
        lambda receipt: bool(receipt.outcomes),
        ("dataset", "batches", "seconds"),
    ),
    RunEvent(
        "batchata.rows-failed",
        _has_failed_rows,
        ("failed_share", "failed_above_limit", "errors"),
    ),
    RunEvent(
        "batchata.rows-held",
        lambda receipt: receipt.held_rows > 0,
        ("held_rows", "reserved_usd"),
    ),
    RunEvent(
        "batchata.cost-limit-reached",
        lambda receipt: receipt.result == RunResult.COST_LIMIT_REACHED,
        ("budget",),
    ),
    RunEvent(
        "batchata.time-limit-reached",
        lambda receipt: receipt.result == RunResult.TIME_LIMIT_REACHED,
        ("seconds",),
    ),
    RunEvent("batchata.run-stopped", lambda receipt: receipt.result in STOPPED, ("reason",)),
    RunEvent("batchata.drift", _has_drifted, of_plan=("reasons", "renamed", "misfits", "requests")),
    RunEvent("batchata.run-carried-on", lambda receipt: receipt.continued),
)


def send_suspended(run: FlowRun, ledger_id: str, message: str) -> None:
    """Send the server that a flow run is suspended, for what, and that `watch` is awaited.

    Automations that look for lost runs need that, and `send_ended`: Prefect may hold the run's own
    states back for a quarter of an hour. Its scheduler sends no event of the runs that it makes,
    and those of their states within the next five minutes wait for that one.
    """
    emit_event("batchata.run-suspended", _flow_run(run.id, run.name), payload={"message": message})
    emit_event("batchata.watch-awaited", _ledger(ledger_id))


def send_unwatched(ledger_id: str, message: str, waiting: list[str]) -> None:
    """Send the server that flow runs are suspended which nobody resumes."""
    payload = {"message": message, "waiting": waiting}
    emit_event("batchata.unwatched", _ledger(ledger_id), payload=payload)


def send_watched(client: SyncPrefectClient, ledger_id: str, waiting: int) -> None:
    """Send the server that `watch` has looked at a ledger, and how many flow runs wait for it.

    Raises:
        HTTPError: the server does not take it.
    """
    name = "batchata.watch-passed" if waiting else "batchata.watch-idle"
    resource, payload = Resource(_ledger(ledger_id)), {"waiting": waiting}
    event = Event(event=name, resource=resource, payload=payload)
    client.request("POST", "/events", json=[event.model_dump(mode="json")])


def send_ended() -> None:
    """Send the server that this flow run comes to its end."""
    emit_event("batchata.run-ended", _flow_run(flow_run.id, flow_run.name))


def _ledger(ledger_id: str) -> dict[str, str]:
    return {"prefect.resource.id": f"batchata.ledger.{ledger_id.lower()}"}


def _flow_run(flow_run_id: object, name: object) -> dict[str, str]:
    return {
        "prefect.resource.id": f"prefect.flow-run.{flow_run_id}",
        "prefect.resource.name": str(name),
    }


def send_events(receipt: Receipt) -> None:
    """Send the server what happened in this flow run's run; the dataset is what it happened to.

    The flow run is related to it, with all that it belongs to.
    """
    for event in _happened(receipt):
        emit_event(event.name, _dataset(receipt), payload=event.payload(receipt))


def send_events_of(client: SyncPrefectClient, run: FlowRun | None, receipt: Receipt) -> None:
    """Send the server what happened in the run of another flow run, if that is known.

    That one is related to it, and not this process's: automations act on what is related. Sent
    again, an event is the same to the server, by its id.

    Raises:
        HTTPError: the server does not take it.
    """
    related = [] if run is None else _related(client, run)
    events = [
        Event(
            event=event.name,
            resource=Resource(_dataset(receipt)),
            related=related,
            payload=event.payload(receipt),
            id=_id(event, receipt),
        ).model_dump(mode="json")
        for event in _happened(receipt)
    ]
    if events:
        client.request("POST", "/events", json=events)


def _happened(receipt: Receipt) -> list[RunEvent]:
    return [event for event in EVENTS if event.happened(receipt)]


def _id(event: RunEvent, receipt: Receipt) -> UUID:
    facts = json.dumps(event.payload(receipt), sort_keys=True)
    return uuid5(_OF_RUNS, f"{event.name} {facts}")


def _dataset(receipt: Receipt) -> dict[str, str]:
    return {
        "prefect.resource.id": f"batchata.dataset.{receipt.name}",
        "prefect.resource.name": receipt.name,
        "batchata.dataset": receipt.dataset,
    }


def _related(client: SyncPrefectClient, run: FlowRun) -> list[RelatedResource]:
    """Return a flow run, its flow, its deployment and its tags, as Prefect relates them."""
    related = [
        object_as_related_resource("flow-run", "flow-run", run),
        object_as_related_resource("flow", "flow", client.read_flow(run.flow_id)),
    ]
    if run.deployment_id is not None:
        with suppress(ObjectNotFound):  # it was deleted
            deployed = client.read_deployment(run.deployment_id)
            related.append(object_as_related_resource("deployment", "deployment", deployed))
    return related + tags_as_related_resources(run.tags)
