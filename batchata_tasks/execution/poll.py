"""Polling: ask for a batch's status until it has ended, ever less often, and not for ever."""

from __future__ import annotations

import math
import time
from http import HTTPStatus
from typing import TYPE_CHECKING

from batchata_tasks.common.errors import TerminalError, TransientError
from batchata_tasks.execution.context import retry_transient
from batchata_tasks.execution.look import PATIENT, deleted, look_once, was_deleted
from batchata_tasks.execution.look_pace import LookPace
from batchata_tasks.execution.misnamed import NotShownError, PerhapsListedError, RefusedLookError
from batchata_tasks.execution.overdue import Wait, set_aside, set_overdue
from batchata_tasks.ledger import SENDING_ENDS, StopReason
from batchata_tasks.providers import BatchLook, is_other_scope
from batchata_tasks.providers.pace import within

if TYPE_CHECKING:
    from batchata_tasks.execution.context import SubmitContext
    from batchata_tasks.ledger import Chunk

_SHORTEST_WAIT = 0.05  # seconds
_LAST_LOOK = 30.0  # seconds for which a provider may be silent before a run lets go all the same


def cancel(context: SubmitContext, batch_id: str, note: str = "") -> bool:
    """Ask the provider to cancel a batch; return whether it answered.

    One that has ended by then is no error. That the provider did not answer is told; `note` is told
    once it is sure that the batch is not another account's.

    Raises:
        OtherAccountError: it cannot be seen under the present key and settings.
    """
    provider, ledger = context.provider, context.ledger
    scope = ledger.sent_under(batch_id)[1]

    def ask() -> None:
        try:
            provider.cancel(batch_id)
        except TransientError as error:
            # the answer may have told that another emulator is there by now
            if error.status == HTTPStatus.NOT_FOUND and is_other_scope(provider, ledger.id, scope):
                look_once(context, batch_id)
            raise

    if is_other_scope(provider, ledger.id, scope):
        look_once(context, batch_id)
    if note:
        context.log(note)
    longest = min(context.settings.cancel_grace, context.settings.patience)
    try:
        with within(longest):
            retry_transient(context, ask, longest=longest)
    except TerminalError:
        return True
    except TransientError as error:
        context.log(f"{error} Batch {batch_id} could not be cancelled yet.")
        return False
    return True


def poll(context: SubmitContext, chunk: Chunk, longest_wait: float = math.inf) -> BatchLook | None:
    """Wait for a chunk's batch to end; return its last status, None if it became overdue.

    After `longest_wait` seconds that is the status of a batch which has not ended.

    A run that is to stop cancels it first. The wait between looks is `BATCHATA_POLL_INTERVAL`, or
    starts at the provider's and grows to a minute, or beyond it if very many are open: batches take
    from minutes to a day, and an account's rate limit is shared (see `look_pace.py`). `Wait` says
    for how long it is waited for; then the ledger says that it is overdue. A provider that says
    nothing ends the wait after ten times `BATCHATA_PATIENCE`, with an error; but not if the run may
    let go after `longest_wait`, since it costs nothing then to wait for the provider.
    """
    batch_id, wait = chunk.batch_id or "", Wait(context, chunk)
    shortest, longest = context.provider.poll_seconds
    pause, cancelled, pace = shortest, False, LookPace(context)
    until = time.monotonic() + longest_wait
    while True:
        reason = context.stop_reason()
        if not cancelled and reason not in (None, *SENDING_ENDS):
            cancelled, pause = _cancelled(context, wait, batch_id, str(reason)), shortest
        pause_now, left_alone = pace.wait(pause)
        try:
            look = None if left_alone else _look(context, wait, batch_id, until)
        except (NotShownError, TerminalError) as error:
            set_aside(context, chunk, _why_aside(wait, batch_id, error))
            return None
        if look is not None:
            wait.saw(look)
            if look.batch_id != batch_id:  # it has another id than its create was told
                batch_id, chunk = look.batch_id, context.ledger.chunk(chunk.id)
                cancelled = False
            if was_deleted(context, look):
                set_aside(context, chunk, deleted(batch_id), lacks_results=True)
                return None
            if look.ended:
                return look
        if wait.left() <= 0:
            set_overdue(context, chunk, wait)
            return None
        if time.monotonic() >= until:
            return look or BatchLook(
                batch_id, wait.status or "unknown", ended=False, created_at=None
            )
        moments = context.seconds_left(), wait.left(), until - time.monotonic()
        context.sleep(max(min(pause_now, *moments), _SHORTEST_WAIT))
        pause = min(pause * 1.25, longest)


def _cancelled(context: SubmitContext, wait: Wait, batch_id: str, reason: str) -> bool:
    """Ask the provider to cancel a batch, and tell so once; return whether it answered."""
    note = ""
    if not wait.cancelling:
        why = "" if reason == StopReason.CANCEL else f" ({reason.replace('_', ' ')})"
        note = f"cancelling batch {batch_id}{why}; what ran is landed."
    cancelled = cancel(context, batch_id, note)
    wait.cancel_was_asked()
    return cancelled


def _why_aside(wait: Wait, batch_id: str, error: NotShownError | TerminalError) -> str:
    """Return why a batch is not waited for, as a sentence.

    Raises:
        RefusedLookError: it is waited for, but nothing more is sent to an account that refuses it.
    """
    if isinstance(error, NotShownError):
        return str(error)
    if not isinstance(error, RefusedLookError):
        return f"{error} Batch {batch_id} cannot be looked at."
    if wait.left() <= 0:
        return f"{error} It was waited for until now, {wait.since}."
    message = (
        f"{error} The next run asks again; `batchata reconcile --abandon {batch_id}` gives it up, "
        "and its rows are paid for again."
    )
    raise RefusedLookError(message)


def _look(context: SubmitContext, wait: Wait, batch_id: str, until: float) -> BatchLook | None:
    """Return the status of a batch; None if the provider did not tell in the time that is left.

    `until` is the moment (of the monotonic clock) at which the run may let go; infinity if never.
    """
    let_go = max(until - time.monotonic(), _LAST_LOOK)
    # one that was waited for long enough, by an earlier process, is looked at all the same
    longest = max(min(wait.left(), context.seconds_left(), let_go), 0.0)
    try:
        with within(longest):
            return look_once(context, batch_id, longest)
    except PerhapsListedError as error:
        wait.tell(f"{error} Waiting for that.")
        return None
    except TransientError:
        if until == math.inf and longest >= context.settings.patience * PATIENT:
            raise
        return None
