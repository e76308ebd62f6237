"""Polling: ask for a batch's status until it has ended, ever less often."""

from __future__ import annotations

from typing import TYPE_CHECKING

from batchata_tasks.submit import riding_out

if TYPE_CHECKING:
    from batchata_tasks.providers import BatchLook
    from batchata_tasks.submit import Desk


def look_once(desk: Desk, batch_id: str) -> BatchLook:
    """Look at a batch.

    Batches take hours, and a passing 404 or a lost network says nothing about them: looking is
    ten times as patient as sending.
    """
    return riding_out(desk, lambda: desk.provider.look(batch_id), times=10)


def poll(desk: Desk, batch_id: str) -> BatchLook:
    """Wait for a batch to end; return the last look.

    The wait between looks is `BATCHATA_POLL_INTERVAL`, or starts at the provider's and grows to a
    minute: batches take from minutes to a day, and an account's rate limit is shared.
    """
    fixed = desk.settings.poll_interval
    wait, longest = desk.provider.poll_seconds
    known: tuple[str, int | None] | None = None
    while True:
        look = look_once(desk, batch_id)
        if (look.status, look.done) != known:  # a write a look would keep others off the ledger
            desk.ledger.record_look(batch_id, look.status, look.done, ended=look.ended)
            known = look.status, look.done
        if look.ended:
            return look
        desk.sleep(fixed or wait)
        wait = min(wait * 1.25, longest)
