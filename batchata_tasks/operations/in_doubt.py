"""Chunks in doubt: nobody knows whether their creates were accepted.

Their batches are looked for once more, and adopted if they are found. Else a person decides: the
chunk is a batch that the person names, or it was never accepted and its rows are sent again.
"""

from __future__ import annotations

import math
import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from batchata_tasks.common.clock import now_us
from batchata_tasks.common.errors import (
    CredentialsError,
    HeldError,
    LeaseError,
    SpecError,
    TerminalError,
    TransientError,
)
from batchata_tasks.common.text import pluralize
from batchata_tasks.dataset.folder import DatasetFolder
from batchata_tasks.execution.candidates import is_of
from batchata_tasks.execution.held import create_error
from batchata_tasks.execution.intent_files import delete
from batchata_tasks.execution.look import NO_SUCH_BATCH
from batchata_tasks.execution.misnamed import rename
from batchata_tasks.execution.unclear import Listed, hold, look_for, record
from batchata_tasks.ledger import ChunkState, RunEnd
from batchata_tasks.operations.reconcile_report import UnclearChunk

if TYPE_CHECKING:
    from collections.abc import Generator

    from batchata_tasks.common.settings import Settings
    from batchata_tasks.ledger import Chunk, Intent, Lease, Ledger
    from batchata_tasks.operations.abandon import Abandoning
    from batchata_tasks.operations.asked import Asked
    from batchata_tasks.operations.reconcile_report import ReconcileReport, ReconcileRequest
    from batchata_tasks.progress.listener import Progress
    from batchata_tasks.providers import Adapter, BatchLook

_ABSENT = (
    "the list of batches does not show it, and {}: it was most likely never accepted, so that "
    "`--resend` is safe"
)
_SHOWS_KNOWN = "shows others that the ledger knows"
_SHOWS_ALL = "the lists of this server show all batches of the account"
_YOUNG = (
    "the list of batches does not show it, but lists may lag behind: look again in {}, before "
    "`--resend`"
)
_LATEST = 600.0  # seconds after its intent in which a create may be accepted, if not in longer
_IN_DOUBT = (ChunkState.UNCLEAR, ChunkState.HELD)


def _absent(left: float, seen: Listed) -> str:
    """Say what a complete list without a batch means, which may show up for `left` seconds."""
    if left > 0:
        return _YOUNG.format(pluralize(math.ceil(left / 60), "minute"))
    return _ABSENT.format(_SHOWS_KNOWN if seen.shown else _SHOWS_ALL)


def _looked_up(provider: Adapter, chunk: Chunk, batch_id: str) -> BatchLook:
    """Return the status of the batch that a person named.

    Raises:
        SpecError: the chunk's provider has no such batch.
    """
    try:
        return provider.look(batch_id)
    except (TransientError, TerminalError) as error:
        if error.status not in NO_SUCH_BATCH:
            raise
        message = (
            f"--adopt {chunk.id}={batch_id}: there is no such batch at {provider.name}, to which "
            f"that chunk was sent ({error})"
        )
        raise SpecError(message) from error


def _not_in_doubt(chunk_id: str) -> SpecError:
    return SpecError(
        f"{chunk_id} is not a chunk that is in doubt (any more), nor was it freed without anything "
        "being sent since; `batchata reconcile` lists those that are in doubt."
    )


@dataclass
class _HeldContext:
    """What settling a chunk in doubt needs, while its dataset is held."""

    ledger: Ledger
    lease: Lease
    provider: Adapter
    settings: Settings
    progress: Progress

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)

    def log(self, text: str) -> None:
        self.progress.note(text)

    def seconds_left(self) -> float:
        return math.inf


class InDoubt:
    """Looks for the batches of chunks in doubt, and settles chunks as a person decided."""

    def __init__(
        self,
        ledger: Ledger,
        settings: Settings,
        progress: Progress,
        asked: Asked,
        report: ReconcileReport,
    ) -> None:
        self._ledger = ledger
        self._settings = settings
        self._progress = progress
        self._asked = asked
        self._report = report
        self._notes: dict[str, str] = {}

    def adopt_ours(self) -> None:
        """Look once for the batch of each chunk in doubt."""
        for chunk in self._ledger.chunks_in(_IN_DOUBT):
            account = self._asked.name_of(chunk)
            if account not in self._asked.adapters or account in self._asked.errors:
                continue
            try:
                with self._hold_dataset(chunk) as context:
                    # a run may have settled it before the dataset was held
                    if self._ledger.chunk(chunk.id).state not in _IN_DOUBT:
                        continue
                    seen = Listed()
                    look = look_for(context, self._ledger.intent(chunk.id), seen)
                    if look is not None:
                        self._adopt(context, chunk, look)
                    elif chunk.state == ChunkState.HELD and seen.proves_absence:
                        left = self._left_to_appear(self._ledger.intent(chunk.id))
                        self._notes[chunk.id] = _absent(left, seen)
            except (LeaseError, HeldError, CredentialsError) as error:
                self._notes[chunk.id] = str(error)
            except (TransientError, TerminalError) as error:
                self._asked.failed(account, error)

    def _left_to_appear(self, intent: Intent) -> float:
        """Return for how many seconds lists may leave out a batch although it was accepted."""
        age = max(now_us() - intent.sent_at, 0) / 1e6
        return _LATEST + self._settings.unclear_grace - age

    def settle(self, request: ReconcileRequest, abandoning: Abandoning) -> None:
        """Settle chunks in doubt as a person decided; take abandoned batches back.

        Raises:
            SpecError: the request names a chunk or batch to which it does not apply.
        """
        abandoned = {chunk.id: chunk for chunk in self._ledger.chunks_in((ChunkState.ABANDONED,))}
        for chunk_id, batch_id in request.adopt.items() - self._report.adopted.items():
            if (given_up := abandoned.get(chunk_id)) is not None:
                if given_up.batch_id != batch_id and self._ledger.is_missing(given_up):
                    given_up = self._renamed(given_up, batch_id)
                abandoning.take_back(given_up, batch_id)
                continue
            if (freed := self._ledger.freed(chunk_id)) is not None:
                self._adopt_freed(freed, batch_id)
                continue
            with self._settling(chunk_id) as (context, chunk):
                look = _looked_up(context.provider, chunk, batch_id)
                intent = self._ledger.intent(chunk.id)
                self._refuse_wrong(chunk, intent, context.provider, look)
                if chunk.state == ChunkState.UNCLEAR:
                    self._hold(context, chunk.id)
                self._adopt(context, chunk, look)
        for chunk_id in request.hold:
            with self._settling(chunk_id, ChunkState.UNCLEAR) as (context, _):
                self._hold(context, chunk_id)
            self._report.held.append(chunk_id)
        for chunk_id in request.resend:
            with self._settling(chunk_id, ChunkState.HELD) as (context, _):
                if self._left_to_appear(self._ledger.intent(chunk_id)) > 0:
                    self._report.notes.append(
                        f"chunk {chunk_id} was sent so short a time ago that lists may not show "
                        "its batch yet: if it was accepted, its rows are paid for twice."
                    )
                delete(self._folder(context), chunk_id)
                self._ledger.drop_held(context.lease, chunk_id)
            self._report.freed.append(chunk_id)

    def _adopt_freed(self, chunk: Chunk, batch_id: str) -> None:
        """Adopt the batch of a chunk that was freed too early; nothing was sent again yet."""
        with self._hold_dataset(chunk) as context:
            if self._ledger.freed(chunk.id) is None:
                raise _not_in_doubt(chunk.id)
            look = _looked_up(context.provider, chunk, batch_id)
            self._refuse_wrong(chunk, self._ledger.intent(chunk.id), context.provider, look)
            later = self._ledger.open_run(chunk.dataset_id)
            if later is not None and later.id != chunk.run_id:  # it planned the rows anew
                self._ledger.close_run(context.lease, later.id, RunEnd.ABANDONED)
            money = self._ledger.second_batch(chunk, look.batch_id)
            self._ledger.hold_freed(context.lease, chunk, money)
            self._adopt(context, chunk, look)

    def _renamed(self, chunk: Chunk, batch_id: str) -> Chunk:
        """Record the own id of a batch that was never seen, and abandoned; return its chunk."""
        with self._hold_dataset(chunk) as context:
            look = _looked_up(context.provider, chunk, batch_id)
            self._refuse_wrong(chunk, self._ledger.intent(chunk.id), context.provider, look)
            rename(self._ledger, context.lease, self._folder(context), chunk, look.batch_id)
        return self._ledger.chunk(chunk.id)

    @contextmanager
    def _settling(
        self, chunk_id: str, *states: str
    ) -> Generator[tuple[_HeldContext, Chunk], None, None]:
        """Hold the dataset of a chunk in doubt, and yield the chunk as it is then.

        Until the dataset is held, a run or another person may settle the chunk.
        """
        with self._hold_dataset(self._in_doubt(chunk_id, *states)) as context:
            yield context, self._in_doubt(chunk_id, *states)

    def _in_doubt(self, chunk_id: str, *states: str) -> Chunk:
        """Return a chunk that is in one of the states of doubt; raise SpecError if it is not."""
        chunks = {c.id: c for c in self._ledger.chunks_in((*_IN_DOUBT, ChunkState.OVERDUE))}
        chunk = chunks.get(chunk_id)
        if chunk is None:
            raise _not_in_doubt(chunk_id)
        if chunk.state == ChunkState.OVERDUE:
            # a batch that was never found may be there under another id: a person may name that
            if not states and self._ledger.is_missing(chunk):
                return chunk
            message = (
                f"{chunk_id} is not in doubt: it was accepted, as batch {chunk.batch_id}, which "
                "brought no results in time. The next run lands it if they come after all; "
                f"`batchata reconcile --abandon {chunk.batch_id}` gives it up, and its rows are "
                "sent and paid for again."
            )
            raise SpecError(message)
        if not states or chunk.state in states:
            return chunk
        if chunk.state == ChunkState.HELD:
            message = (
                f"--hold {chunk_id}: it is held already; `batchata reconcile --adopt "
                f"{chunk_id}=BATCH` or `batchata reconcile --resend {chunk_id}` decides."
            )
        else:
            message = (
                f"--resend {chunk_id}: its next run may still find the batch, so start that first; "
                f"to decide now, `batchata reconcile --hold {chunk_id} --resend {chunk_id}`."
            )
        raise SpecError(message)

    def _refuse_wrong(
        self, chunk: Chunk, intent: Intent, provider: Adapter, look: BatchLook
    ) -> None:
        """Raise SpecError if a batch cannot be that chunk, or nobody can tell yet."""
        if self._ledger.known_batches([look.batch_id]):
            reason = "that batch is another chunk's"
        # its results prove whose it is, whatever it counts
        elif is_of(look, intent) or (owns := provider.owns(look, chunk.id)):
            return
        elif owns is False or look.ended or look.requests not in (None, chunk.rows):
            reason = "that batch holds other requests; see the provider's console"
        else:
            reason = "only its results show whose that batch is: try again when it has ended"
        message = f"--adopt {chunk.id}={look.batch_id}: {reason}."
        raise SpecError(message)

    def _adopt(self, context: _HeldContext, chunk: Chunk, look: BatchLook) -> None:
        if chunk.state == ChunkState.OVERDUE:
            folder = self._folder(context)
            rename(self._ledger, context.lease, folder, chunk, look.batch_id)
        elif self._ledger.chunk(chunk.id).state == ChunkState.HELD:
            account = context.provider.account(self._ledger.id)
            self._ledger.adopt_held(context.lease, chunk, look.batch_id, account, look.status)
        else:
            record(context, chunk, look)
        self._report.adopted[chunk.id] = look.batch_id

    @contextmanager
    def _hold_dataset(self, chunk: Chunk) -> Generator[_HeldContext, None, None]:
        lease = self._ledger.acquire_lease(chunk.dataset_id, self._settings.lease_seconds)
        try:
            provider = self._asked.of(chunk)
            yield _HeldContext(self._ledger, lease, provider, self._settings, self._progress)
        finally:
            self._ledger.release_lease(lease)

    def _hold(self, context: _HeldContext, chunk_id: str) -> None:
        hold(self._ledger, context.lease, self._folder(context), chunk_id)

    def _folder(self, context: _HeldContext) -> DatasetFolder:
        url = self._ledger.dataset_url(context.lease.dataset_id)
        assert url is not None  # noqa: S101 - there is a lease on it
        return DatasetFolder.at_url(url)

    def report(self) -> None:
        """Report the chunks that are still in doubt."""
        now = time.time()
        for chunk, intent in self._ledger.unclear_chunks():
            url = self._ledger.dataset_url(chunk.dataset_id)
            unclear = UnclearChunk(
                chunk=chunk.id,
                state=chunk.state,
                dataset=url or "replaced by another one",
                provider=chunk.provider,
                requests=chunk.rows,
                age=max(round(now - intent.sent_at / 1e6), 0),
                note=self._notes.get(chunk.id, ""),
                error=None if url is None else create_error(DatasetFolder.at_url(url), chunk.id),
            )
            self._report.doubts.append(unclear)
