"""Whether a listed batch may be, or is, the one of a create whose answer was lost."""

from __future__ import annotations

from typing import TYPE_CHECKING

from batchata_tasks.common.errors import TerminalError, TransientError
from batchata_tasks.execution.context import retry_transient

if TYPE_CHECKING:
    from batchata_tasks.execution.context import ProviderContext
    from batchata_tasks.ledger import Intent
    from batchata_tasks.providers import BatchLook

CLOCK_SKEW = 300.0  # seconds by which clocks of one provider may differ
_DAY = 86400.0


def oldest(intent: Intent) -> float:
    """Return the time (seconds since 1970) before which the batch of a create cannot be made."""
    if intent.mark is None:
        # the provider told no time, or the first version marked nothing: our clock may be wrong
        return intent.sent_at / 1e6 - _DAY
    return intent.mark / 1e6 - CLOCK_SKEW


def owns(context: ProviderContext, look: BatchLook, intent: Intent) -> bool | None:
    """Whether a batch is of a create; None if it has not ended, or its results cannot be had.

    It may be anybody's, so that results which a server does not hand out end no run.

    Raises:
        TransientError, TerminalError: the server cannot be asked at all.
    """
    try:
        return retry_transient(context, lambda: context.provider.owns(look, intent.chunk_id))
    except (TransientError, TerminalError) as error:
        if error.status is None:
            context.provider.newest()  # raises if nothing can be asked of the server at all
        context.log(f"{error} These are the results of batch {look.batch_id}, which may be ours.")
        return None


def may_be_as_old(look: BatchLook, intent: Intent, *, clocks_are_right: bool) -> bool:
    """Whether a batch may have been made by a create, going by its age.

    One that seems to be days older may be of a server whose clock fell back.
    """
    age = None if look.created_at is None else oldest(intent) - look.created_at
    return age is None or age <= 1 or (age > 2 * _DAY and not clocks_are_right)


def is_of(look: BatchLook, intent: Intent) -> bool:
    """Whether a batch says of itself that it is of a create.

    It carries the chunk's token, or was made from the file that was uploaded for this chunk alone:
    some servers keep no metadata.
    """
    if look.token is not None:
        return look.token == intent.chunk_id
    return look.input_file_id is not None and look.input_file_id == intent.input_file_id
