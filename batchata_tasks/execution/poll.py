"""Polling: ask for a batch's status until it has ended, ever less often."""

from __future__ import annotations

from contextlib import suppress
from http import HTTPStatus
from typing import TYPE_CHECKING

from batchata_tasks.common.errors import CredentialsError, TerminalError, TransientError
from batchata_tasks.execution.context import riding_out
from batchata_tasks.ledger import SENDING_ENDS
from batchata_tasks.providers import BatchLook

if TYPE_CHECKING:
    from batchata_tasks.execution.context import Desk


def look_once(desk: Desk, batch_id: str) -> BatchLook:
    """Look at a batch.

    Batches take hours, and a passing 404 or a lost network says nothing about them: looking is
    ten times as patient as sending. A batch that is not there for that long was deleted: it has
    ended, and its results are gone.

    Raises:
        CredentialsError: it is not there, but was sent under another key, whose account may have it.
    """
    try:
        return riding_out(desk, lambda: desk.provider.look(batch_id), times=10)
    except TransientError as error:
        if error.status != HTTPStatus.NOT_FOUND:
            raise
        if desk.ledger.account_of(batch_id) != desk.provider.account(desk.ledger.id):
            message = f"{error} It was sent under another API key: set one of that account."
            raise CredentialsError(message) from error
        desk.say(f"{error} Batch {batch_id} was deleted; what it may have cost counts as spent.")
        return BatchLook(batch_id, "deleted", ended=True, created_at=0.0, gone=True)


def cancel(desk: Desk, batch_id: str) -> None:
    """Ask the provider to cancel a batch; one that has ended by then is no error."""
    with suppress(TerminalError):
        riding_out(desk, lambda: desk.provider.cancel(batch_id), times=10)


def poll(desk: Desk, batch_id: str) -> BatchLook:
    """Wait for a batch to end; return the last look. A run that is to stop cancels it first.

    The wait between looks is `BATCHATA_POLL_INTERVAL`, or starts at the provider's and grows to a
    minute: batches take from minutes to a day, and an account's rate limit is shared.
    """
    fixed = desk.settings.poll_interval
    wait, longest = desk.provider.poll_seconds
    known: tuple[str, int | None] | None = None
    cancelled = False
    while True:
        if not cancelled and (reason := desk.stop_reason()) not in (None, *SENDING_ENDS):
            desk.say(f"cancelling batch {batch_id} ({str(reason).replace('_', ' ')}); what ran is landed.")
            cancel(desk, batch_id)
            cancelled, wait = True, desk.provider.poll_seconds[0]
        look = look_once(desk, batch_id)
        if (look.status, look.done) != known:  # a write a look would keep others off the ledger
            desk.ledger.record_look(batch_id, look.status, look.done, ended=look.ended)
            known = look.status, look.done
        if look.ended:
            return look
        desk.sleep(min(fixed or wait, desk.seconds_left()))
        wait = min(wait * 1.25, longest)
