"""Submitting: write the intent durably, send once, write the batch id; resolve doubt by looking.

A provider's create has no idempotency key, and a lost answer does not say whether the batch was
accepted (and will be billed). So a create is preceded by an intent, in the ledger and in the
dataset's own storage, and one of unknown fate is looked up in the same account: adopted when found,
sent again only when complete listings show nothing until `BATCHATA_UNCLEAR_GRACE` has passed.
"""

from __future__ import annotations

import math
import time
from functools import partial
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from batchata_tasks.common.clock import now_us
from batchata_tasks.common.errors import (
    CredentialsError,
    TerminalError,
    TransientError,
    UnclearError,
)
from batchata_tasks.common.files import write_json
from batchata_tasks.execution.context import retry_transient
from batchata_tasks.execution.unclear import adopt, record
from batchata_tasks.ledger import Chunk, ChunkState, Intent

if TYPE_CHECKING:
    from pathlib import Path

    from batchata_tasks.execution.context import SubmitContext
    from batchata_tasks.providers import BatchLook

_LONGEST_WAIT = 300.0


def submit(context: SubmitContext, chunk: Chunk, request_file: Path) -> str | None:
    """Bring a chunk to the provider, once; return its batch id, or None where the run is to stop before that.

    Raises:
        TransientError, TerminalError: the provider refused, nothing was accepted.
        HeldError: nobody can tell any more whether it was accepted.
        LeaseError: the dataset went to another run; nothing was sent.
    """
    unclear, file_id, pushed = chunk.state == ChunkState.UNCLEAR, None, False
    if unclear:
        file_id = context.ledger.intent(
            chunk.id
        ).input_file_id  # an upload of a create that never came to be
    while True:
        if unclear:
            if (found := adopt(context, chunk)) is not None:
                return found
            context.ledger.withdraw_intent(context.lease, chunk.id)
            unclear = False
        if context.stop_reason() is not None:
            return None
        try:
            file_id = file_id or retry_transient(
                context, lambda: context.provider.upload(request_file)
            )
            look = retry_transient(context, partial(_send, context, chunk, request_file, file_id))
        except UnclearError as error:
            context.log(f"{error} Looking it up before anything is sent again.")
            unclear = True
        except TransientError as error:
            pushed = _waited(context, error, again=not pushed)
        else:
            return record(context, chunk, look)


def _waited(context: SubmitContext, error: TransientError, *, again: bool) -> bool:
    """Wait until a queue that is full may have room; whether nothing was in it by now.

    Raises:
        TransientError: the error given; it speaks of no queue, or of one that is empty (unless
            `again`: the last batch of it may have ended just now).
    """
    if error.status != HTTPStatus.TOO_MANY_REQUESTS:
        raise error
    others = retry_transient(context, context.provider.open_batches)
    if not others and not again:
        raise error
    context.log(f"{error} Waiting until one of the account's batches ends ({len(others):,} open).")
    wait_for_one(context, others, longest=_LONGEST_WAIT)  # it may be a limit of calls, too
    return not others


def wait_for_one(
    context: SubmitContext, batch_ids: set[str], model: str | None = None, longest: float = math.inf
) -> None:
    """Wait until one of these batches has ended, `longest` seconds have passed, or the run is to stop."""
    until = time.monotonic() + longest
    wait, most = context.provider.poll_seconds
    while batch_ids and context.stop_reason() is None and time.monotonic() < until:
        if not batch_ids <= retry_transient(
            context, lambda: context.provider.open_batches(model), times=10
        ):
            return
        context.sleep(context.settings.poll_interval or wait)
        wait = min(wait * 1.25, most)


def _send(
    context: SubmitContext, chunk: Chunk, request_file: Path, file_id: str | None
) -> BatchLook:
    """Write the intent and send, once. An UnclearError leaves the intent standing."""
    account = context.provider.account(context.ledger.id)
    newest = context.provider.newest()
    mark = int((newest or 0.0) * 1e6)
    while True:
        intent = Intent(chunk.id, account, chunk.rows, context.lease.fence, now_us(), file_id, mark)
        _write_intent(context, chunk, intent)
        if context.ledger.record_intent(context.lease, intent):
            break
        context.sleep(0.2)  # a create of equal size is in doubt: the two could not be told apart
    try:
        return context.provider.create(request_file, file_id, chunk.id, context.require_lease)
    except (TransientError, TerminalError, CredentialsError):
        # refused for certain; anything else leaves it unclear, for a successor too
        context.ledger.withdraw_intent(context.lease, chunk.id)
        raise


def _write_intent(context: SubmitContext, chunk: Chunk, intent: Intent) -> None:
    """Write the intent where the dataset is; its rows stand in the chunk's manifest beside it."""
    facts: dict[str, Any] = {
        "format": 1,
        "token": chunk.id,
        "ledger_id": context.ledger.id,
        "run_id": chunk.run_id,
        "round": chunk.round,
        "provider": chunk.provider,
        "endpoint": chunk.endpoint,
        "model": chunk.model,
        "account": intent.account,
        "requests": intent.requests,
        "bound_picodollars": chunk.bound,
        "budget": context.ledger.budget_of(chunk.id),
        "input_file_id": intent.input_file_id,
        "fence": intent.fence,
        "sent_at_us": intent.sent_at,
        "mark_us": intent.mark,
        "rows": f"{chunk.id}.arrow",
        "start": chunk.start,
        "bytes": chunk.bytes,
    }
    write_json(context.folder.intent(chunk.id), facts)
