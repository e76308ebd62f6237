"""Which flow runs are lost, and what becomes of them."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, cast
from uuid import uuid4

import pytest
import yaml
from prefect.client.schemas.objects import FlowRun, State, StateType, Worker
from prefect.client.schemas.responses import DeploymentResponse
from prefect.events.schemas.events import Event, Resource

from batchata_tasks.flows.lost import (
    end_lost_passes,
    ended_before,
    keys_before_retry,
    take_up_lost,
    taken_up,
)
from batchata_tasks.operations.flow_runs import Fate
from tests.support.paths import ROOT

if TYPE_CHECKING:
    from collections.abc import Callable
    from uuid import UUID

    from prefect.client.orchestration import SyncPrefectClient

DEPLOYMENT, POOL = uuid4(), "local"
SHIPPED = (ROOT / "deployments/automations.yaml").read_text(encoding="utf-8")
OWN = FlowRun(flow_id=uuid4(), work_pool_name=POOL)
STARTED = ["Crashed", "AwaitingRetry"]


def ago(seconds: float) -> datetime:
    return datetime.now(UTC) - timedelta(seconds=seconds)


@dataclass
class Page:
    """A page of events."""

    events: list[Event]


@dataclass
class Server:
    """Answers as a server with these flow runs does; keeps the states that they are set to.

    `heard` is how many seconds ago each worker was heard, `beat` how many ago a run's process was.
    `went` are states that a run went through.
    """

    runs: list[FlowRun] = field(default_factory=list[FlowRun])
    heard: dict[str, float] = field(default_factory=dict[str, float])
    beat: float | None = None
    again: int = 0
    states: list[str] = field(default_factory=list[str])
    went: tuple[StateType, ...] = ()

    def set_flow_run_state(
        self, flow_run_id: UUID, state: State[Any], *, force: bool = False
    ) -> None:
        del flow_run_id, force
        self.states.append(str(state.name))

    def read_flow_run_states(self, flow_run_id: UUID) -> list[State[Any]]:
        assert flow_run_id
        message = "Its process was lost; it is started again and carries on."
        again = State[Any](type=StateType.SCHEDULED, name="AwaitingRetry", message=message)
        by_others = State[Any](type=StateType.SCHEDULED, name="AwaitingRetry")
        went = [
            State[Any](type=kind, timestamp=ago(100 - number))  # pyright: ignore[reportArgumentType]
            for number, kind in enumerate(self.went)
        ]
        return [*reversed(went), *[again] * self.again, *[by_others] * 5]

    def read_flow_runs(self, **_filters: object) -> list[FlowRun]:
        return self.runs

    def read_workers_for_work_pool(self, work_pool_name: str) -> list[Worker]:
        assert work_pool_name == POOL
        return [
            Worker(name=name, work_pool_id=uuid4(), last_heartbeat_time=ago(seconds))
            for name, seconds in self.heard.items()
        ]

    def read_events(self, _filter: object, limit: int) -> Page:
        assert limit == 1
        if self.beat is None:
            return Page([])
        resource = Resource({"prefect.resource.id": "prefect.flow-run.x"})
        event = "prefect.flow-run.heartbeat"
        return Page([Event(event=event, resource=resource, occurred=ago(self.beat), id=uuid4())])

    def read_deployment(self, deployment_id: UUID) -> DeploymentResponse:
        env = {"PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30"}
        return DeploymentResponse(
            id=deployment_id, name="x", flow_id=uuid4(), job_variables={"env": env}
        )


def flow_run(
    kind: StateType,
    age: float = 600,
    run_count: int = 1,
    deployment: UUID | None = DEPLOYMENT,
    pool: str | None = POOL,
    worker: str | None = None,
) -> FlowRun:
    """Return a flow run that has been in a state for `age` seconds."""
    run = FlowRun(
        flow_id=uuid4(), run_count=run_count, work_pool_name=pool, deployment_id=deployment
    )
    run.state = State[Any](type=kind, timestamp=ago(age))  # pyright: ignore[reportArgumentType]
    if worker is not None:
        run.labels["prefect.worker.name"] = worker
    return run


def client(server: Server) -> SyncPrefectClient:
    return cast("SyncPrefectClient", server)


@pytest.mark.parametrize(
    ("run", "fate", "states"),
    [
        (partial(flow_run, StateType.RUNNING), Fate.STARTED, STARTED),
        (partial(flow_run, StateType.CRASHED), Fate.STARTED, ["AwaitingRetry"]),
        (partial(flow_run, StateType.PENDING), Fate.STARTED, ["AwaitingRetry"]),
        (partial(flow_run, StateType.RUNNING, run_count=3), Fate.STARTED, STARTED),
        (partial(flow_run, StateType.RUNNING, run_count=4), Fate.LEFT, ["Failed"]),
        (partial(flow_run, StateType.CANCELLING), Fate.CANCELLED, ["Cancelled"]),
        (partial(flow_run, StateType.CANCELLED), Fate.CANCELLED, []),
        (partial(flow_run, StateType.RUNNING, age=5), Fate.LEFT, []),
        (partial(flow_run, StateType.RUNNING, deployment=None), Fate.LEFT, ["Crashed"]),
        (partial(flow_run, StateType.CRASHED, deployment=None), Fate.LEFT, []),
        (partial(flow_run, StateType.SCHEDULED), Fate.LEFT, []),
        (partial(flow_run, StateType.PAUSED), Fate.LEFT, []),
        (partial(flow_run, StateType.COMPLETED), Fate.LEFT, []),
        (partial(flow_run, StateType.FAILED), Fate.LEFT, []),
    ],
    ids=[
        "a zombie",
        "crashed, and no automation acted",
        "its worker was lost",
        "for the third time",
        "too often",
        "lost while it was cancelled",
        "cancelled before",
        "just started",
        "a command that was killed",
        "a command that is known to have crashed",
        "about to start",
        "suspended",
        "completed",
        "failed",
    ],
)
def test_a_lost_flow_run_is_started_again(
    run: Callable[[], FlowRun], fate: Fate, states: list[str]
) -> None:
    """That of a deployment is started at most three times again, then it has failed.

    What nobody would start again is called crashed.
    """
    server = Server()
    assert (taken_up(client(server), run()), server.states) == (fate, states)


@pytest.mark.parametrize(
    ("went", "states"),
    [
        ((StateType.RUNNING, StateType.CANCELLING, StateType.CRASHED), ["Cancelled"]),
        (
            (StateType.CANCELLING, StateType.CRASHED, StateType.RUNNING, StateType.CRASHED),
            ["Cancelled"],
        ),
        (
            (StateType.CANCELLING, StateType.CANCELLED, StateType.RUNNING, StateType.CRASHED),
            ["AwaitingRetry"],
        ),
        (
            (
                *(StateType.CANCELLING, StateType.CRASHED, StateType.RUNNING),
                *(StateType.COMPLETED, StateType.RUNNING, StateType.CRASHED),
            ),
            ["AwaitingRetry"],
        ),
    ],
    ids=[
        "as it was cancelled",
        "started again since",
        "cancelled, and retried by a person",
        "ended as cancelled, and retried by a person",
    ],
)
def test_what_a_person_cancelled_is_not_started_again(
    went: tuple[StateType, ...], states: list[str]
) -> None:
    """A worker that is lost as it cancels a run leaves it crashed, and nobody the wiser."""
    server = Server(went=went)
    taken_up(client(server), flow_run(StateType.CRASHED))
    assert server.states == states


@pytest.mark.parametrize("kind", [StateType.PENDING, StateType.CRASHED])
def test_a_run_that_is_lost_before_it_runs_is_not_started_for_ever(kind: StateType) -> None:
    """Starts that came to nothing count in no run, but in the states that it went through.

    It is started again at all: the automation leaves one that crashed so to `watch`.
    """
    for again, fate, state in ((2, Fate.STARTED, "AwaitingRetry"), (3, Fate.LEFT, "Failed")):
        server = Server(again=again)
        assert taken_up(client(server), flow_run(kind, run_count=0)) is fate
        assert server.states == [state]


@pytest.mark.parametrize(
    ("heard", "is_lost"),
    [
        ({"gone": 80, "another": 2}, True),
        ({"another": 2}, True),
        ({"gone": 30, "another": 2}, False),
        ({"gone": 200, "another": 190}, False),
        ({"gone": 200}, False),
    ],
    ids=["silent", "deleted", "pulls an image", "the server was away", "there is no other"],
)
def test_a_pending_run_is_lost_with_its_worker(heard: dict[str, float], *, is_lost: bool) -> None:
    """It is started again if its worker is not heard while another one is, and never before."""
    server = Server([flow_run(StateType.PENDING, age=500, worker="gone")], heard)
    assert len(take_up_lost(client(server), (), OWN)) == is_lost
    assert server.states == (["AwaitingRetry"] if is_lost else [])


@pytest.mark.parametrize(
    ("name", "age", "is_lost"), [("Pending", 100, 1), ("Pending", 70, 0), ("Submitting", 100, 0)]
)
def test_a_pending_run_is_lost_that_no_worker_says_to_have(
    name: str, age: float, is_lost: int
) -> None:
    """A worker says so seconds after it has taken a run: this one died before that."""
    run = flow_run(StateType.PENDING, age=age)
    assert run.state is not None
    run.state.name = name
    assert len(take_up_lost(client(Server([run], {"another": 2})), (), OWN)) == is_lost


def test_a_run_that_is_pending_for_long_is_lost_whoever_is_heard() -> None:
    """Its process may have died as it started, of which no worker tells."""
    server = Server([flow_run(StateType.PENDING, age=700, worker="here")], {"here": 2})
    assert len(take_up_lost(client(server), (), OWN)) == 1


@pytest.mark.parametrize(
    ("worker", "kind", "age", "pid", "is_lost"),
    [
        ("here", "process", 100, "ended", True),
        ("here", "process", 80, "ended", False),
        ("here", "process", 100, "living", False),
        ("here", "process", 100, None, False),
        ("here", "process", 100, "9" * 30, False),
        ("here", "docker", 100, "ended", False),
        ("there", "process", 100, "ended", False),
    ],
)
def test_a_pending_run_is_lost_whose_process_has_ended(
    worker: str | None, kind: str, age: float, pid: str | None, *, is_lost: bool
) -> None:
    """The worker that started it could not tell; its own `watch` sees that the process is gone."""
    run = flow_run(StateType.PENDING, age=age, run_count=0, worker=worker)
    run.labels["prefect.worker.type"] = kind
    with subprocess.Popen(["true"]) as ended:
        ended.wait()
    run.infrastructure_pid = {"ended": str(ended.pid), "living": str(os.getpid())}.get(
        pid or "", pid
    )
    own = FlowRun(
        flow_id=uuid4(),
        work_pool_name=POOL,
        labels={"prefect.worker.name": "here", "prefect.worker.type": kind},
    )
    server = Server([run], {"here": 2, "there": 2})
    assert len(take_up_lost(client(server), (), own)) == is_lost
    run.run_count = 1  # it may be the process of its first start
    assert take_up_lost(client(server), (), own) == []


@pytest.mark.parametrize(
    ("kind", "beat", "states"),
    [
        (StateType.RUNNING, 100, STARTED),
        (StateType.RUNNING, None, STARTED),
        (StateType.RUNNING, 60, []),
        (StateType.CANCELLING, 100, ["Cancelled"]),
        (StateType.CANCELLING, 60, []),
        (StateType.CRASHED, None, ["AwaitingRetry"]),
    ],
)
def test_a_run_that_gives_no_sign_of_life_is_lost(
    kind: StateType, beat: float | None, states: list[str]
) -> None:
    """Three signs that a deployment asks for were missed, and no process holds its dataset."""
    server = Server([flow_run(kind)], beat=beat)
    run = server.runs[0]
    assert take_up_lost(client(server), {f"flow run {run.id}"}, OWN) == []
    assert server.states == []
    take_up_lost(client(server), (), OWN)
    assert server.states == states


def test_a_command_has_longer_to_give_a_sign() -> None:
    """What sets no frequency gives a sign every three minutes."""
    server = Server([flow_run(StateType.RUNNING, age=500, deployment=None, pool=None)])
    take_up_lost(client(server), (), OWN)
    assert server.states == []


@pytest.mark.parametrize(
    "run",
    [
        partial(flow_run, StateType.RUNNING, pool="another team's"),
        partial(flow_run, StateType.RUNNING, age=50),
        partial(flow_run, StateType.CRASHED, age=4000),
    ],
    ids=["of another pool", "just started", "known for an hour"],
)
def test_what_is_not_ours_to_take_up_is_left(run: Callable[[], FlowRun]) -> None:
    """Runs of other pools have their own `watch`; an old crash has been seen by a person."""
    server = Server([run()])
    assert take_up_lost(client(server), (), OWN) == []
    assert server.states == []


ACTIONS = [one["actions"][0] for one in yaml.safe_load(SHIPPED)["automations"]]


@pytest.mark.parametrize(
    "message", [one["message"] for one in ACTIONS if one.get("state") == "SCHEDULED"]
)
def test_a_state_that_an_automation_sets_late_does_nothing_twice(message: str) -> None:
    """Whatever it took for lost: the run has ended since, and ends once more as it did."""
    for between in ([], [("CRASHED", "No sign of life")]):
        done, late = history(("COMPLETED", "400 succeeded"), *between, ("SCHEDULED", message))
        ended = ended_before(client(late), done)
        assert ended is not None
        assert ended.message == "400 succeeded"
    run, wanted = history(("COMPLETED", "400 succeeded"), ("SCHEDULED", "Retry from the UI"))
    assert ended_before(client(wanted), run) is None  # a person wants it
    lost, again = history(("SCHEDULED", "Retry"), ("CRASHED", ""), ("SCHEDULED", message))
    assert ended_before(client(again), lost) is None  # it has not ended


def history(*states: tuple[str, str]) -> tuple[FlowRun, Server]:
    """Return a flow run that went through states (kind, message), and a server that says so."""

    class Told(Server):
        def read_flow_run_states(self, flow_run_id: UUID) -> list[State[Any]]:
            del flow_run_id
            return [
                State[Any](type=StateType[kind], message=text, timestamp=ago(90 - number))  # pyright: ignore[reportArgumentType]
                for number, (kind, text) in enumerate(states)
            ]

    return flow_run(StateType.RUNNING), Told()


def test_lost_passes_are_ended() -> None:
    """They count in the limit of passes at once for as long as they seem to run."""
    passes = [
        flow_run(StateType.RUNNING),
        flow_run(StateType.RUNNING, deployment=uuid4()),
        flow_run(StateType.CRASHED),
    ]
    server = Server(passes)
    end_lost_passes(client(server), DEPLOYMENT)
    assert server.states == ["Crashed"]
    server = Server(passes, beat=20)
    end_lost_passes(client(server), DEPLOYMENT)
    assert server.states == []


SUSPENDED, AGAIN = ("Suspended", "a"), ("AwaitingRetry", "Retry from the UI")
RESUMED, BY_NOBODY = (
    ("Resuming", None),
    ("AwaitingRetry", "It crashed; it is started again and carries on."),
)


@pytest.mark.parametrize("end", ["Cancelled", "BatchesCancelled"])
@pytest.mark.parametrize(
    ("went", "keys"),
    [
        ([SUSPENDED, RESUMED], set[str]()),
        ([SUSPENDED, "end", AGAIN], {"a"}),
        ([SUSPENDED, "end", BY_NOBODY], set[str]()),
        ([SUSPENDED, "end", AGAIN, ("Suspended", "b"), RESUMED], {"a"}),
        ([SUSPENDED, ("Crashed", None), AGAIN], set[str]()),
    ],
)
def test_a_person_who_starts_a_cancelled_run_again_forgets_what_it_waited_for(
    end: str, went: list[tuple[str, str | None] | str], keys: set[str]
) -> None:
    """What was cancelled by then is over, and what it waited for since is not."""
    kinds = {
        "Suspended": StateType.PAUSED,
        "Resuming": StateType.SCHEDULED,
        "AwaitingRetry": StateType.SCHEDULED,
        "Crashed": StateType.CRASHED,
        "Cancelled": StateType.CANCELLED,
        "BatchesCancelled": StateType.COMPLETED,
    }
    told = [(end, None) if one == "end" else one for one in went]

    class States(Server):
        def read_flow_run_states(self, flow_run_id: UUID) -> list[State[Any]]:
            assert flow_run_id
            states = list[State[Any]]()
            for number, (name, text) in enumerate(told):
                state = State[Any](type=kinds[name], name=name, timestamp=ago(100 - number))
                if state.is_paused():
                    state.state_details.pause_key = text
                else:
                    state.message = text
                states.insert(0, state)
            return states

    assert keys_before_retry(client(States()), flow_run(StateType.RUNNING)) == keys
