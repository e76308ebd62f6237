"""Whether a listed batch may be, or is, the one of a create whose answer was lost."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from batchata_tasks.common.clock import awake_clock
from batchata_tasks.common.errors import TerminalError, TransientError
from batchata_tasks.execution.context import retry_transient

if TYPE_CHECKING:
    from collections.abc import Iterable

    from batchata_tasks.execution.context import ProviderContext
    from batchata_tasks.ledger import Intent, KnownBatch
    from batchata_tasks.providers import BatchLook

CLOCK_SKEW = 300.0  # seconds by which clocks of one provider may differ
_DAY = 86400.0


def oldest(intent: Intent) -> float:
    """Return the time (seconds since 1970) before which the batch of a create cannot be made."""
    if intent.mark is None:
        # the provider told no time, or the first version marked nothing: our clock may be wrong
        return intent.sent_at / 1e6 - _DAY
    return intent.mark / 1e6 - CLOCK_SKEW


def _owns(
    context: ProviderContext, look: BatchLook, intent: Intent, *, longest: float = math.inf
) -> bool | None:
    """Whether a batch is of a create; None if it has not ended, or its results cannot be had.

    It may be anybody's, so that results which a server does not hand out end no run. They are asked
    for again for `longest` seconds at most.

    Raises:
        TransientError, TerminalError: the server cannot be asked at all.
    """
    try:
        return retry_transient(
            context, lambda: context.provider.owns(look, intent.chunk_id), longest=longest
        )
    except (TransientError, TerminalError) as error:
        if error.status is None:
            context.provider.newest()  # raises if nothing can be asked of the server at all
        if longest:  # else it is asked for again
            context.log(
                f"{error} These are the results of batch {look.batch_id}, which may be ours."
            )
        return None


def owned_of(
    context: ProviderContext, looks: Iterable[BatchLook], intent: Intent
) -> tuple[BatchLook | None, dict[str, bool | None]]:
    """Return the batch of a create, if one of some is, and by id what each that was asked is.

    All are asked once before any is asked again: a server may hand out the results of none of a
    hundred that are somebody else's. Those that have ended share what patience there is.
    """
    owned = dict[str, bool | None]()
    unread = list["BatchLook"]()
    for look in looks:
        owned[look.batch_id] = _owns(context, look, intent, longest=0)
        if owned[look.batch_id]:
            return look, owned
        if owned[look.batch_id] is None and look.ended:
            unread.append(look)
    until = awake_clock() + context.settings.patience
    for look in unread:
        longest = until - awake_clock()
        if longest <= 0:
            break
        owned[look.batch_id] = _owns(context, look, intent, longest=longest)
        if owned[look.batch_id]:
            return look, owned
    return None, owned


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


def is_namesake(look: BatchLook, known: KnownBatch, intent: Intent) -> bool:
    """Whether a listed batch, which may be of a create, is not the one known by its id.

    A server that lost its memory counts from 1 again, and two servers may name their batches alike.
    A batch that is wrongly taken for another one proves nothing about others, and its results tell
    whose it is: nothing is sent for that.
    """
    if look.token is not None and look.token != known.chunk_id:
        return True
    if look.requests == intent.requests and known.requests not in (None, intent.requests):
        return True
    if look.created_at is None:
        return known.ended_at is not None and not look.ended
    return known.submitted_at < intent.sent_at and _was_made_later(look.created_at, known, intent)


def _was_made_later(created_at: float, known: KnownBatch, intent: Intent) -> bool:
    """Whether a batch was made after an intent, although one of its id was known before that.

    A list may lag behind, and the mark be read some time before the intent is written, since a
    create of equal size is awaited: a batch that was new then must be too young by our clock, too.
    """
    mark = intent.sent_at if intent.mark is None else intent.mark
    had_ended = known.ended_at is not None and known.ended_at < intent.sent_at
    is_old = had_ended or intent.sent_at - known.submitted_at > CLOCK_SKEW * 1e6
    return int(created_at * 1e6) > (mark if is_old else max(mark, known.submitted_at))
