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
from batchata_tasks.common.errors import CredentialsError, TerminalError, TransientError, UnclearError
from batchata_tasks.common.files import write_json
from batchata_tasks.execution.context import riding_out
from batchata_tasks.execution.unclear import adopt, record
from batchata_tasks.ledger import UNCLEAR, Chunk, Intent

if TYPE_CHECKING:
    from pathlib import Path

    from batchata_tasks.execution.context import Desk
    from batchata_tasks.providers import BatchLook

_LONGEST_WAIT = 300.0


def submit(desk: Desk, chunk: Chunk, request_file: Path) -> str | None:
    """Bring a chunk to the provider, once; return its batch id, or None where the run is to stop before that.

    Raises:
        TransientError, TerminalError: the provider refused, nothing was accepted.
        HeldError: nobody can tell any more whether it was accepted.
        LeaseError: the dataset went to another run; nothing was sent.
    """
    unclear, file_id, pushed = chunk.state == UNCLEAR, None, False
    if unclear:
        file_id = desk.ledger.intent(chunk.id).input_file_id  # an upload of a create that never came to be
    while True:
        if unclear:
            if (found := adopt(desk, chunk)) is not None:
                return found
            desk.ledger.withdraw_intent(desk.lease, chunk.id)
            unclear = False
        if desk.stop_reason() is not None:
            return None
        try:
            file_id = file_id or riding_out(desk, lambda: desk.provider.upload(request_file))
            look = riding_out(desk, partial(_send, desk, chunk, request_file, file_id))
        except UnclearError as error:
            desk.say(f"{error} Looking it up before anything is sent again.")
            unclear = True
        except TransientError as error:
            pushed = _waited(desk, error, again=not pushed)
        else:
            return record(desk, chunk, look)


def _waited(desk: Desk, error: TransientError, *, again: bool) -> bool:
    """Wait until a queue that is full may have room; whether nothing was in it by now.

    Raises:
        TransientError: the error given; it speaks of no queue, or of one that is empty (unless
            `again`: the last batch of it may have ended just now).
    """
    if error.status != HTTPStatus.TOO_MANY_REQUESTS:
        raise error
    others = riding_out(desk, desk.provider.open_batches)
    if not others and not again:
        raise error
    desk.say(f"{error} Waiting until one of the account's batches ends ({len(others):,} open).")
    wait_for_one(desk, others, longest=_LONGEST_WAIT)  # it may be a limit of calls, too
    return not others


def wait_for_one(desk: Desk, batch_ids: set[str], model: str | None = None, longest: float = math.inf) -> None:
    """Wait until one of these batches has ended, `longest` seconds have passed, or the run is to stop."""
    until = time.monotonic() + longest
    wait, most = desk.provider.poll_seconds
    while batch_ids and desk.stop_reason() is None and time.monotonic() < until:
        if not batch_ids <= riding_out(desk, lambda: desk.provider.open_batches(model), times=10):
            return
        desk.sleep(desk.settings.poll_interval or wait)
        wait = min(wait * 1.25, most)


def _send(desk: Desk, chunk: Chunk, request_file: Path, file_id: str | None) -> BatchLook:
    """Write the intent and send, once. An UnclearError leaves the intent standing."""
    account = desk.provider.account(desk.ledger.id)
    newest = desk.provider.newest()
    mark = int((newest or 0.0) * 1e6)
    while True:
        intent = Intent(chunk.id, account, chunk.rows, desk.lease.fence, now_us(), file_id, mark)
        _write_intent(desk, chunk, intent)
        if desk.ledger.record_intent(desk.lease, intent):
            break
        desk.sleep(0.2)  # a create of equal size is in doubt: the two could not be told apart
    try:
        return desk.provider.create(request_file, file_id, chunk.id, desk.must_hold)
    except (TransientError, TerminalError, CredentialsError):
        # refused for certain; anything else leaves it unclear, for a successor too
        desk.ledger.withdraw_intent(desk.lease, chunk.id)
        raise


def _write_intent(desk: Desk, chunk: Chunk, intent: Intent) -> None:
    """Write the intent where the dataset is; its rows stand in the chunk's manifest beside it."""
    facts: dict[str, Any] = {
        "format": 1, "token": chunk.id, "ledger_id": desk.ledger.id, "run_id": chunk.run_id, "round": chunk.round,
        "provider": chunk.provider, "endpoint": chunk.endpoint, "model": chunk.model, "account": intent.account,
        "requests": intent.requests, "bound_picodollars": chunk.bound, "budget": desk.ledger.budget_of(chunk.id),
        "input_file_id": intent.input_file_id, "fence": intent.fence, "sent_at_us": intent.sent_at, "mark_us": intent.mark,
        "rows": f"{chunk.id}.arrow", "start": chunk.start, "bytes": chunk.bytes,
    }
    write_json(desk.folder.intents / f"{chunk.id}.json", facts)
