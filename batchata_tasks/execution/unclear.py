"""Doubt: what became of a create of which nobody knows whether it was accepted.

It is looked up in the same account: adopted when found, free to be sent again only when complete
listings show nothing until `BATCHATA_UNCLEAR_GRACE` has passed, held when nobody can tell any more.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from batchata_tasks.common.errors import CredentialsError, HeldError
from batchata_tasks.common.files import make_folder, read_json, write_json
from batchata_tasks.execution.context import retry_transient

if TYPE_CHECKING:
    from batchata_tasks.dataset.folder import DatasetFolder
    from batchata_tasks.execution.context import ProviderContext, SubmitContext
    from batchata_tasks.ledger import Chunk, Intent, Lease, Ledger
    from batchata_tasks.providers import BatchLook

CLOCK_SKEW = 300.0  # seconds by which clocks of one provider may differ
_DAY = 86400.0


def adopt(context: SubmitContext, chunk: Chunk) -> str | None:
    """Find out what became of a create of unknown fate; its batch id, or None once absence is proven."""
    if (found := _resolve(context, chunk)) is None:
        return None
    context.log(f"batch {found.batch_id} was accepted after all: adopted.")
    return record(context, chunk, found)


def record(context: ProviderContext, chunk: Chunk, look: BatchLook) -> str:
    """Write the batch that a chunk is; return its id."""
    account = context.provider.account(context.ledger.id)
    context.ledger.record_batch(context.lease, chunk, look.batch_id, account, look.status)
    return look.batch_id


def hold(ledger: Ledger, lease: Lease, folder: DatasetFolder, chunk_id: str) -> None:
    """Keep a chunk's rows and its money until a person decides; also where the ledger should be lost."""
    path = folder.intent(chunk_id)
    make_folder(folder.intents)
    write_json(path, {**(read_json(path) or {}), "held": True})
    ledger.hold(lease, chunk_id)


def _resolve(context: SubmitContext, chunk: Chunk) -> BatchLook | None:
    """Find out what became of a create: its batch, or None once its absence is proven.

    A candidate is a batch of the right size, no older than the newest that was listed before the
    send (by the provider's clock: ours may be wrong), that belongs to no other chunk. Where only
    its results can prove whose it is, it is awaited; nothing is sent meanwhile.

    Raises:
        HeldError: a candidate is gone that nobody had judged yet.
    """
    intent = context.ledger.intent(chunk.id)
    proof_from = intent.sent_at / 1e6 + context.settings.unclear_grace
    path = context.folder.intent(chunk.id)
    known: list[str] = (read_json(path) or {}).get("candidates", [])
    wait, strangers, seen = 1.0, set[str](), dict.fromkeys(known, time.time())
    while True:
        listed_at = time.time()
        if (found := look_for(context, intent, seen, strangers)) is not None:
            return found
        if not seen.keys() <= set(known):  # one that vanishes must not be forgotten by a death
            known = sorted(seen)
            write_json(path, {**(read_json(path) or {}), "candidates": known})
        judged = strangers | context.ledger.known_batches(
            seen
        )  # other chunks in doubt find theirs, too
        unjudged = {batch_id: at for batch_id, at in seen.items() if batch_id not in judged}
        _refuse_vanished(context, unjudged, listed_at)
        if not unjudged and listed_at >= proof_from:
            return None
        context.sleep(wait if unjudged else min(wait, max(proof_from - time.time(), 0.2)))
        wait = min(wait * 1.5, context.provider.poll_seconds[1])


def look_for(
    context: ProviderContext,
    intent: Intent,
    seen: dict[str, float] | None = None,
    strangers: set[str] | None = None,
) -> BatchLook | None:
    """Look once for the batch of a create of unknown fate; None where no batch is proven to be it (yet).

    `seen` notes when each candidate was listed last, `strangers` those proven to be somebody else's.

    Raises:
        CredentialsError: it was sent under another key.
        HeldError: a candidate has ended, and its results cannot tell whose it is.
    """
    if intent.account != context.provider.account(context.ledger.id):
        message = (
            f"{context.provider.name}: a batch was sent under another API key, and its fate is not known; "
            "set that key again, since only its account can tell whether the batch was accepted "
            "(where it is revoked: `batchata reconcile --hold`, then `--adopt` or `--resend`)."
        )
        raise CredentialsError(message)
    since = oldest(intent)
    seen = {} if seen is None else seen
    strangers = set() if strangers is None else strangers
    return retry_transient(context, lambda: _found(context, intent, since, seen, strangers))


def oldest(intent: Intent) -> float:
    """Return the time before which the batch of a create cannot have been made."""
    # the first version marked nothing, and went by a clock that may have been wrong
    return (
        intent.mark / 1e6 - CLOCK_SKEW if intent.mark is not None else intent.sent_at / 1e6 - _DAY
    )


def _refuse_vanished(context: ProviderContext, unjudged: dict[str, float], now: float) -> None:
    """Give up on candidates that lists left out for as long as it takes to prove an absence."""
    for batch_id, at in unjudged.items():
        if now - at > context.settings.unclear_grace:
            message = (
                f"the batch {batch_id} may have been one that was sent and never confirmed, but it is gone from the provider's list; "
                "its rows are held: decide with `batchata reconcile`."
            )
            raise HeldError(message)


def _found(
    context: ProviderContext,
    intent: Intent,
    since: float,
    seen: dict[str, float],
    strangers: set[str],
) -> BatchLook | None:
    sized = (
        look for look in context.provider.recent(since) if look.requests in (None, intent.requests)
    )
    # one that was not let in ran nothing, and carries the name of the one that was sent after it
    looks = [look for look in sized if look.batch_id not in strangers and not look.no_room]
    known = context.ledger.known_batches(look.batch_id for look in looks)
    candidates = [look for look in looks if look.batch_id not in known]
    seen |= {
        look.batch_id: time.time() for look in candidates
    }  # first: one may vanish while it is judged
    for look in candidates:
        mine = context.provider.owns(look, intent.chunk_id)
        if mine:
            return look
        if mine is None and look.ended:
            message = (
                f"the batch {look.batch_id} may be one that was sent and never confirmed, but its results cannot be read; "
                "its rows are held: decide with `batchata reconcile`."
            )
            raise HeldError(message)
        if mine is False:
            strangers.add(look.batch_id)
    return None
