"""The pace of looks, which all runs of a ledger share: providers bound the calls of an account.

A provider that was asked too often is left alone by all of them for as long as it said. And the
more batches are open, the longer each waits for its next look, whichever run sent it.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING

from batchata_tasks.common.text import duration

if TYPE_CHECKING:
    from batchata_tasks.common.errors import TransientError
    from batchata_tasks.execution.context import ProviderContext
    from batchata_tasks.ledger import Ledger

_A_MINUTE = 50  # looks of an account; the lowest limit of calls that was documented


def note_refusal(ledger: Ledger, account: str, error: TransientError) -> None:
    """Note for how long a provider that was asked too often wants to be left alone, if it says."""
    if error.status == HTTPStatus.TOO_MANY_REQUESTS and error.retry_after is not None:
        ledger.pause_looks(account, error.retry_after)


class LookPace:
    """When the batch of a run may be looked at."""

    def __init__(self, context: ProviderContext) -> None:
        self._context, self._is_told = context, False

    def wait(self, usual: float) -> tuple[float, bool]:
        """Return for how many seconds to wait after a look, and whether none may be made now.

        `usual` is the wait of a batch that is alone.
        """
        context = self._context
        batches, paused = context.ledger.looks_under(context.provider.account(context.ledger.id))
        if paused > 0 and not self._is_told:
            self._is_told = True
            context.log(
                f"{context.provider.name} was asked too often, and wants to be left alone for "
                f"{duration(paused)}: no run of this ledger looks at its batches until then."
            )
        fair = context.settings.poll_interval or max(usual, batches * 60 / _A_MINUTE)
        return max(fair, paused), paused > 0
