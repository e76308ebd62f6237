"""Which flow runs are taken up that were lost, and what a pause key says."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, cast
from uuid import uuid4

import pytest
from prefect.client.schemas.objects import FlowRun, State, StateType

from batchata_tasks.flows.flow_runs import (
    Awaited,
    awaited_by,
    pause_key,
    suspended_for,
    taken_up,
)
from batchata_tasks.operations.watch import Fate

if TYPE_CHECKING:
    from uuid import UUID

    from prefect.client.orchestration import SyncPrefectClient


class Server:
    """Keeps the states that flow runs are set to."""

    def __init__(self) -> None:
        self.states = list[str]()

    def set_flow_run_state(
        self, flow_run_id: UUID, state: State[Any], *, force: bool = False
    ) -> None:
        del flow_run_id, force
        self.states.append(str(state.name))


def flow_run(
    kind: StateType, age: float = 600, run_count: int = 1, pool: str | None = "local"
) -> FlowRun:
    """Return a flow run that has been in a state for `age` seconds."""
    entered = datetime.now(UTC) - timedelta(seconds=age)
    run = FlowRun(flow_id=uuid4(), run_count=run_count, work_pool_name=pool)
    run.state = State[Any](type=kind, timestamp=entered)  # pyright: ignore[reportArgumentType]
    return run


def fate_of(run: FlowRun) -> tuple[Fate, list[str]]:
    server = Server()
    return taken_up(cast("SyncPrefectClient", server), run), server.states


@pytest.mark.parametrize(
    ("run", "fate", "states"),
    [
        (flow_run(StateType.RUNNING), Fate.STARTED, ["Crashed", "AwaitingRetry"]),
        (flow_run(StateType.CRASHED), Fate.STARTED, ["AwaitingRetry"]),
        (flow_run(StateType.RUNNING, run_count=3), Fate.STARTED, ["Crashed", "AwaitingRetry"]),
        (flow_run(StateType.RUNNING, run_count=4), Fate.LEFT, ["Failed"]),
        (flow_run(StateType.CANCELLING), Fate.CANCELLED, ["Cancelled"]),
        (flow_run(StateType.CANCELLED), Fate.CANCELLED, []),
        (flow_run(StateType.RUNNING, age=5), Fate.LEFT, []),
        (flow_run(StateType.RUNNING, pool=None), Fate.LEFT, []),
        (flow_run(StateType.SCHEDULED), Fate.LEFT, []),
        (flow_run(StateType.PAUSED), Fate.LEFT, []),
        (flow_run(StateType.COMPLETED), Fate.LEFT, []),
        (flow_run(StateType.FAILED), Fate.LEFT, []),
    ],
    ids=[
        "a zombie",
        "crashed, and no automation acted",
        "for the third time",
        "too often",
        "lost while it was cancelled",
        "cancelled before",
        "just started",
        "nobody would start it",
        "about to start",
        "suspended",
        "completed",
        "failed",
    ],
)
def test_a_lost_flow_run_is_started_again(run: FlowRun, fate: Fate, states: list[str]) -> None:
    """A run whose process was lost is started at most three times again, then it has failed."""
    assert fate_of(run) == (fate, states)


def test_a_pause_key_names_the_run_and_counts_once() -> None:
    """Each wait of a flow run has a key of its own, by which others know what is awaited."""
    run, awaited = flow_run(StateType.RUNNING), Awaited("ledger", "run")
    first = pause_key(awaited, run)
    run.empirical_policy.pause_keys = {first, "somebody's own"}
    assert pause_key(awaited, run) != first
    assert awaited_by(run) == {awaited}
    assert suspended_for(run) is None
    assert run.state is not None
    run.state.state_details.pause_key = first
    assert suspended_for(run) == awaited
