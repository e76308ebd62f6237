"""Unclear creates: what became of a create of which nobody knows whether it was accepted.

It is looked up in the same account: adopted if found, free to be sent again, once, only if lists
that are known to be complete show nothing until `BATCHATA_UNCLEAR_GRACE` has passed; held if nobody
can tell (any more). That time is counted by each process from when it begins to look, since a
create may be accepted until its answer is lost, long after it was begun, and clocks may be set.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import TYPE_CHECKING

from batchata_tasks.common.clock import awake_clock
from batchata_tasks.common.errors import (
    BatchataError,
    HeldError,
    LedgerError,
    OtherAccountError,
    TerminalError,
    TransientError,
)
from batchata_tasks.common.files import make_folder, write_json
from batchata_tasks.common.text import pluralize
from batchata_tasks.dataset.packs import kept_json
from batchata_tasks.execution.candidates import (
    is_namesake,
    is_of,
    may_be_as_old,
    oldest,
    owned_of,
)
from batchata_tasks.execution.context import retry_transient
from batchata_tasks.execution.held import answered, create_error, decide
from batchata_tasks.ledger import SENDING_ENDS, ChunkState
from batchata_tasks.providers import describe_change, is_other_scope, names_of_account

if TYPE_CHECKING:
    from batchata_tasks.dataset.folder import DatasetFolder
    from batchata_tasks.execution.context import ProviderContext, SubmitContext
    from batchata_tasks.ledger import Chunk, Intent, Lease, Ledger
    from batchata_tasks.providers import BatchLook

_DAY = 86400.0
# answers of a server that has no list of batches
NO_LIST = (HTTPStatus.METHOD_NOT_ALLOWED, HTTPStatus.NOT_IMPLEMENTED)
_FIRST_PAUSE = 1.0  # seconds until batches are listed again; then longer
_RESENDS = 1  # how often a chunk is ever sent again by itself


class StillUnclearError(BatchataError):
    """What became of a create is not known yet, and is not waited for."""


def adopt(context: SubmitContext, chunk: Chunk, longest: float = math.inf) -> str | None:
    """Look up a create of unknown fate; return its batch id, None once its absence is proven.

    Raises:
        StillUnclearError: neither is known after `longest` seconds.
    """
    look = _resolve(context, chunk, longest)
    if look is None:
        context.log(
            f"{context.provider.name}: the account's list shows no batch of these "
            f"{pluralize(chunk.rows, 'request')} (chunk {chunk.id}) "
            f"{context.settings.unclear_grace:,.0f} s after its answer was lost, so it was not "
            "accepted."
        )
        return None
    batch_id = record(context, chunk, look)
    context.log(f"batch {batch_id} was accepted after all: adopted.")
    return batch_id


def record(context: ProviderContext, chunk: Chunk, look: BatchLook) -> str:
    """Write to the ledger which batch a chunk is; return the batch's id.

    Raises:
        HeldError: the server gave it the id of another batch, so that nobody can tell them apart.
    """
    account = context.provider.account(context.ledger.id)
    try:
        context.ledger.record_batch(context.lease, chunk, look.batch_id, account, look.status)
    except HeldError as error:
        message = f"{error} Its rows are held: {decide(chunk.id)}."
        raise HeldError(message) from error
    return look.batch_id


def hold(ledger: Ledger, lease: Lease, folder: DatasetFolder, chunk_id: str) -> None:
    """Hold a chunk's rows and money until a person decides.

    The intent's file says so too, for the case that the ledger is lost.
    """
    path = folder.intent(chunk_id)
    make_folder(folder.intents)
    write_json(path, {**(kept_json(path) or {}), "held": True})
    ledger.hold(lease, chunk_id)


def _resolve(context: SubmitContext, chunk: Chunk, longest: float) -> BatchLook | None:
    """Find the batch of a create of unknown fate; return None once its absence is proven.

    A candidate is a batch of the right size, no older than the newest that was listed before the
    send (by the provider's clock: ours may be wrong), that belongs to no other chunk. If only its
    results can prove whose it is, it is awaited; nothing is sent meanwhile.

    Raises:
        HeldError: a candidate is gone before it was judged; or there is none, but the list is not
            known to show all batches of the account; or the chunk was sent again once before.
        LedgerError: another process, which sent it at this moment, recorded its batch.
        StillUnclearError: see `adopt`.
    """
    intent = context.ledger.intent(chunk.id)
    began = awake_clock()  # by now its answer was lost, or the process that sent it has ended
    proof_from = began + context.settings.unclear_grace
    path = context.folder.intent(chunk.id)
    stored: list[str] = (kept_json(path) or {}).get("candidates", [])
    patience = _Patience(context)
    wait, seen = _FIRST_PAUSE, Listed(dict.fromkeys(stored, began))
    while True:
        now = awake_clock()
        look = look_for(context, intent, seen)
        if look is not None:
            return look
        _require_unclear(context, chunk)
        if not seen.candidates.keys() <= set(stored):
            # a candidate that vanishes must not be forgotten because this process dies
            stored = sorted(seen.candidates)
            write_json(path, {**(kept_json(path) or {}), "candidates": stored})
        # other unclear chunks find their batches, too
        taken = context.ledger.known_batches(seen.candidates) - seen.namesakes
        judged = seen.strangers | taken
        unjudged = {name: at for name, at in seen.candidates.items() if name not in judged}
        _refuse_vanished(context, chunk.id, unjudged, now)
        _refuse_endless(context, unjudged, patience)
        if not unjudged and now >= proof_from:
            _require_proof(context, chunk, seen)
            return None
        if now >= began + longest:
            message = f"nobody knows yet whether the batch of chunk {chunk.id} was accepted."
            raise StillUnclearError(message)
        context.sleep(wait if unjudged else min(wait, max(proof_from - awake_clock(), 0.2)))
        wait = min(wait * 1.5, context.provider.poll_seconds[1])


def _require_unclear(context: SubmitContext, chunk: Chunk) -> None:
    """Raise LedgerError if the chunk was settled meanwhile: its batch would never show up here.

    An engine may start a step again while its first try is alive and waits for the answer.
    """
    state = context.ledger.chunk(chunk.id).state
    if state != ChunkState.UNCLEAR:
        message = f"chunk {chunk.id} is {state} by now: another process sent it."
        raise LedgerError(message)


@dataclass
class Listed:
    """What the lists showed while a create was looked up.

    `candidates` notes when each batch that may be it was listed last, by `awake_clock`, `strangers`
    those that are somebody else's, `namesakes` those that have the id of another batch, which the
    ledger knows. `complete` says whether the last list is known to show the account's batches, and
    `shown` whether it shows one that the ledger knows.
    """

    candidates: dict[str, float] = field(default_factory=dict[str, float])
    strangers: set[str] = field(default_factory=set[str])
    namesakes: set[str] = field(default_factory=set[str])
    complete: bool = False
    shown: bool = False

    @property
    def proves_absence(self) -> bool:
        """Whether a batch that it does not show was never accepted."""
        return self.complete and not self.candidates.keys() - self.strangers


def _require_proof(context: SubmitContext, chunk: Chunk, seen: Listed) -> None:
    """Raise HeldError unless a list without the batch proves that it was never accepted."""
    problem = None
    if not seen.complete:
        problem = (
            "it is not in the list of batches, and this server's lists are not known to show all "
            "batches of the account"
        )
    elif chunk.resends >= _RESENDS:
        problem = "it was sent again once already, and its fate is unknown again"
    if problem is not None:
        name = context.provider.name
        message = (
            f"{name}: nobody can tell whether a batch of {pluralize(chunk.rows, 'request')} was "
            f"accepted (chunk {chunk.id}): {problem}. "
            f"{answered(create_error(context.folder, chunk.id))} Its rows are held, and its money "
            f"stays reserved: {decide(chunk.id)}."
        )
        raise HeldError(message)


def look_for(
    context: ProviderContext, intent: Intent, seen: Listed | None = None
) -> BatchLook | None:
    """Look once for the batch of a create of unknown fate; None if none is proven to be it (yet).

    What the list shows is added to `seen`.

    Raises:
        OtherAccountError: it was sent under another key, or other settings that select an account.
        HeldError: a candidate has ended, and its results cannot tell whose it is.
    """
    provider, ledger_id = context.provider, context.ledger.id
    # an account without a scope has the name that older versions gave to any of its key
    is_named = intent.account in names_of_account(provider, ledger_id)
    if not is_named or is_other_scope(provider, ledger_id, intent.scope):
        message = (
            f"{provider.name}: the fate of a batch is unknown, and only the account that it was "
            f"sent under can tell whether it was accepted; "
            f"{describe_change(provider, ledger_id, intent.scope)} (if that cannot be done: "
            f"`batchata reconcile --hold {intent.chunk_id}`, then `--adopt` or `--resend`)."
        )
        raise OtherAccountError(message)
    listed = Listed() if seen is None else seen
    return retry_transient(context, lambda: _find(context, intent, listed))


def _refuse_vanished(
    context: ProviderContext, chunk_id: str, unjudged: dict[str, float], now: float
) -> None:
    """Give up on candidates that lists left out for as long as it takes to prove an absence."""
    for batch_id, at in unjudged.items():
        if now - at > context.settings.unclear_grace:
            message = (
                f"the batch {batch_id} may have been one that was sent and never confirmed, but it "
                f"is gone from the provider's list; its rows are held: {decide(chunk_id)}."
            )
            raise HeldError(message)


class _Patience:
    """For how long a batch is awaited that may be the one of a create."""

    def __init__(self, context: SubmitContext) -> None:
        self._context = context
        self._ends_at = awake_clock() + _DAY  # whoever made it, whenever that was
        self._stopped_at: float | None = None

    def is_over(self) -> bool:
        """Whether it should have ended, or the run was to stop, and the grace is over.

        Nobody cancels it, since it may be another program's.
        """
        if self._stopped_at is None and self._context.stop_reason() not in (None, *SENDING_ENDS):
            self._stopped_at = awake_clock()
        since = min(self._ends_at, math.inf if self._stopped_at is None else self._stopped_at)
        return awake_clock() > since + self._context.settings.cancel_grace


def _refuse_endless(
    context: SubmitContext, unjudged: dict[str, float], patience: _Patience
) -> None:
    """Give up on candidates that do not end, so that nothing tells whose they are."""
    if unjudged and patience.is_over():
        message = (
            f"{context.provider.name}: the batch {min(unjudged)} may be one that was sent and "
            "never confirmed, and it does not end, so nobody can tell; its rows are held: "
            "`batchata reconcile` adopts it once it has ended."
        )
        raise HeldError(message)


def _find(context: ProviderContext, intent: Intent, seen: Listed) -> BatchLook | None:
    """List the account's batches once; return the one that is proven to be of this create."""
    names = names_of_account(context.provider, context.ledger.id)
    seen.complete = False  # until this list shows it
    newest_known = context.ledger.newest_batch_at(names)
    since = oldest(intent)
    if newest_known is not None and not context.provider.lists_all:
        # far enough back to see whether the list shows batches that are known to exist
        since = min(since, newest_known / 1e6 - _DAY)
    looks, listed = list["BatchLook"](), True
    try:
        for look in context.provider.around(since):
            # one that was not let in ran nothing, and has the name of the one that was sent after
            if is_of(look, intent) and not look.no_room:
                known = context.ledger.known_as([look.batch_id]).get(look.batch_id)
                is_recorded = known is not None and known.chunk_id == intent.chunk_id
                return None if is_recorded else look
            looks.append(look)
    except (TransientError, TerminalError) as error:
        if error.status not in NO_LIST:
            raise
        listed = False
    ids = [look.batch_id for look in looks]
    known = context.ledger.known_as(ids)
    seen.namesakes |= {
        look.batch_id
        for look in looks
        if look.batch_id in known and is_namesake(look, known[look.batch_id], intent)
    }
    taken = known.keys() - seen.namesakes
    seen.shown = any(known[batch_id].account in names for batch_id in taken)
    lists_all, is_exact = context.provider.lists_all, context.provider.is_exact
    # one server's batches may by chance have the ids of another's, or of each other
    told_apart = len(set(ids)) == len(ids)
    proves = told_apart and (lists_all or seen.shown)
    seen.complete = listed and context.provider.lists_end and proves
    candidates = [
        look
        for look in looks
        # counts of servers that nobody knows may grow with the work, or be wrong
        if (look.requests in (None, intent.requests) or not is_exact)
        and may_be_as_old(look, intent, clocks_are_right=is_exact)
        and look.batch_id not in taken | seen.strangers
        and not look.no_room
    ]
    # noted first: one may vanish while it is judged
    seen.candidates |= {look.batch_id: awake_clock() for look in candidates}
    return _judged(context, intent, candidates, seen)


def _judged(
    context: ProviderContext, intent: Intent, candidates: list[BatchLook], seen: Listed
) -> BatchLook | None:
    """Return the candidate that is of a create, if it is proven; note those that are not.

    Raises:
        HeldError: none is, and the results of one that has ended cannot tell.
    """
    found, owned = owned_of(context, candidates, intent)
    seen.strangers |= {batch_id for batch_id, is_owned in owned.items() if is_owned is False}
    if found is not None:
        return found
    open_ones = [look for look in candidates if owned[look.batch_id] is None]
    awaited = any(not look.ended for look in open_ones)
    unreadable = next((look.batch_id for look in reversed(open_ones) if look.ended), None)
    if unreadable is not None and not awaited:  # and no other is the one, or may be
        message = (
            f"the batch {unreadable} may be one that was sent and never confirmed, but its "
            f"results cannot be read; its rows are held: {decide(intent.chunk_id)}."
        )
        raise HeldError(message)
    return None
