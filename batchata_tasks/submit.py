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
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from batchata_tasks.errors import CredentialsError, HeldError, TerminalError, TransientError, UnclearError
from batchata_tasks.ledger import UNCLEAR, Chunk, Intent, now_us
from batchata_tasks.storage import read_json, write_json

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from batchata_tasks.ledger import Lease, Ledger
    from batchata_tasks.providers import BatchLook, Provider
    from batchata_tasks.settings import Settings
    from batchata_tasks.storage import DatasetFolder

T = TypeVar("T")
CLOCK_SKEW = 300.0  # seconds by which clocks of one provider may differ
_LONGEST_WAIT = 300.0


class Lookout(Protocol):
    """What looking for a batch needs."""

    @property
    def ledger(self) -> Ledger:
        """Where intents are written."""
        ...

    @property
    def lease(self) -> Lease:
        """The right to write for the dataset."""
        ...

    @property
    def provider(self) -> Provider:
        """Where chunks go."""
        ...

    @property
    def settings(self) -> Settings:
        """How long to wait for what."""
        ...

    def sleep(self, seconds: float) -> None:
        """Wait; raises when the run is to stop at once."""
        ...

    def say(self, text: str) -> None:
        """Tell people what goes on."""
        ...


class Desk(Lookout, Protocol):
    """What submitting needs of a run."""

    @property
    def folder(self) -> DatasetFolder:
        """The dataset's folder."""
        ...

    def must_hold(self) -> None:
        """Raise LeaseError unless this process is sure to hold the dataset at this moment."""
        ...

    def stop_reason(self) -> str | None:
        """Why nothing more is to be sent and open batches are to be cancelled; None while the run goes on."""
        ...

    def seconds_left(self) -> float:
        """Return the time until `stop_reason` may change by itself; infinite where nothing is set."""
        ...


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
    desk.say(f"{error} Waiting for one of the account's {len(others)} open batches to end.")
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


def adopt(desk: Desk, chunk: Chunk) -> str | None:
    """Find out what became of a create of unknown fate; its batch id, or None once absence is proven."""
    if (found := _resolve(desk, chunk)) is None:
        return None
    desk.say(f"batch {found.batch_id} was accepted after all: adopted.")
    return record(desk, chunk, found)


def record(desk: Lookout, chunk: Chunk, look: BatchLook) -> str:
    """Write the batch that a chunk is; return its id."""
    account = desk.provider.account(desk.ledger.id)
    desk.ledger.record_batch(desk.lease, chunk, look.batch_id, account, look.status)
    return look.batch_id


def _send(desk: Desk, chunk: Chunk, request_file: Path, file_id: str | None) -> BatchLook:
    """Write the intent and send, once. An UnclearError leaves the intent standing."""
    account = desk.provider.account(desk.ledger.id)
    newest = desk.provider.newest()
    mark = None if newest is None else int(newest * 1e6)
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
        "requests": intent.requests, "bound_picodollars": chunk.bound, "budget": None,
        "input_file_id": intent.input_file_id, "fence": intent.fence, "sent_at_us": intent.sent_at, "mark_us": intent.mark,
        "rows": f"{chunk.id}.arrow", "start": chunk.start, "bytes": chunk.bytes,
    }
    write_json(desk.folder.intents / f"{chunk.id}.json", facts)


def hold(ledger: Ledger, lease: Lease, folder: DatasetFolder, chunk_id: str) -> None:
    """Keep a chunk's rows and its money until a person decides; also where the ledger should be lost."""
    path = folder.intents / f"{chunk_id}.json"
    write_json(path, {**(read_json(path) or {}), "held": True})
    ledger.hold(lease, chunk_id)


def _resolve(desk: Desk, chunk: Chunk) -> BatchLook | None:
    """Find out what became of a create: its batch, or None once its absence is proven.

    A candidate is a batch of the right size, no older than the newest that was listed before the
    send (by the provider's clock: ours may be wrong), that belongs to no other chunk. Where only
    its results can prove whose it is, it is awaited; nothing is sent meanwhile.

    Raises:
        HeldError: a candidate is gone that nobody had judged yet.
    """
    intent = desk.ledger.intent(chunk.id)
    proof_from = intent.sent_at / 1e6 + desk.settings.unclear_grace
    wait, strangers, seen = 1.0, set[str](), dict[str, float]()
    while True:
        listed_at = time.time()
        if (found := look_for(desk, intent, seen, strangers)) is not None:
            return found
        unjudged = {batch_id: at for batch_id, at in seen.items() if batch_id not in strangers}
        _refuse_vanished(desk, unjudged, listed_at)
        if not unjudged and listed_at >= proof_from:
            return None
        desk.sleep(wait if unjudged else min(wait, max(proof_from - time.time(), 0.2)))
        wait = min(wait * 1.5, desk.provider.poll_seconds[1])


def look_for(desk: Lookout, intent: Intent, seen: dict[str, float] | None = None, strangers: set[str] | None = None) -> BatchLook | None:
    """Look once for the batch of a create of unknown fate; None where no batch is proven to be it (yet).

    `seen` notes when each candidate was listed last, `strangers` those proven to be somebody else's.

    Raises:
        CredentialsError: it was sent under another key.
        HeldError: a candidate has ended, and its results cannot tell whose it is.
    """
    if intent.account != desk.provider.account(desk.ledger.id):
        message = (
            f"{desk.provider.name}: a batch was sent under another API key, and its fate is not known; "
            "set that key again, since only its account can tell whether the batch was accepted "
            "(where it is revoked: `batchata reconcile --hold`, then `--adopt` or `--resend`)."
        )
        raise CredentialsError(message)
    since = intent.mark / 1e6 - CLOCK_SKEW if intent.mark is not None else 0.0
    seen = {} if seen is None else seen
    strangers = set() if strangers is None else strangers
    return riding_out(desk, lambda: _found(desk, intent, since, seen, strangers))


def _refuse_vanished(desk: Lookout, unjudged: dict[str, float], now: float) -> None:
    """Give up on candidates that lists left out for as long as it takes to prove an absence."""
    for batch_id, at in unjudged.items():
        if now - at > desk.settings.unclear_grace:
            message = (
                f"the batch {batch_id} may have been one that was sent and never confirmed, but it is gone from the provider's list; "
                "its rows are held: decide with `batchata reconcile`."
            )
            raise HeldError(message)


def _found(desk: Lookout, intent: Intent, since: float, seen: dict[str, float], strangers: set[str]) -> BatchLook | None:
    sized = (look for look in desk.provider.recent(since) if look.requests in (None, intent.requests))
    looks = [look for look in sized if look.batch_id not in strangers]
    known = desk.ledger.known_batches(look.batch_id for look in looks)
    candidates = [look for look in looks if look.batch_id not in known]
    seen |= {look.batch_id: time.time() for look in candidates}  # first: one may vanish while it is judged
    for look in candidates:
        mine = desk.provider.owns(look, intent.chunk_id)
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


def riding_out(desk: Lookout, call: Callable[[], T], times: int = 1) -> T:
    """Call until it goes through; TransientErrors are ridden out for `times` the set patience."""
    deadline = time.monotonic() + desk.settings.patience * times
    wait = 0.5
    while True:
        try:
            return call()
        except TransientError as error:
            pause = max(error.retry_after or 0, wait)
            if time.monotonic() + pause > deadline:
                raise
            desk.say(f"{error} Trying again in {pause:.1f} s.")
            desk.sleep(pause)
            wait = min(wait * 2, 30.0)
