"""Submitting: write the intent durably, send once, write the batch id; look up what is unclear.

A provider's create has no idempotency key, and a lost answer does not say whether the batch was
accepted (and will be billed). So a create is preceded by an intent, in the ledger and in the
dataset's own storage, and one of unknown fate is looked up in the same account: adopted if found,
sent again, once, only if complete lists show nothing until `BATCHATA_UNCLEAR_GRACE` has passed.
"""

from __future__ import annotations

import math
import time
from functools import partial
from http import HTTPStatus
from typing import TYPE_CHECKING

from batchata_tasks.common.clock import awake_clock, now_us
from batchata_tasks.common.errors import (
    BatchataError,
    CredentialsError,
    HeldError,
    StorageError,
    TerminalError,
    TransientError,
    UnclearError,
)
from batchata_tasks.execution.cleanup import discard_unused
from batchata_tasks.execution.context import retry_transient
from batchata_tasks.execution.held import note_create_error
from batchata_tasks.execution.held_dataset import InterruptedRunError, require_owner
from batchata_tasks.execution.intent_files import withdraw, write_intent
from batchata_tasks.execution.rivals import Rivals
from batchata_tasks.execution.twice import notice, ran_nothing
from batchata_tasks.execution.unclear import NO_LIST, adopt, record
from batchata_tasks.ledger import Chunk, ChunkState, Intent
from batchata_tasks.providers import address_now, scope_of
from batchata_tasks.providers.pace import within

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from batchata_tasks.execution.context import SubmitContext
    from batchata_tasks.execution.run_context import BatchContext
    from batchata_tasks.providers import Adapter, BatchLook

_LONGEST_QUEUE_WAIT = 300.0  # seconds
_LONG = 10.0  # seconds of a wait after which people are told what it is for
# seconds; a create of equal size without an answer is mostly one of this run, answered right now
_SHORTEST_PAUSE, _LONGEST_PAUSE = 0.02, 0.5
_DAY = 86400.0
_INTENT_BELIEVED = 0.5  # seconds for which one read of the ledger counts


def submit(context: BatchContext, chunk: Chunk, request_file: Path) -> str | None:
    """Send a chunk to the provider, once; return its batch id, None if the run is to stop first.

    What was uploaded for a create that did not come to be is deleted.

    Raises:
        TransientError, TerminalError: the provider refused, nothing was accepted.
        HeldError: nobody can tell any more whether it was accepted.
        LeaseError, InterruptedRunError: the dataset went to another run, or this one is to end at
            once; nothing was sent.
    """
    uploads = list[str]()
    try:
        batch_id = _submit(context, chunk, request_file, uploads)
    except (TransientError, TerminalError, CredentialsError):
        discard_unused(context, chunk, uploads)
        raise
    if uploads and (batch_id is None or len(uploads) > 1):
        discard_unused(context, chunk, uploads)
    return batch_id


def _submit(
    context: SubmitContext, chunk: Chunk, request_file: Path, uploads: list[str]
) -> str | None:
    """Submit a chunk; add what is uploaded to `uploads`."""
    unclear = chunk.state == ChunkState.UNCLEAR
    # a create that never came to be may have left an upload behind, which serves again
    file_id = context.ledger.intent(chunk.id).input_file_id if unclear else None
    queue_was_empty, trouble = False, None
    while True:
        if unclear:
            if (batch_id := _found(context, chunk, trouble)) is not None:
                return batch_id
            chunk = context.ledger.chunk(chunk.id)
            unclear = False
        context.raise_if_left()
        if context.stop_reason() is not None:
            return None
        try:
            if file_id is None:
                file_id = retry_transient(context, partial(_upload, context, request_file))
                uploads += [file_id] if file_id is not None else []
            look = retry_transient(context, partial(_send, context, chunk, request_file, file_id))
        except _StopRequestedError:
            return None
        except UnclearError as error:
            context.log(f"{error} Looking it up before anything is sent again.")
            unclear, trouble = True, error.trouble
            note_create_error(context.folder, chunk.id, str(error))
        except TransientError as error:
            queue_was_empty = _wait_for_queue(context, error, again=not queue_was_empty)
        else:
            return _recorded(context, chunk, look)


def _found(context: SubmitContext, chunk: Chunk, trouble: str | None) -> str | None:
    """Return the batch of an unclear create; None if there is none, and it is to be sent again.

    Raises:
        TerminalError: there is none, and the answer told of `trouble` of the account: another
            create would be answered alike.
        HeldError: nobody can tell.
    """
    if (batch_id := adopt(context, chunk)) is not None:
        return batch_id
    withdraw(context.folder, context.ledger, context.lease, chunk.id, absent=True)
    if trouble is not None:
        raise TerminalError(trouble)
    return None


def _recorded(context: SubmitContext, chunk: Chunk, look: BatchLook) -> str:
    try:
        return record(context, chunk, look)
    except HeldError:
        text = f"the answer named batch {look.batch_id:.100}, as another one of the ledger is named"
        note_create_error(context.folder, chunk.id, f"{context.provider.name}: {text}.")
        raise


def _wait_for_queue(context: SubmitContext, error: TransientError, *, again: bool) -> bool:
    """Wait until a full queue may have room; return whether it was empty.

    Raises:
        TransientError: the error given; it is not about a queue, or about an empty one (unless
            `again`: its last batch may have ended just now).
    """
    if error.status != HTTPStatus.TOO_MANY_REQUESTS:
        raise error
    batch_ids = retry_transient(context, context.provider.open_batches)
    if not batch_ids and not again:
        raise error
    context.log(
        f"{error} Waiting until one of the account's batches ends ({len(batch_ids):,} open)."
    )
    # not for ever: it may be a limit of calls, too
    wait_for_one(context, batch_ids, longest=_LONGEST_QUEUE_WAIT)
    return not batch_ids


def wait_for_one(
    context: SubmitContext, batch_ids: set[str], model: str | None = None, longest: float = math.inf
) -> bool:
    """Wait until one of these batches has ended; return False if none did in `longest` seconds.

    A request to stop the run ends the wait, too.
    """
    until = time.monotonic() + longest
    wait, longest_wait = context.provider.poll_seconds
    while batch_ids and context.stop_reason() is None:
        if time.monotonic() >= until:
            return False
        left = context.seconds_left()
        try:
            with within(left):
                open_batches = retry_transient(
                    context, lambda: context.provider.open_batches(model), 10, longest=left
                )
        except TransientError:
            if context.stop_reason() is None:
                raise
            return True
        if not batch_ids <= open_batches:
            return True
        pause = context.settings.poll_interval or wait
        context.sleep(min(pause, max(until - time.monotonic(), 0.0)))
        wait = min(wait * 1.25, longest_wait)
    return True


def _upload(context: SubmitContext, request_file: Path) -> str | None:
    _require_wanted(context)
    with within(context.seconds_left()):
        return context.provider.upload(request_file)


def _send(
    context: SubmitContext, chunk: Chunk, request_file: Path, file_id: str | None
) -> BatchLook:
    """Write the intent and send, once. After an UnclearError the intent still stands."""
    _require_wanted(context)
    account = context.provider.account(context.ledger.id)
    with within(context.seconds_left()):
        looks = _newest(context.provider)
    _require_same_kind(context, chunk)
    scope = scope_of(context.provider, context.ledger.id)  # a first answer has told who answers
    notice(context, looks or [], chunk.run_id)
    _require_wanted(context)
    mark = _mark(looks)
    rivals, named = Rivals(context, chunk, account), context.provider.names_batches
    while True:
        intent = Intent(
            chunk.id, account, chunk.rows, context.lease.fence, now_us(), file_id, mark, scope
        )
        if context.ledger.record_intent(context.lease, intent, named=named):
            break
        rivals.wait()
        _require_wanted(context)
    try:
        write_intent(context, chunk, intent)
    except StorageError:  # of a full disk, say; nothing was sent
        withdraw(context.folder, context.ledger, context.lease, chunk.id, intent)
        raise
    if (there := _is_there(context, intent, looks or [])) is not None:
        return there
    try:
        return context.provider.create(request_file, file_id, chunk.id, _Gate(context, intent))
    except (
        TransientError,
        TerminalError,
        CredentialsError,
        _StopRequestedError,
        InterruptedRunError,
    ):
        # refused for certain, or not sent; after anything else it is unclear, for a successor too
        withdraw(context.folder, context.ledger, context.lease, chunk.id, intent)
        raise


def _require_same_kind(context: SubmitContext, chunk: Chunk) -> None:
    """Refuse to send if an emulator answers a real run, or something else a rehearsal.

    Nobody knows the kind of a run that an older version began: it goes on.

    Raises:
        TerminalError: it began, or was planned, while somebody else answered at the address.
    """
    kind = context.ledger.run(chunk.run_id).rehearsal
    if kind is not None and bool(context.provider.is_emulated()) != bool(kind):
        began, now = "an emulator answered", "none answers now"
        if not context.rehearsal:
            began, now = "no emulator answered", "one answers now"
        message = (
            f"{context.provider.name}: {began} at {address_now(context.provider)} when the run was "
            f"planned, and {now}, so nothing is sent; start the run again."
        )
        raise TerminalError(message)


def _is_there(
    context: SubmitContext, intent: Intent, looks: Iterable[BatchLook]
) -> BatchLook | None:
    """Return a listed batch that carries the chunk's name, although the ledger knows of none.

    Ledger and folder may both be from a backup; or a proxy repeated a create, and the batch that
    was told of found no room.
    """
    for look in looks:
        is_own = look.token == intent.chunk_id and look.requests in (None, intent.requests)
        if is_own and not ran_nothing(look) and not context.ledger.known_batches([look.batch_id]):
            context.log(f"batch {look.batch_id} holds these requests already: adopted, not sent.")
            return look
    return None


def _mark(looks: Iterable[BatchLook] | None) -> int | None:
    """Return when the newest listed batch was created, in microseconds since 1970.

    The one to be made cannot be older, by the provider's clock. None if there is no list.
    """
    if looks is None:
        return None
    newest = max((look.created_at or 0.0 for look in looks), default=0.0)
    # a date in the future may be of a batch without a clock, and would hide the one to be made
    return int(min(newest, time.time()) * 1e6)


def _newest(provider: Adapter) -> list[BatchLook] | None:
    """Return the newest batches of the account; None if there is no list."""
    try:
        return provider.newest()
    except (TransientError, TerminalError) as error:
        if error.status not in NO_LIST:
            raise
        return None


class _StopRequestedError(BatchataError):
    """Somebody asked that nothing more be sent, while a create was being prepared."""


def _require_wanted(context: SubmitContext) -> None:
    """Raise an error if the run was left, or is to send nothing more."""
    context.raise_if_left()
    if context.stop_reason() is not None:
        message = "the run is to send nothing more."
        raise _StopRequestedError(message)


class _Gate:
    """Called before the first byte of a create and before each block; raises to send no more.

    A process that was stopped after it wrote its intent may have been taken for dead, so that
    another one looked for the batch, did not find it and sends the chunk itself. The ledger tells.

    A request to stop counts until the first byte: a create that is cut off later is in doubt.
    """

    def __init__(self, context: SubmitContext, intent: Intent) -> None:
        self._context = context
        self._intent = intent
        self._checked_at = -math.inf

    def __call__(self) -> None:
        if self._checked_at == -math.inf:
            _require_wanted(self._context)
            require_owner(self._context.folder, self._context.ledger)
        self._context.require_lease()
        if awake_clock() - self._checked_at > _INTENT_BELIEVED:
            self._checked_at = awake_clock()
            self._context.ledger.check_intent(self._context.lease, self._intent)
