"""Polling: ask for a batch's status until it has ended, ever less often, and not for ever."""

from __future__ import annotations

import math
from http import HTTPStatus
from typing import TYPE_CHECKING

from batchata_tasks.common.errors import (
    BatchataError,
    CredentialsError,
    OtherAccountError,
    TerminalError,
    TransientError,
)
from batchata_tasks.execution.context import retry_transient
from batchata_tasks.execution.overdue import Wait, set_aside, set_overdue
from batchata_tasks.ledger import SENDING_ENDS, StopReason
from batchata_tasks.providers import (
    BatchLook,
    describe_change,
    is_other_scope,
    names_of_account,
)

if TYPE_CHECKING:
    from batchata_tasks.execution.context import SubmitContext
    from batchata_tasks.ledger import Chunk

_DAY = 86400.0
_PATIENT = 10  # times BATCHATA_PATIENCE
_SHORTEST_WAIT = 0.05  # seconds


class NeverSeenError(TransientError):
    """The answer to a create named a batch that nothing has shown ever since."""


def look_once(context: SubmitContext, batch_id: str, longest: float = math.inf) -> BatchLook:
    """Return the status of a batch; it is not asked for beyond `longest` seconds.

    Batches take hours, and a passing 404 or a lost network says nothing about them: looking is
    ten times as patient as sending. A batch that is not found for that long was deleted: it has
    ended, and its results are gone.

    Raises:
        NeverSeenError: it is not found, and was not since its create.
        OtherAccountError: it is not found, or refused, but was sent under another key or scope
            (organization, project …), whose account may have it. If the scope is another one, a
            single answer shows it.
    """
    provider, ledger = context.provider, context.ledger
    account, scope = ledger.sent_under(batch_id)
    is_its_account = account == provider.account(ledger.id)
    is_elsewhere = is_other_scope(provider, ledger.id, scope)

    def look() -> BatchLook:
        try:
            return provider.look(batch_id)
        except TransientError as error:
            if is_elsewhere and error.status == HTTPStatus.NOT_FOUND:
                raise _other_account(context, batch_id, error) from error
            raise

    patience = context.settings.patience * (_PATIENT if is_its_account else 1)
    try:
        return retry_transient(context, look, _PATIENT, longest=min(longest, patience))
    except OtherAccountError:
        raise
    except (TransientError, CredentialsError) as error:
        if isinstance(error, TransientError) and error.status != HTTPStatus.NOT_FOUND:
            raise
        if not is_its_account:
            raise _other_account(context, batch_id, error) from error
        if isinstance(error, CredentialsError) or longest < patience:
            raise
        listed = _listed(context, batch_id)
        return _deleted(context, batch_id, error) if listed is None else listed


def _deleted(context: SubmitContext, batch_id: str, error: BatchataError) -> BatchLook:
    """Return the status of a batch that is neither found nor listed any more."""
    if not context.ledger.was_seen(batch_id):
        message = (
            f"{error} Batch {batch_id} was never seen since its create was answered, so that "
            "nobody can say that it was deleted."
        )
        raise NeverSeenError(message) from error
    context.log(f"{error} Batch {batch_id} was deleted; what it may have cost counts as spent.")
    return BatchLook(batch_id, "deleted", ended=True, created_at=0.0, gone=True)


def _other_account(
    context: SubmitContext, batch_id: str, error: BatchataError
) -> OtherAccountError:
    """Return the error that names what to set again to see a batch."""
    provider, ledger = context.provider, context.ledger
    change = describe_change(provider, ledger.id, ledger.sent_under(batch_id)[1])
    return OtherAccountError(
        f"{error} Batch {batch_id} may be there all the same, as {change}. It stays recorded, and "
        "the same command then lands its rows (if that cannot be done: "
        f"`batchata reconcile --abandon {batch_id}` gives it up)."
    )


def _listed(context: SubmitContext, batch_id: str) -> BatchLook | None:
    """Return a batch as the account's list shows it, although it is not found by its id.

    Raises:
        TransientError: the list cannot be read, or is not known to show the account's batches: then
            nobody knows whether the batch is gone.
    """
    provider, ledger = context.provider, context.ledger
    sent_at = ledger.submitted_at(batch_id)
    looks = list(provider.around(0.0 if sent_at is None else sent_at / 1e6 - _DAY))
    for look in looks:
        if look.batch_id == batch_id:
            return look
    names = names_of_account(provider, ledger.id)
    ids = [look.batch_id for look in looks]
    known = ledger.known_as(ids).values()
    is_ours = provider.lists_all or any(batch.account in names for batch in known)
    if provider.lists_end and is_ours:
        return None
    message = (
        f"batch {batch_id} is not found, and the list of batches does not tell whether it is gone; "
        f"`batchata reconcile --abandon {batch_id}` gives it up."
    )
    raise TransientError(message)


def cancel(context: SubmitContext, batch_id: str) -> bool:
    """Ask the provider to cancel a batch; return whether it answered.

    One that has ended by then is no error. That the provider did not answer is told.

    Raises:
        OtherAccountError: it cannot be seen under the present key and settings.
    """
    provider, ledger = context.provider, context.ledger
    if is_other_scope(provider, ledger.id, ledger.sent_under(batch_id)[1]):
        look_once(context, batch_id)
    try:
        retry_transient(
            context,
            lambda: provider.cancel(batch_id),
            longest=context.settings.cancel_grace,
        )
    except TerminalError:
        return True
    except TransientError as error:
        context.log(f"{error} Batch {batch_id} could not be cancelled yet.")
        return False
    return True


def poll(context: SubmitContext, chunk: Chunk) -> BatchLook | None:
    """Wait for a chunk's batch to end; return its last status, None if it became overdue.

    A run that is to stop cancels it first. The wait between looks is `BATCHATA_POLL_INTERVAL`, or
    starts at the provider's and grows to a minute: batches take from minutes to a day, and an
    account's rate limit is shared. See `Wait` for how long it is waited for; then the ledger says
    that it is overdue.
    """
    batch_id, wait = chunk.batch_id or "", Wait(context, chunk)
    shortest, longest = context.provider.poll_seconds
    pause, cancelled = shortest, False
    while True:
        reason = context.stop_reason()
        if not cancelled and reason not in (None, *SENDING_ENDS):
            if not wait.cancelling:
                why = "" if reason == StopReason.CANCEL else f" ({str(reason).replace('_', ' ')})"
                context.log(f"cancelling batch {batch_id}{why}; what ran is landed.")
            cancelled, pause = cancel(context, batch_id), shortest
            wait.cancel_was_asked()
        try:
            look = _look(context, batch_id, min(wait.left(), context.seconds_left()))
        except NeverSeenError as error:
            set_aside(context, chunk, str(error))
            return None
        if look is not None:
            wait.saw(look)
            if look.ended:
                return look
        if wait.left() <= 0:
            set_overdue(context, chunk, wait)
            return None
        pauses = (context.settings.poll_interval or pause, context.seconds_left(), wait.left())
        context.sleep(max(min(pauses), _SHORTEST_WAIT))
        pause = min(pause * 1.25, longest)


def _look(context: SubmitContext, batch_id: str, longest: float) -> BatchLook | None:
    """Return the status of a batch; None if the provider did not tell within `longest` seconds."""
    try:
        return look_once(context, batch_id, longest)
    except TransientError:
        if longest >= _patience(context):
            raise
        return None


def _patience(context: SubmitContext) -> float:
    return context.settings.patience * _PATIENT
