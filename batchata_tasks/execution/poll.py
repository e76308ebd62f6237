"""Polling: ask for a batch's status until it has ended, ever less often."""

from __future__ import annotations

from contextlib import suppress
from http import HTTPStatus
from typing import TYPE_CHECKING

from batchata_tasks.common.errors import CredentialsError, TerminalError, TransientError
from batchata_tasks.execution.context import retry_transient
from batchata_tasks.ledger import SENDING_ENDS, StopReason
from batchata_tasks.providers import BatchLook, describe_change

if TYPE_CHECKING:
    from batchata_tasks.execution.context import SubmitContext


def look_once(context: SubmitContext, batch_id: str) -> BatchLook:
    """Return the status of a batch.

    Batches take hours, and a passing 404 or a lost network says nothing about them: looking is
    ten times as patient as sending. A batch that is not found for that long was deleted: it has
    ended, and its results are gone.

    Raises:
        CredentialsError: it is not found, or refused, but was sent under another key or scope
            (organization, project …), whose account may have it.
    """
    provider, ledger = context.provider, context.ledger
    account, scope = ledger.sent_under(batch_id)
    is_its_account = account == provider.account(ledger.id)
    try:
        times = 10 if is_its_account else 1
        return retry_transient(context, lambda: provider.look(batch_id), times=times)
    except (TransientError, CredentialsError) as error:
        if isinstance(error, TransientError) and error.status != HTTPStatus.NOT_FOUND:
            raise
        if not is_its_account:
            change = describe_change(provider, ledger.id, scope)
            message = (
                f"{error} Batch {batch_id} may be there all the same, as {change}. Nothing was "
                "sent; after that, the same command lands its rows."
            )
            raise CredentialsError(message) from error
        if isinstance(error, CredentialsError):
            raise
        context.log(f"{error} Batch {batch_id} was deleted; what it may have cost counts as spent.")
        return BatchLook(batch_id, "deleted", ended=True, created_at=0.0, gone=True)


def cancel(context: SubmitContext, batch_id: str) -> None:
    """Ask the provider to cancel a batch; one that has ended by then is no error."""
    with suppress(TerminalError):
        retry_transient(context, lambda: context.provider.cancel(batch_id), times=10)


def poll(context: SubmitContext, batch_id: str) -> BatchLook:
    """Wait for a batch to end; return its last status. A run that is to stop cancels it first.

    The wait between looks is `BATCHATA_POLL_INTERVAL`, or starts at the provider's and grows to a
    minute: batches take from minutes to a day, and an account's rate limit is shared.
    """
    interval = context.settings.poll_interval
    shortest, longest = context.provider.poll_seconds
    wait, cancelled = shortest, False
    recorded: tuple[str, int | None] | None = None
    while True:
        if not cancelled and (reason := context.stop_reason()) not in (None, *SENDING_ENDS):
            why = "" if reason == StopReason.CANCEL else f" ({str(reason).replace('_', ' ')})"
            context.log(f"cancelling batch {batch_id}{why}; what ran is landed.")
            cancel(context, batch_id)
            cancelled, wait = True, shortest
        look = look_once(context, batch_id)
        # only what is new is written: a write per look would keep others off the ledger
        if (look.status, look.done) != recorded:
            context.ledger.record_look(batch_id, look.status, look.done, ended=look.ended)
            recorded = look.status, look.done
        if look.ended:
            return look
        context.sleep(min(interval or wait, context.seconds_left()))
        wait = min(wait * 1.25, longest)
