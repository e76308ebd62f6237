"""The flow runs that wait for runs of a ledger: found, resumed, started again if they are lost.

The pause key of a suspended flow run names the run of the ledger that it waits for, so whoever sees
the flow run knows that.
"""

from __future__ import annotations

from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple
from uuid import UUID

from httpx import HTTPError
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import (
    FlowFilter,
    FlowFilterName,
    FlowRunFilter,
    FlowRunFilterDeploymentId,
    FlowRunFilterId,
    FlowRunFilterStartTime,
    FlowRunFilterState,
    FlowRunFilterStateName,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import StateType
from prefect.client.schemas.sorting import FlowRunSort
from prefect.context import FlowRunContext
from prefect.exceptions import FlowPauseTimeout, NotPausedError, ObjectNotFound
from prefect.flow_runs import resume_flow_run
from prefect.states import Cancelled

from batchata_tasks.common.errors import TransientError
from batchata_tasks.flows.events import send_events_of, send_watched
from batchata_tasks.flows.lost import SETTLED, age, end_lost_passes, take_up_lost, taken_up
from batchata_tasks.flows.names import ENRICH
from batchata_tasks.flows.progress import ProgressArtifacts
from batchata_tasks.flows.receipts import leave_anothers, log_anothers
from batchata_tasks.flows.standing import flow_run_of
from batchata_tasks.flows.watch_sign import leave_sign
from batchata_tasks.operations.flow_runs import Fate, Waiters

if TYPE_CHECKING:
    from collections.abc import Collection, Generator, Iterable, Iterator, Mapping

    from prefect.client.orchestration import SyncPrefectClient
    from prefect.client.schemas.objects import FlowRun

    from batchata_tasks.pipeline.receipt import Receipt
    from batchata_tasks.progress.snapshot import Snapshot

_PAGE = 200  # the most that a server returns at once, unless it is told otherwise
_MOST = 1000  # flow runs of a kind that are read
_STARTS = 600.0  # seconds in which a run that is started takes its dataset
_KEY = "batchata"
_UNDER_WAY = (StateType.SCHEDULED, StateType.PENDING, StateType.RUNNING, StateType.CANCELLING)


class Awaited(NamedTuple):
    """The run of a ledger for which a flow run is suspended."""

    ledger_id: str
    run_id: str


def pause_key(awaited: Awaited, run: FlowRun) -> str:
    """Return the key under which a flow run can be suspended for a run of the ledger.

    A key counts once. Those of a run that crashed are forgotten, but its count of starts grows.
    """
    before = len(run.empirical_policy.pause_keys or ())
    return f"{_KEY}/{awaited.ledger_id}/{awaited.run_id}/{run.run_count}.{before + 1}"


def awaited_by(run: FlowRun, forgotten: Collection[str] = ()) -> set[Awaited]:
    """Return the runs for which a flow run is suspended, or was since it crashed last.

    Those of the pause keys `forgotten` are left out.
    """
    keys = set(run.empirical_policy.pause_keys or ()).difference(forgotten)
    return {awaited for awaited in map(_awaited, keys) if awaited is not None}


def suspended_for(run: FlowRun) -> Awaited | None:
    """Return the run for which a flow run is suspended at this moment; None if it is not."""
    key = None if run.state is None else run.state.state_details.pause_key
    return None if key is None else _awaited(key)


def _awaited(key: str) -> Awaited | None:
    name, *facts = key.split("/")
    if name != _KEY or len(facts) != 3:  # noqa: PLR2004 - ledger, run, number
        return None
    return Awaited(facts[0], facts[1])


class PrefectFlowRuns:
    """See FlowRuns: those of the Prefect server that is configured."""

    is_there = True

    def __init__(self, *, repeated: bool) -> None:
        self.repeated = repeated

    def waiters(self, ledger_id: str, runs: Iterable[str]) -> Mapping[str, Waiters]:
        """See FlowRuns."""
        found = dict[str, dict[str, list[str]]]()

        def note(run_id: str, kind: str, run: FlowRun) -> None:
            found.setdefault(run_id, {}).setdefault(kind, []).insert(0, str(run.id))

        for awaited, run in suspended_of(ledger_id):
            note(awaited.run_id, "suspended", run)
        if wanted := {Awaited(ledger_id, run_id) for run_id in runs}:
            for run in newest(*_UNDER_WAY, StateType.CANCELLED):
                cancelled = run.state is not None and run.state.is_cancelled()
                if not cancelled and _is_silent(run):
                    continue
                for awaited in awaited_by(run) & wanted:
                    note(awaited.run_id, "cancelled" if cancelled else "under_way", run)
        return {
            run_id: Waiters(**{kind: tuple(ids) for kind, ids in kinds.items()})
            for run_id, kinds in found.items()
        }

    def resume(self, flow_run_id: str) -> bool:
        """See FlowRuns."""
        try:
            with _answering():
                resume_flow_run(UUID(flow_run_id))
        except NotPausedError:  # another pass was first, or a person was
            return True
        except (RuntimeError, FlowPauseTimeout):  # its deployment is deleted, say
            return False
        return True

    def take_up(self, work: str) -> Fate:
        """See FlowRuns. A run that was started too often fails, with that as the reason."""
        with _answering(), get_client(sync_client=True) as client:
            run = _found(client, work)
            return Fate.LEFT if run is None else taken_up(client, run)

    def leave_sign(self, ledger_id: str, unseen: Iterable[str], waiting: int) -> None:
        """See FlowRuns."""
        with _answering(), get_client(sync_client=True) as client:
            leave_sign(ledger_id, unseen)
            send_watched(client, ledger_id, waiting)

    def show(self, work: str, name: str, snapshot: Snapshot) -> None:
        """See FlowRuns."""
        with _answering(), get_client(sync_client=True) as client:
            if (run := _found(client, work)) is not None:
                ProgressArtifacts(run.id, name).show(snapshot)

    def tell(self, work: str | None, receipt: Receipt, key: list[str], *, ended: bool) -> None:
        """See FlowRuns."""
        with _answering(), get_client(sync_client=True) as client:
            run = None if work is None else _found(client, work)
            send_events_of(client, run, receipt)
            if ended and run is not None:
                leave_anothers(client, run, receipt, key)

    def log(self, work: str, text: str) -> None:
        """See FlowRuns."""
        with _answering(), get_client(sync_client=True) as client:
            if (run := _found(client, work)) is not None:
                log_anothers(client, run, text)

    def take_up_lost(self, at_work: Collection[str]) -> list[str]:
        """See FlowRuns."""
        own = this_flow_run()
        with _answering(), get_client(sync_client=True) as client:
            return take_up_lost(client, at_work, own)

    def cancelled(self, works: Collection[str]) -> set[str]:
        """See FlowRuns."""
        ids = [one for one in map(flow_run_of, works) if one is not None]
        found = set[str]()
        with _answering(), get_client(sync_client=True) as client:
            for begin in range(0, len(ids), _PAGE):
                wanted = FlowRunFilter(
                    id=FlowRunFilterId(any_=ids[begin : begin + _PAGE]),
                    state=FlowRunFilterState(
                        type=FlowRunFilterStateType(any_=[StateType.CANCELLED])
                    ),
                )
                runs = client.read_flow_runs(flow_run_filter=wanted, limit=_PAGE)
                found |= {f"flow run {run.id}" for run in runs}
        return found


def make_room() -> None:
    """See to it that passes of `watch` do not get in each other's way.

    Late ones of this flow run's deployment are cancelled if this one is late, too: a worker that
    was busy, or away, for an hour would do sixty in a row. Those that were lost are ended.
    """
    run = this_flow_run()
    if run is None or run.deployment_id is None:
        return
    with _answering(), get_client(sync_client=True) as client:
        end_lost_passes(client, run.deployment_id)
        due = run.expected_start_time
        if due is None or (datetime.now(UTC) - due).total_seconds() < SETTLED:
            return
        late = FlowRunFilter(
            deployment_id=FlowRunFilterDeploymentId(any_=[run.deployment_id]),
            state=FlowRunFilterState(name=FlowRunFilterStateName(any_=["Late"])),
        )
        for other in client.read_flow_runs(flow_run_filter=late, limit=_PAGE):
            client.set_flow_run_state(other.id, Cancelled(message=f"{run.id} does its work."))


def this_flow_run() -> FlowRun | None:
    """Return the flow run that this process does; None outside of one."""
    context = FlowRunContext.get()
    return None if context is None else context.flow_run


def _found(client: SyncPrefectClient, work: str) -> FlowRun | None:
    """Return the flow run that is meant; None if it is of another server, or deleted."""
    if (flow_run_id := flow_run_of(work)) is None:
        return None
    try:
        return client.read_flow_run(flow_run_id)
    except ObjectNotFound:
        return None


def _is_silent(run: FlowRun) -> bool:
    """Whether a flow run that was started should long have taken its dataset, and is not held up.

    If it holds that, nobody asks.
    """
    return run.state is not None and not run.state.is_scheduled() and age(run.state) > _STARTS


@contextmanager
def _answering() -> Generator[None, None, None]:
    """Raise TransientError if Prefect's server does not answer."""
    try:
        yield
    except HTTPError as error:
        message = (
            f"PREFECT_API_URL: Prefect's server does not answer ({type(error).__name__}); what "
            "waits for batches is resumed once it does."
        )
        raise TransientError(message) from error


def suspended_of(ledger_id: str) -> Iterator[tuple[Awaited, FlowRun]]:
    """Yield the flow runs that are suspended for runs of a ledger, the newest first."""
    for run in newest(StateType.PAUSED):
        awaited = suspended_for(run)
        if awaited is not None and awaited.ledger_id == ledger_id:
            yield awaited, run


def newest(*states: StateType) -> Iterator[FlowRun]:
    """Yield the runs of `enrich` that began, and are in one of the states, the newest first."""
    wanted: dict[str, Any] = {
        "flow_filter": FlowFilter(name=FlowFilterName(any_=[ENRICH])),
        "flow_run_filter": FlowRunFilter(
            state=FlowRunFilterState(type=FlowRunFilterStateType(any_=list(states))),
            start_time=FlowRunFilterStartTime(is_null_=False),
        ),
        "sort": FlowRunSort.START_TIME_DESC,
        "limit": _PAGE,
    }
    with _answering(), get_client(sync_client=True) as client:
        for offset in range(0, _MOST, _PAGE):
            page = client.read_flow_runs(**wanted, offset=offset)
            yield from page
            if len(page) < _PAGE:
                return
