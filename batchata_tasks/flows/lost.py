"""Flow runs that were lost: by which signs that is known, and what becomes of them.

A flow run is lost if its process is gone, or the worker that took it, and nobody told the server.
It stays `Running`, `Pending` or `Cancelling` for ever then. That of a deployment is started again,
at most three times, and carries on; any other one is called what it is.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from prefect.client.schemas.filters import (
    FlowFilter,
    FlowFilterName,
    FlowRunFilter,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import StateType
from prefect.client.schemas.sorting import FlowRunSort
from prefect.events.filters import EventFilter, EventNameFilter, EventResourceFilter
from prefect.exceptions import ObjectNotFound
from prefect.states import AwaitingRetry, Cancelled, Crashed, Failed

from batchata_tasks.common.json import as_dict
from batchata_tasks.common.process import has_ended
from batchata_tasks.flows.names import BATCHES_CANCELLED, ENRICH, WATCH
from batchata_tasks.operations.flow_runs import Fate

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from prefect.client.orchestration import SyncPrefectClient
    from prefect.client.schemas.objects import FlowRun, State

SETTLED = 60.0
"""Seconds for which a state must have been there: a run that starts takes a while."""

_MOST_STARTS = 3  # as in the automations that start crashed runs again
_PAGE = 200  # the most that a server returns at once
_RECENT = 3600.0  # seconds for which a crash is news: later a person has seen it
# a process that could not reach the server as it started is gone, though its worker is there
_LONGEST_START = 600.0  # seconds, in which an image may be pulled
_BEATS = 3  # signs of life that a process misses until it is lost
_WORKERS_BEATS = 2.5  # those that a worker misses, in which another one of its pool is heard
_FREQUENCY = "PREFECT_FLOWS_HEARTBEAT_FREQUENCY"
_EVERY, _WORKERS_EVERY = 180.0, 30.0  # seconds between signs of life, if nothing else was set
# by which states of ours, and of the automations, are known
_AGAIN, _BY_ANOTHER = "it is started again and carries on.", "another one may."
# the labels with which a worker marks the runs that it takes
_WORKER, _WORKERS_TYPE = "prefect.worker.name", "prefect.worker.type"
_SURELY_STARTED = 90.0  # seconds, after which a worker has told of a process that it started
_BEGUN = (StateType.PENDING, StateType.RUNNING, StateType.CANCELLING, StateType.CRASHED)


def take_up_lost(
    client: SyncPrefectClient, at_work: Collection[str], own: FlowRun | None
) -> list[str]:
    """See to the flow runs that are lost while they hold no dataset; return what starts again.

    `at_work` names the work of processes that are known to live. If this process is a flow run of a
    work pool (`own`), runs in other pools are left to those who watch there.
    """
    started = list[str]()
    for run in _begun(client, None if own is None else own.work_pool_name):
        work = f"flow run {run.id}"
        is_lost = _is_lost(client, run) or _has_no_process(run, own)
        if work not in at_work and is_lost and taken_up(client, run) is Fate.STARTED:
            started.append(work)
    return started


def end_lost_passes(client: SyncPrefectClient, deployment_id: Any) -> None:
    """Call the passes of a deployment of `watch` that were lost what they are.

    As long as they seem to run, they count in the limit of passes at once.
    """
    for run in _begun(client, None, WATCH):
        is_known = run.state is None or run.state.is_crashed()
        if run.deployment_id == deployment_id and not is_known and _is_lost(client, run):
            message = "Its process was lost; the next pass does its work."
            client.set_flow_run_state(run.id, Crashed(message=message), force=True)


def taken_up(client: SyncPrefectClient, run: FlowRun) -> Fate:
    """Have a flow run started again that is lost, if it is one of a deployment; return its fate."""
    state = run.state
    if state is None or run.parent_task_run_id is not None:
        return Fate.LEFT
    if state.is_cancelled():
        return Fate.CANCELLED
    if state.is_cancelling() or (state.is_crashed() and was_cancelled(client, run)):
        message = "Its process was lost while it was being cancelled."
        client.set_flow_run_state(run.id, Cancelled(message=message), force=True)
        return Fate.CANCELLED
    if not (state.is_running() or state.is_pending() or state.is_crashed()) or age(state) < SETTLED:
        return Fate.LEFT
    if run.deployment_id is not None:
        return _started_again(client, run, state)
    if not state.is_crashed():
        message = "Its process was lost. Start it again: what it sent is not sent again."
        client.set_flow_run_state(run.id, Crashed(message=message), force=True)
    return Fate.LEFT


def was_cancelled(client: SyncPrefectClient, run: FlowRun) -> bool:
    """Whether a person cancelled a flow run whose process was lost before that was done.

    It may have been called crashed since then, and started again. Any other end has done it:
    whoever starts the flow run after that wants it to run.
    """
    asked = False
    states = client.read_flow_run_states(run.id)
    for state in sorted(states, key=lambda state: state.timestamp):
        goes_on = state.is_crashed() or not state.is_final()
        asked = state.is_cancelling() or (asked and goes_on)
    return asked


def keys_before_retry(client: SyncPrefectClient, run: FlowRun) -> set[str]:
    """Return a flow run's pause keys of before a person started it again, having cancelled it.

    What it was suspended for by then is cancelled for good, and the new start is none of that.
    Prefect forgets such keys itself, but not if the start was forced: one of its interfaces does.
    """
    keys, before, was_cancelled = set[str](), set[str](), False
    states = client.read_flow_run_states(run.id)
    for state in sorted(states, key=lambda state: state.timestamp):
        if state.is_paused() and (key := state.state_details.pause_key) is not None:
            keys.add(key)
        elif state.is_cancelled() or state.name == BATCHES_CANCELLED:
            was_cancelled = True
        elif state.is_scheduled() and was_cancelled:
            was_cancelled = False
            if not _is_by_nobody(state):
                before = set(keys)
    return before


def ended_before(client: SyncPrefectClient, run: FlowRun) -> State[Any] | None:
    """Return how a flow run completed that an automation started again since; None if none did.

    Prefect may tell automations of a state when the run was carried on, and ended, minutes ago.
    """
    completed, again = None, False
    states = client.read_flow_run_states(run.id)
    for state in sorted(states, key=lambda state: state.timestamp):
        if state.is_completed():
            completed, again = state, False
        elif state.is_scheduled():
            again = _is_by_nobody(state)
            completed = completed if again else None  # a person wants it to run once more
    return completed if again else None


def _is_by_nobody(state: State[Any]) -> bool:
    """Whether `watch`, or an automation, had a flow run started again, and not a person."""
    return (state.message or "").endswith((_AGAIN, _BY_ANOTHER))


def _started_again(client: SyncPrefectClient, run: FlowRun, state: State[Any]) -> Fate:
    """Have a lost flow run of a deployment started again, unless it was too often; return its fate.

    Then it has failed, which tells people.
    """
    if (times := _times_started_again(client, run)) >= _MOST_STARTS:
        message = f"It was lost {times + 1} times, and is not started again: see its logs."
        client.set_flow_run_state(run.id, Failed(message=message), force=True)
        return Fate.LEFT
    if state.is_running():
        client.set_flow_run_state(run.id, Crashed(message="Its process was lost."), force=True)
    lost = "The worker that took it was" if state.is_pending() else "Its process was"
    message = f"{lost} lost; {_AGAIN}"
    client.set_flow_run_state(run.id, AwaitingRetry(message=message))
    return Fate.STARTED


def _times_started_again(client: SyncPrefectClient, run: FlowRun) -> int:
    """Return how often a flow run was started again.

    Its count of runs lacks those starts that were lost before it ran.
    """
    messages = (state.message or "" for state in client.read_flow_run_states(run.id))
    return max(run.run_count - 1, sum(message.endswith(_AGAIN) for message in messages))


def _begun(
    client: SyncPrefectClient, work_pool: str | None, flow: str = ENRICH
) -> Iterator[FlowRun]:
    """Yield the flow runs that a worker or a person began, and that may be lost."""
    runs = client.read_flow_runs(
        flow_filter=FlowFilter(name=FlowFilterName(any_=[flow])),
        flow_run_filter=FlowRunFilter(
            state=FlowRunFilterState(type=FlowRunFilterStateType(any_=list(_BEGUN)))
        ),
        sort=FlowRunSort.EXPECTED_START_TIME_DESC,
        limit=_PAGE,
    )
    for run in runs:
        is_here = work_pool is None or run.work_pool_name in (None, work_pool)
        if is_here and run.state is not None and age(run.state) >= SETTLED:
            yield run


def _is_lost(client: SyncPrefectClient, run: FlowRun) -> bool:
    """Whether a flow run's process is lost, as far as the server has heard."""
    state = run.state
    if state is None:
        return False
    if state.is_crashed():
        return run.deployment_id is not None and age(state) < _RECENT
    if state.is_pending():
        return age(state) > _LONGEST_START or _lost_its_worker(client, run)
    return _silent_for(client, run, state) > _BEATS * _heartbeat_of(client, run)


def _lost_its_worker(client: SyncPrefectClient, run: FlowRun) -> bool:
    """Whether the worker that took a flow run is not heard any more, while another one is.

    A worker that pulls an image for the run is heard meanwhile.
    """
    name, state = run.labels.get(_WORKER), run.state
    if run.work_pool_name is None:
        return False
    if name is None:  # it had taken the run, and died before it said so
        return state is not None and state.name == "Pending" and age(state) > _SURELY_STARTED
    workers = client.read_workers_for_work_pool(run.work_pool_name)
    heard = [one.last_heartbeat_time for one in workers if one.last_heartbeat_time is not None]
    if not heard:
        return False
    for worker in workers:
        if worker.name == name and worker.last_heartbeat_time is not None:
            silent = (max(heard) - worker.last_heartbeat_time).total_seconds()
            every = worker.heartbeat_interval_seconds or _WORKERS_EVERY
            return silent > _WORKERS_BEATS * every
    return True  # somebody deleted it


def _has_no_process(run: FlowRun, own: FlowRun | None) -> bool:
    """Whether the process has ended that the worker of our own flow run started for another one.

    A worker that cannot reach the server as the process ends does not tell again. Of a run that ran
    before, the server may know the process of that time.
    """
    state, pid = run.state, run.infrastructure_pid or ""
    if own is None or state is None or not state.is_pending() or age(state) < _SURELY_STARTED:
        return False
    if run.run_count:
        return False
    is_here = run.labels.get(_WORKER) is not None and all(
        run.labels.get(label) == own.labels.get(label) for label in (_WORKER, _WORKERS_TYPE)
    )
    is_process = run.labels.get(_WORKERS_TYPE) == "process"
    return is_here and is_process and pid.isdigit() and has_ended(int(pid))


def _silent_for(client: SyncPrefectClient, run: FlowRun, state: State[Any]) -> float:
    """Return for how many seconds a flow run's process has given no sign of life."""
    of_run = EventFilter(
        event=EventNameFilter(name=["prefect.flow-run.heartbeat"]),
        resource=EventResourceFilter(id=[f"prefect.flow-run.{run.id}"]),
    )
    signs = [event.occurred for event in client.read_events(of_run, limit=1).events]
    return (datetime.now(UTC) - max([state.timestamp, *signs])).total_seconds()


def _heartbeat_of(client: SyncPrefectClient, run: FlowRun) -> float:
    """Return the seconds between a flow run's signs of life, as its deployment sets them."""
    variables: dict[str, Any] = run.job_variables or {}
    env = as_dict(variables.get("env"))
    if _FREQUENCY not in env and run.deployment_id is not None:
        try:
            deployed = client.read_deployment(run.deployment_id)
        except ObjectNotFound:
            return _EVERY
        env = as_dict(as_dict(deployed.job_variables).get("env"))
    try:
        return float(env.get(_FREQUENCY, _EVERY))
    except (TypeError, ValueError):  # a template of the server's, say
        return _EVERY


def age(state: State[Any]) -> float:
    """Return for how many seconds a state has been there."""
    return (datetime.now(UTC) - state.timestamp).total_seconds()
