"""A process that is told to end: whether a person cancelled its flow run, and what it says then.

It may also be told so since its worker ends; then its tasks fail, and the run carries on later.
"""

from __future__ import annotations

import signal
import threading
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from functools import wraps
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar
from uuid import UUID

from httpx import HTTPError
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import State
from prefect.exceptions import TerminationSignal
from prefect.logging.handlers import APILogWorker
from prefect.runtime import flow_run
from prefect.states import Cancelled
from prefect.transactions import get_transaction

from batchata_tasks.common.text import pluralize, sentence
from batchata_tasks.execution.held_dataset import InterruptedRunError
from batchata_tasks.flows.watch_sign import why_unwatched
from batchata_tasks.operations.cancel import request_cancel

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from batchata_tasks.common.settings import Settings
    from batchata_tasks.progress.listener import Progress
    from batchata_tasks.spec.enrichment import EnrichmentSpec

P = ParamSpec("P")
T = TypeVar("T")

_SENDS_LOG = 2.0
"""Seconds that the lines of the log have to reach the server.

They are sent in the background, and Prefect kills the process before that.
"""

_CANCELLED = "The run was cancelled; its log tells what becomes of its batches."


class _Ending:
    """Whether a person cancelled a flow run whose process is told to end; the server knows."""

    def __init__(self) -> None:
        # of several flow runs, the one that the others are part of
        self._flow_run_id = UUID(str(flow_run.root_flow_run_id))
        self._lock = threading.Lock()
        self._known: bool | None = None

    def is_cancelled(self) -> bool:
        """Return whether a person did; ask once, for all tasks that end now."""
        with self._lock:
            if self._known is None:
                with get_client(sync_client=True) as client:
                    state = client.read_flow_run(self._flow_run_id).state
                self._known = state is not None and (state.is_cancelling() or state.is_cancelled())
            return self._known


_ENDING: ContextVar[_Ending | None] = ContextVar("batchata_ending", default=None)


def stop_cancelled(spec: EnrichmentSpec, settings: Settings, progress: Progress, work: str) -> None:
    """Have the run stopped that this process let go of since a person cancelled it; tell by whom.

    `work` is what the ledger calls what it did. It has half a minute to end, so it asks the
    provider for nothing.
    """
    asked = request_cancel(spec, settings, work)
    if asked is None or not asked.batches:  # another flow run may go on with those that are open
        progress.note("this run is cancelled: no open batch at the provider is left to it.")
        return
    batches = pluralize(asked.batches, "open batch", "open batches")
    try:
        unwatched = why_unwatched(asked.ledger_id, (asked.run_id,))
    except HTTPError:
        unwatched = None  # it is told by `status`
    if unwatched is None:
        progress.note(
            f"this run is cancelled: `watch` cancels its {batches} at the provider at its next "
            "pass, and lands what ran."
        )
    else:
        progress.note(
            f"this run is cancelled, but its {batches} at the provider not yet: "
            f"{sentence(unwatched)} `batchata cancel SPEC` does it."
        )


@contextmanager
def cancellable(cancelled: Callable[[], None]) -> Generator[None, None, None]:
    """Call `cancelled` if this process is told to end because a person cancelled what it does."""
    ending = _Ending()
    token = _ENDING.set(ending)
    try:
        yield
    except BaseException as error:
        if not _is_told_to_end(error):
            raise
        _hear_no_more()
        # this process has to end, whether or not the server answers: if nothing comes of it,
        # `watch` sees that the flow run was cancelled
        with suppress(HTTPError):
            if ending.is_cancelled():
                cancelled()
                APILogWorker.drain_all(timeout=_SENDS_LOG)
        if isinstance(error, TerminationSignal):
            raise
        raise TerminationSignal(signal.SIGTERM) from error
    finally:
        _ENDING.reset(token)


def _hear_no_more() -> None:
    """Ignore further signals to end: this process ends, and tells what there is to tell first.

    A person may cancel twice, and a worker that ends as well says so once more.
    """
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, signal.SIG_IGN)


def _is_told_to_end(error: BaseException | None) -> bool:
    """Whether an error is the signal to end, or came of it.

    Prefect's engine stumbles if it comes just as a task run is made.
    """
    while error is not None and not isinstance(error, TerminationSignal):
        error = error.__context__
    return error is not None


def ends_in_order(step: Callable[P, T]) -> Callable[P, T | State[Any]]:
    """Let the task of a step be Cancelled if a person cancelled the run, and not fail."""

    @wraps(step)
    def done(*args: P.args, **options: P.kwargs) -> T | State[Any]:
        try:
            return step(*args, **options)
        except (InterruptedRunError, TerminationSignal):
            # workers get this function as it is here, and no context variable goes to them
            if not _is_ended_by_cancel():
                raise
        if (transaction := get_transaction()) is not None:
            transaction.write_on_commit = False  # a step that was not done is done again
        return Cancelled(message=_CANCELLED)

    return done


def _is_ended_by_cancel() -> bool:
    """Whether a person cancelled the run that ends here; no further signal is heard then."""
    if (ending := _ENDING.get()) is None:
        return False
    _hear_no_more()
    try:
        return ending.is_cancelled()
    except HTTPError:
        return False


def value_of(returned: Any) -> Any:
    """Return what a task returned.

    Raises:
        InterruptedRunError: the run was cancelled before the task was done.
        TerminationSignal: likewise, in the thread that is told of it.
    """
    if not isinstance(returned, State):
        return returned
    if threading.current_thread() is threading.main_thread():
        raise TerminationSignal(signal.SIGTERM)
    raise InterruptedRunError(_CANCELLED)
