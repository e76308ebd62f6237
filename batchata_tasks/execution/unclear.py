"""Unclear creates: what became of a create of which nobody knows whether it was accepted.

It is looked up in the same account: adopted if found, free to be sent again only if complete
listings show nothing until `BATCHATA_UNCLEAR_GRACE` has passed, held if nobody can tell any more.
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
    """Look up a create of unknown fate; return its batch id, None once its absence is proven."""
    look = _resolve(context, chunk)
    if look is None:
        return None
    context.log(f"batch {look.batch_id} was accepted after all: adopted.")
    return record(context, chunk, look)


def record(context: ProviderContext, chunk: Chunk, look: BatchLook) -> str:
    """Write to the ledger which batch a chunk is; return the batch's id."""
    account = context.provider.account(context.ledger.id)
    context.ledger.record_batch(context.lease, chunk, look.batch_id, account, look.status)
    return look.batch_id


def hold(ledger: Ledger, lease: Lease, folder: DatasetFolder, chunk_id: str) -> None:
    """Hold a chunk's rows and money until a person decides.

    The intent's file says so too, for the case that the ledger is lost.
    """
    path = folder.intent(chunk_id)
    make_folder(folder.intents)
    write_json(path, {**(read_json(path) or {}), "held": True})
    ledger.hold(lease, chunk_id)


def _resolve(context: SubmitContext, chunk: Chunk) -> BatchLook | None:
    """Find the batch of a create of unknown fate; return None once its absence is proven.

    A candidate is a batch of the right size, no older than the newest that was listed before the
    send (by the provider's clock: ours may be wrong), that belongs to no other chunk. If only its
    results can prove whose it is, it is awaited; nothing is sent meanwhile.

    Raises:
        HeldError: a candidate is gone before it was judged.
    """
    intent = context.ledger.intent(chunk.id)
    proof_from = intent.sent_at / 1e6 + context.settings.unclear_grace
    path = context.folder.intent(chunk.id)
    stored: list[str] = (read_json(path) or {}).get("candidates", [])
    wait, strangers, listed = 1.0, set[str](), dict.fromkeys(stored, time.time())
    while True:
        now = time.time()
        look = look_for(context, intent, listed, strangers)
        if look is not None:
            return look
        if not listed.keys() <= set(stored):
            # a candidate that vanishes must not be forgotten because this process dies
            stored = sorted(listed)
            write_json(path, {**(read_json(path) or {}), "candidates": stored})
        # other unclear chunks find their batches, too
        judged = strangers | context.ledger.known_batches(listed)
        unjudged = {batch_id: at for batch_id, at in listed.items() if batch_id not in judged}
        _refuse_vanished(context, unjudged, now)
        if not unjudged and now >= proof_from:
            return None
        context.sleep(wait if unjudged else min(wait, max(proof_from - time.time(), 0.2)))
        wait = min(wait * 1.5, context.provider.poll_seconds[1])


def look_for(
    context: ProviderContext,
    intent: Intent,
    listed: dict[str, float] | None = None,
    strangers: set[str] | None = None,
) -> BatchLook | None:
    """Look once for the batch of a create of unknown fate; None if none is proven to be it (yet).

    `listed` notes when each candidate was listed last, `strangers` those of somebody else.

    Raises:
        CredentialsError: it was sent under another key.
        HeldError: a candidate has ended, and its results cannot tell whose it is.
    """
    if intent.account != context.provider.account(context.ledger.id):
        message = (
            f"{context.provider.name}: a batch was sent under another API key, and its fate is "
            "unknown; set that key again, since only its account can tell whether the batch was "
            "accepted (if it is revoked: `batchata reconcile --hold`, then `--adopt` or "
            "`--resend`)."
        )
        raise CredentialsError(message)
    since = oldest(intent)
    listed = {} if listed is None else listed
    strangers = set() if strangers is None else strangers
    return retry_transient(context, lambda: _find(context, intent, since, listed, strangers))


def oldest(intent: Intent) -> float:
    """Return the time (seconds since 1970) before which the batch of a create cannot be made."""
    if intent.mark is None:
        # the first version marked nothing, and went by a clock that may have been wrong
        return intent.sent_at / 1e6 - _DAY
    return intent.mark / 1e6 - CLOCK_SKEW


def _refuse_vanished(context: ProviderContext, unjudged: dict[str, float], now: float) -> None:
    """Give up on candidates that lists left out for as long as it takes to prove an absence."""
    for batch_id, at in unjudged.items():
        if now - at > context.settings.unclear_grace:
            message = (
                f"the batch {batch_id} may have been one that was sent and never confirmed, but it "
                "is gone from the provider's list; its rows are held: decide with "
                "`batchata reconcile`."
            )
            raise HeldError(message)


def _find(
    context: ProviderContext,
    intent: Intent,
    since: float,
    listed: dict[str, float],
    strangers: set[str],
) -> BatchLook | None:
    """List the account's batches once; return the one that is proven to be of this create."""
    recent = context.provider.recent(since)
    sized = [look for look in recent if look.requests in (None, intent.requests)]
    # one that was not let in ran nothing, and carries the name of the one that was sent after it
    looks = [look for look in sized if look.batch_id not in strangers and not look.no_room]
    owned_ids = context.ledger.known_batches(look.batch_id for look in looks)
    candidates = [look for look in looks if look.batch_id not in owned_ids]
    # noted first: one may vanish while it is judged
    listed |= {look.batch_id: time.time() for look in candidates}
    for look in candidates:
        owned = context.provider.owns(look, intent.chunk_id)
        if owned:
            return look
        if owned is None and look.ended:
            message = (
                f"the batch {look.batch_id} may be one that was sent and never confirmed, but its "
                "results cannot be read; its rows are held: decide with `batchata reconcile`."
            )
            raise HeldError(message)
        if owned is False:
            strangers.add(look.batch_id)
    return None
