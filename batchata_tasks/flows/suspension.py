"""Suspends a flow run while there is nothing to do but to wait, so that it keeps no worker's slot.

It waits for its batches, for room in a provider's queue, or for money of a shared budget.

A suspended flow run has no process. The flow `watch` resumes it once there is something to do, and
it is done from the top then: the ledger knows what was sent.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Literal, TypeVar

from httpx import HTTPError
from prefect import get_run_logger
from prefect.client.orchestration import get_client
from prefect.context import FlowRunContext
from prefect.exceptions import Abort, Pause
from prefect.states import Suspended
from prefect.utilities.engine import propose_state_sync

from batchata_tasks.common.errors import BatchataError, TransientError
from batchata_tasks.common.text import pluralize, sentence
from batchata_tasks.dataset.folder import DatasetFolder
from batchata_tasks.execution.held_dataset import (
    CancelledRunError,
    LettingGo,
    SuspendedRunError,
    find_dataset,
)
from batchata_tasks.flows.ending import cancellable
from batchata_tasks.flows.events import send_suspended, send_unwatched
from batchata_tasks.flows.flow_runs import (
    Awaited,
    awaited_by,
    pause_key,
    suspended_of,
    this_flow_run,
)
from batchata_tasks.flows.lost import keys_before_retry, was_cancelled
from batchata_tasks.flows.watch_sign import why_unwatched
from batchata_tasks.ledger import opened_ledger

if TYPE_CHECKING:
    from collections.abc import Callable

    from prefect.client.schemas.objects import FlowRun

    from batchata_tasks.common.settings import Settings
    from batchata_tasks.progress.listener import Progress
    from batchata_tasks.spec.enrichment import EnrichmentSpec

T = TypeVar("T")

Wait = Literal["suspend", "process"]
"""Where a flow run waits for its batches: nowhere, being suspended, or in its process."""

_FAILS_AFTER = 7 * 24 * 3600
"""Seconds after which the server ends a flow run that nobody resumed as Failed.

Batches end within a day, and each suspension is one of its own: by then `watch` is gone.
"""

LOOKS_FOR = 10.0
"""Seconds for which a process itself waits for a batch before its flow run is suspended."""

_NAMED = 5  # flow runs that a sentence names

LOOKS_AGAIN, _LONGEST_PAUSE = 60.0, 1800.0
"""Seconds until a process that waits since nobody watches looks whether somebody does, first and
at most: the first pass of `watch` may come only after it has begun."""


class AwaitedElsewhereError(BatchataError):
    """Another flow run, which was asked for the same, is suspended, and goes on with the dataset.

    `holder` names it.
    """

    def __init__(self, holder: str) -> None:
        message = (
            f"nothing was sent: {holder} waits for the batches of this dataset, and goes on once "
            "they ended"
        )
        super().__init__(message)
        self.holder = holder


def suspending(
    work: Callable[[LettingGo], T],
    wait: Wait,
    ledger_url: str,
    progress: Progress,
    cancelled: Callable[[], None],
) -> T:
    """Do the work of this process's flow run, and suspend it if there is nothing but to wait.

    If a person cancels the flow run, its process is ended, and `cancelled` called before that.

    Raises:
        LedgerError: the ledger at `ledger_url` cannot be used.
        Pause: the flow run is suspended, and its process is to end.
        CancelledRunError: a person cancelled the flow run before its process was lost.
    """
    context = FlowRunContext.get()
    if context is None or context.flow_run is None:
        return work(LettingGo())
    run = context.flow_run
    if run.deployment_id is not None and _was_cancelled(run):
        cancelled()
        message = (
            "it was cancelled, and its process was lost before that was done: `watch` cancels its "
            "batches at the provider, and lands what ran."
        )
        raise CancelledRunError(message)
    with cancellable(cancelled):
        if wait == "process":
            return work(LettingGo())
        return _suspending(work, run, ledger_url, progress)


def leave_to_another(spec: EnrichmentSpec, settings: Settings, letting_go: LettingGo) -> None:
    """Leave a dataset to another flow run that is suspended, and was asked for the same.

    Called before anything is taken: whoever begins does the whole. Two do if one is about to be
    suspended at that moment, while nobody watches, or if the server does not answer; `watch`
    resumes both, one after the other.

    Raises:
        AwaitedElsewhereError: there is one, and `watch` resumes it.
    """
    run = this_flow_run()
    if run is None or not letting_go.is_watched:
        return
    with opened_ledger(settings.ledger_url) as ledger:
        dataset_id = find_dataset(DatasetFolder(spec.output), ledger)
        row = None if dataset_id is None else ledger.open_run(dataset_id)
        if row is None or row.id in letting_go.before:
            return
        if ledger.stop_reason(row.id) is not None:  # whoever goes on with it sends nothing
            return
        awaited = Awaited(ledger.id, row.id)
    with suppress(HTTPError, TransientError):
        if (other := _suspended_alike(run, awaited)) is not None:
            message = f"flow run {other.name} ({other.id})"
            raise AwaitedElsewhereError(message)


def _suspended_alike(run: FlowRun, awaited: Awaited) -> FlowRun | None:
    """Return a flow run that is suspended for a run, was asked for the same, and is resumed."""
    if why_unwatched(awaited.ledger_id, (awaited.run_id,)) is not None:
        return None
    for one, other in suspended_of(awaited.ledger_id):
        same = (other.deployment_id, other.parameters) == (run.deployment_id, run.parameters)
        if same and one == awaited:
            return other
    return None


def _suspending(
    work: Callable[[LettingGo], T], run: FlowRun, ledger_url: str, progress: Progress
) -> T:
    """See `suspending`."""
    let_go = frozenset(awaited.run_id for awaited in awaited_by(run, _before_retry(run)))
    reason, pause = _why_never(run), LOOKS_AGAIN
    while reason is None:
        with opened_ledger(ledger_url) as ledger:
            ledger_id, unwatched = ledger.id, why_unwatched(ledger.id, let_go)
        if unwatched is not None:
            if pause == LOOKS_AGAIN:  # the first time
                _tell_unwatched(ledger_id, unwatched)
            _tell_in_process(progress, unwatched)
        after = LOOKS_FOR if unwatched is None else pause
        try:
            return work(LettingGo(after, let_go, is_watched=unwatched is None))
        except SuspendedRunError as error:
            let_go |= {error.run_id}
            pause = min(2 * pause, _LONGEST_PAUSE)
            if unwatched is None:
                awaited = Awaited(error.ledger_id, error.run_id)
                progress.note(f"{error}: this run is suspended until `watch` resumes it.")
                _suspend(str(error), awaited, run)
                reason = "the server refuses to suspend this run"
    _tell_in_process(progress, reason)
    return work(LettingGo(before=let_go))


def _tell_unwatched(ledger_id: str, reason: str) -> None:
    """Warn people, and tell automations, if flow runs are suspended which nobody resumes."""
    waiting = list[str]()
    with suppress(TransientError):  # that nobody could be warned is no reason to fail
        waiting += [str(run.id) for _, run in suspended_of(ledger_id)]
    if not waiting:
        return
    others = f" and {len(waiting) - _NAMED} others" if len(waiting) > _NAMED else ""
    message = (
        f"nobody resumes {pluralize(len(waiting), 'flow run')} that "
        f"{'is' if len(waiting) == 1 else 'are'} suspended "
        f"({', '.join(waiting[:_NAMED])}{others}): {sentence(reason)}"
    )
    get_run_logger().warning(message)
    send_unwatched(ledger_id, message, waiting)


def _tell_in_process(progress: Progress, reason: str) -> None:
    progress.note(f"waiting for batches in this process: {sentence(reason)}")


def _before_retry(run: FlowRun) -> set[str]:
    if not run.empirical_policy.pause_keys:
        return set()
    with get_client(sync_client=True) as client:
        return keys_before_retry(client, run)


def _was_cancelled(run: FlowRun) -> bool:
    with get_client(sync_client=True) as client:
        return was_cancelled(client, run)


def _why_never(run: FlowRun) -> str | None:
    """Return why a flow run has to wait in its process, whoever watches; None if it need not."""
    if run.deployment_id is None:
        return "it is a run of no deployment"
    if run.parent_task_run_id is not None:
        return "it is part of another flow run"
    if run.work_pool_name is None:
        return "no worker would start it again"
    # Prefect 3.9 leaves such a run `Resuming` for ever: workers are not told of it
    if run.empirical_policy.retry_type == "in_process":
        return "it is a retry within its process"
    return None


def _suspend(message: str, awaited: Awaited, run: FlowRun) -> None:
    """Suspend this process's flow run, whose run of the ledger let go; return if it may not be.

    Raises:
        Pause: it is suspended, and its process is to end.
        Abort: the server says that it does not run any more: somebody cancels it, or took it for
            dead and has it started again.
    """
    with get_client(sync_client=True) as client:
        key = pause_key(awaited, run)
        proposed = Suspended(message=message, pause_key=key, timeout_seconds=_FAILS_AFTER)
        state = propose_state_sync(client, proposed, flow_run_id=run.id)
    if state.is_paused():
        send_suspended(run, awaited.ledger_id, message)
        raise Pause(state=state)
    if not state.is_running():
        stopped = f"the flow run is {state.name} by now, so it is not suspended."
        raise Abort(stopped)
