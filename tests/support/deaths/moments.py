"""The moments of a flow run's life at which something dies, and how a run is brought to each."""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from tests.support.deaths.world import BATCHES
from tests.support.ledger_look import LedgerLook

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.deaths.world import Lane

_PATIENCE = 180.0  # seconds in which a moment has to come
_LONG, _SHORT, _DAY = 30.0, 1.0, 86400.0  # seconds that a batch takes at the provider


@dataclass
class Begun:
    """A run of the flow `enrich` whose dataset is its own."""

    lane: Lane
    id: str
    ledger: LedgerLook

    def state(self) -> dict[str, Any]:
        """Return its state on the server."""
        return self.lane.server.get(f"flow_runs/{self.id}")["state"]

    def states(self) -> list[dict[str, Any]]:
        """Return the states that it went through, in order."""
        states = self.lane.server.get(f"flow_run_states/?flow_run_id={self.id}")
        return sorted(states, key=lambda state: state["timestamp"])

    def stage(self, name: str) -> int:
        """Return how many of its batches are in a stage."""
        return self.ledger.stages()[name]

    def until(self, look: Callable[[], object], every: float = 0.02) -> None:
        """Wait until something is seen."""
        deadline = time.monotonic() + _PATIENCE
        while not look():
            assert time.monotonic() < deadline, f"the moment never came: {self.state()}"
            time.sleep(every)


def begun(
    lane: Lane, name: str, takes: float, due: datetime | None = None, **parameters: Any
) -> Begun:
    """Have a flow run scheduled; a batch takes so many seconds at the provider."""
    lane.emulator.control.reset()
    lane.emulator.control.progress("seconds", takes)
    output = f"data/out/{name}"
    parameters = {
        "spec": "deployments/specs/package-topics.yaml",
        "overrides": {"output": output, "pilot": False},
        **parameters,
    }
    deployed = lane.team.deployment("enrich")["id"]
    state: dict[str, Any] = {"type": "SCHEDULED"}
    if due is not None:
        state["state_details"] = {"scheduled_time": due.isoformat()}
    body = {"parameters": parameters, "state": state}
    run = lane.server.ask(f"deployments/{deployed}/create_flow_run", body)
    ledger = LedgerLook(lane.team.ledger.ledger_url, lane.team.folder / output)
    return Begun(lane, run["id"], ledger)


def scheduled(lane: Lane, name: str) -> Begun:
    """It is due in an hour."""
    return begun(lane, name, _SHORT, datetime.now(UTC) + timedelta(hours=1))


def pending(lane: Lane, name: str) -> Begun:
    """A worker has taken it, and starts its process."""
    run = begun(lane, name, _SHORT)
    run.until(lambda: run.state()["type"] == "PENDING" and lane.team.engines(run.id))
    return run


def planning(lane: Lane, name: str) -> Begun:
    """It reads its source."""
    run = begun(lane, name, _SHORT)
    run.until(lambda: run.stage("planning"), 0.002)
    return run


def submitting(lane: Lane, name: str) -> Begun:
    """Some of its batches are sent, and others are not; creates are slow."""
    run = begun(lane, name, _SHORT)
    lane.emulator.control.faults(kind="slow_after", seconds=0.2)
    run.until(lambda: run.stage("sending"), 0.002)
    return run


def waiting(lane: Lane, name: str) -> Begun:
    """It waits for its batches in its process."""
    run = begun(lane, name, _DAY, wait="process")
    run.until(lambda: run.stage("polling") == BATCHES)
    return run


def suspended(lane: Lane, name: str, takes: float = _LONG) -> Begun:
    """It waits for its batches without a process."""
    run = begun(lane, name, takes)
    run.until(lambda: run.state()["name"] == "Suspended", 0.2)
    return run


def resuming(lane: Lane, name: str) -> Begun:
    """Its batches ended while it was suspended, and a worker is about to take it again."""
    run = suspended(lane, name)
    run.until(lambda: run.state()["name"] == "Resuming")
    return run


def starting_again(lane: Lane, name: str) -> Begun:
    """Its batches ended while it was suspended, and a worker starts its process again."""
    run = resuming(lane, name)
    run.until(lambda: lane.team.engines(run.id), 0.05)
    return run


def landing(lane: Lane, name: str) -> Begun:
    """Its answers are being written into the dataset."""
    run = begun(lane, name, _SHORT)
    run.until(lambda: run.stage("landing"), 0.002)
    return run


def cancelling(lane: Lane, name: str) -> Begun:
    """A person cancelled it while its batches are at the provider, and its process is to end."""
    run = begun(lane, name, _DAY)
    run.until(lambda: run.stage("polling") == BATCHES)
    lane.cancel(run.id)
    return run
