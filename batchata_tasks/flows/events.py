"""The events that a run sends to Prefect's server at its end, which automations can react to.

Names and facts are an interface: docs/prefect.md lists them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from prefect.events import emit_event

from batchata_tasks.pipeline.receipt import STOPPED, Receipt, RunResult
from batchata_tasks.types.outcome import Outcome

if TYPE_CHECKING:
    from collections.abc import Callable

    from prefect.client.schemas.objects import FlowRun

COMMON = (
    *("run_id", "result", "rehearsal", "outcomes", "unsent_rows"),
    *("cost_usd", "cost_limit_usd", "warnings"),
)
"""The facts of a receipt that each event has."""
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


def send_suspended(run: FlowRun, message: str) -> None:
    """Send the server that a flow run is suspended, and for what.

    Automations that look for lost runs need that: of the run's own states Prefect may tell late,
    since those of a scheduled run wait for an event that was not sent when it was created.
    """
    resource = {
        "prefect.resource.id": f"prefect.flow-run.{run.id}",
        "prefect.resource.name": run.name,
    }
    emit_event("batchata.run-suspended", resource, payload={"message": message})


def send_events(receipt: Receipt) -> None:
    """Send the server what happened in a run; the dataset is what it happened to."""
    resource = {
        "prefect.resource.id": f"batchata.dataset.{receipt.name}",
        "prefect.resource.name": receipt.name,
        "batchata.dataset": receipt.dataset,
    }
    for event in EVENTS:
        if event.happened(receipt):
            emit_event(event.name, resource, payload=event.payload(receipt))
