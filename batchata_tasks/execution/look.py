"""Looking: what the provider says of a batch, by itself or in the account's list."""

from __future__ import annotations

import math
from http import HTTPStatus
from typing import TYPE_CHECKING

from batchata_tasks.common.clock import now_us
from batchata_tasks.common.errors import (
    BatchataError,
    CredentialsError,
    OtherAccountError,
    TerminalError,
    TransientError,
)
from batchata_tasks.execution.context import retry_transient
from batchata_tasks.execution.look_pace import note_refusal
from batchata_tasks.execution.misnamed import (
    NeverSeenError,
    NotShownError,
    RefusedLookError,
    find_misnamed,
)
from batchata_tasks.providers import (
    BatchLook,
    address_now,
    address_then,
    describe_change,
    has_forgotten,
    is_other_scope,
    names_of_account,
)

if TYPE_CHECKING:
    from batchata_tasks.execution.context import SubmitContext

_DAY = 86400.0
_KEPT = 29 * 86400  # seconds for which providers keep results at least
NO_SUCH_BATCH = (
    HTTPStatus.NOT_FOUND,
    HTTPStatus.BAD_REQUEST,
    HTTPStatus.GONE,
    HTTPStatus.UNPROCESSABLE_ENTITY,
)
"""What a server may answer to an id that is no batch's."""
# and one that has no list of batches
_NO_LIST = (HTTPStatus.NOT_FOUND, HTTPStatus.METHOD_NOT_ALLOWED, HTTPStatus.NOT_IMPLEMENTED)
PATIENT = 10
"""Times `BATCHATA_PATIENCE`: how patient a look is."""


def look_once(context: SubmitContext, batch_id: str, longest: float = math.inf) -> BatchLook:
    """Return the status of a batch; it is not asked for beyond `longest` seconds.

    Batches take hours, and a passing 404 or a lost network says nothing about them: looking is
    ten times as patient as sending. A batch that is not found for that long was deleted, or lost:
    it has ended, and its results are gone. One that was never found may be listed by another id,
    which the ledger and the status have from then on.

    Raises:
        NotShownError: it is not found, and no list is known to prove that it is gone; or it was not
            found since its create, nor is it listed by another id (NeverSeenError).
        RefusedLookError: looks at it are refused, which the list does not show, although the key
            may read that.
        OtherAccountError: it is not found, or refused, but was sent under another key or scope
            (organization, project …), whose account may have it. If the scope is another one, a
            single answer shows it.
    """
    provider, ledger = context.provider, context.ledger
    account, scope = ledger.sent_under(batch_id)
    is_its_account = account == provider.account(ledger.id)

    def look() -> BatchLook:
        try:
            return provider.look(batch_id)
        except TransientError as error:
            note_refusal(ledger, provider.account(ledger.id), error)
            is_elsewhere = is_other_scope(provider, ledger.id, scope)  # the answer may tell, too
            if is_elsewhere and error.status == HTTPStatus.NOT_FOUND:
                raise _other_account(context, batch_id, error) from error
            raise

    patience = context.settings.patience * (PATIENT if is_its_account else 1)
    try:
        return retry_transient(context, look, PATIENT, longest=min(longest, patience))
    except OtherAccountError:
        raise
    except (TransientError, TerminalError, CredentialsError) as error:
        is_refused = isinstance(error, CredentialsError)
        status = HTTPStatus.NOT_FOUND if is_refused else error.status
        if not is_its_account and status == HTTPStatus.NOT_FOUND:
            raise _other_account(context, batch_id, error) from error
        is_transient = isinstance(error, TransientError)
        if is_transient and (longest < patience or status != HTTPStatus.NOT_FOUND):
            raise
        if is_refused:
            return _refused(context, batch_id, error)
        return _not_found(context, batch_id, error)


def _not_found(
    context: SubmitContext, batch_id: str, error: TransientError | TerminalError
) -> BatchLook:
    """Return the status of a batch of which a server says that it cannot be told, from the list.

    Raises:
        NotShownError: see `look_once`.
        TransientError, TerminalError: the provider does not tell.
    """
    if error.status in NO_SUCH_BATCH and not context.ledger.was_seen(batch_id):
        return _missing(context, batch_id, error)
    if error.status in (HTTPStatus.NOT_FOUND, HTTPStatus.GONE):
        return _listed(context, batch_id) or _deleted(context, batch_id, error)
    look = _shown(context, batch_id, error)
    if look is None:
        raise error
    return look


def _refused(context: SubmitContext, batch_id: str, error: CredentialsError) -> BatchLook:
    """Return the status of a batch from the list, where the key may read that, not the batch.

    Raises:
        RefusedLookError: the list does not show it.
        CredentialsError: the list is refused, too, or cannot be read.
    """
    look = _shown(context, batch_id, error)
    if look is None:
        message = (
            f"{error} It may list batches, though, so this may concern batch {batch_id} alone."
        )
        raise RefusedLookError(message) from error
    return look


def _shown(context: SubmitContext, batch_id: str, error: BatchataError) -> BatchLook | None:
    """Return a batch as the list shows it, if it does; raise `error` if that cannot be read."""
    try:
        looks = _looks(context, batch_id)
    except (TransientError, TerminalError, CredentialsError):
        raise error from None
    return next((look for look in looks if look.batch_id == batch_id), None)


def listed(context: SubmitContext, batch_id: str, error: BatchataError) -> BatchLook | None:
    """Return a batch that was not found (`error`) as the account's list shows it.

    None if the list shows that it is gone.

    Raises:
        NotShownError: the list does not tell.
        TransientError, TerminalError: it cannot be read.
    """
    if context.ledger.was_seen(batch_id):
        return _listed(context, batch_id)
    return _missing(context, batch_id, error)


def _missing(context: SubmitContext, batch_id: str, error: BatchataError) -> BatchLook:
    """Return the status of a batch that was never found, as the account's list shows it.

    Raises:
        NeverSeenError: it is not listed; nobody can say that it was deleted.
        TransientError, TerminalError: the list cannot be read.
    """
    try:
        looks = _looks(context, batch_id)
    except (TransientError, TerminalError) as problem:
        if problem.status not in _NO_LIST:
            raise
        looks = list["BatchLook"]()
    look = next((look for look in looks if look.batch_id == batch_id), None)
    look = look or find_misnamed(context, batch_id, looks)
    if look is None:
        chunk = context.ledger.chunk_of_batch(batch_id)
        message = (
            f"{error} Batch {batch_id} was never seen since its create was answered. If the "
            "provider's console shows it under another id, "
            f"`batchata reconcile --adopt {'CHUNK' if chunk is None else chunk.id}=BATCH` names it."
        )
        raise NeverSeenError(message) from error
    return look


def _deleted(context: SubmitContext, batch_id: str, error: BatchataError) -> BatchLook:
    """Return the status of a batch that is neither found nor listed any more."""
    context.log(f"{error} Nor is batch {batch_id} listed any more: it was deleted.")
    return BatchLook(batch_id, "deleted", ended=True, created_at=0.0, gone=True)


def was_deleted(context: SubmitContext, look: BatchLook) -> bool:
    """Whether a batch's results are gone sooner than the provider deletes them by itself."""
    return look.gone and not is_old(context, look)


def is_old(context: SubmitContext, look: BatchLook) -> bool:
    """Whether results may be gone by age, by our clock and the server's: each may be wrong."""
    now = now_us()
    sent_at = context.ledger.submitted_at(look.batch_id) or now
    made_at = sent_at if look.created_at is None else int(look.created_at * 1e6)
    return now - max(sent_at, made_at) > _KEPT * 1_000_000


def deleted(batch_id: str) -> str:
    """Return the sentence for a batch that was deleted, or lost by its server."""
    return f"batch {batch_id} was deleted at the provider before its results came."


def _other_account(
    context: SubmitContext, batch_id: str, error: BatchataError
) -> OtherAccountError:
    """Return the error that names what to set again to see a batch."""
    provider, ledger = context.provider, context.ledger
    scope = ledger.sent_under(batch_id)[1]
    then, now = address_then(scope), address_now(provider)
    if has_forgotten(provider, scope):
        return OtherAccountError(
            f"batch {batch_id} was sent to the emulator at {then}, which is not the one that is "
            f"asked now: its batches are forgotten, and cost nothing. `batchata reconcile "
            f"--abandon {batch_id}` gives it up, and its rows are sent again; `batchata rehearse` "
            "leaves no such traces."
        )
    if then and then != now:
        return OtherAccountError(
            f"batch {batch_id} was sent to {then}, and {now} is asked now, which does not know it. "
            "It stays recorded: set the address as it was, and the same command lands its rows; "
            f"or `batchata reconcile --abandon {batch_id}` gives it up, and they are sent again."
        )
    change = describe_change(provider, ledger.id, scope)
    return OtherAccountError(
        f"{error} Batch {batch_id} may be there all the same, as {change}. It stays recorded, and "
        "the same command then lands its rows (if that cannot be done: "
        f"`batchata reconcile --abandon {batch_id}` gives it up)."
    )


def _listed(context: SubmitContext, batch_id: str) -> BatchLook | None:
    """Return a batch as the account's list shows it, although it is not found by its id.

    Raises:
        NotShownError: the list is not known to show the account's batches.
        TransientError: it cannot be read.
    """
    provider, ledger = context.provider, context.ledger
    looks = _looks(context, batch_id)
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
        f"batch {batch_id} is not found, and the list of batches does not tell whether it is gone."
    )
    raise NotShownError(message)


def _looks(context: SubmitContext, batch_id: str) -> list[BatchLook]:
    """Return the batches that the account's list shows, as far back as a batch may be."""
    sent_at = context.ledger.submitted_at(batch_id)
    return list(context.provider.around(0.0 if sent_at is None else sent_at / 1e6 - _DAY))
