"""Batches at the providers that no chunk of the ledger owns: whose they are, as far as it is told.

They are another program's, another ledger's, perhaps those of chunks in doubt, or the second ones
of chunks that were sent twice. They are listed, and cancelled only on request.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from batchata_tasks.common.errors import (
    CredentialsError,
    LeaseError,
    SpecError,
    TerminalError,
    TransientError,
)
from batchata_tasks.common.text import pluralize
from batchata_tasks.dataset.folder import DatasetFolder
from batchata_tasks.execution.candidates import is_of, oldest
from batchata_tasks.execution.twice import count, is_beside, ran_nothing
from batchata_tasks.ledger import ChunkState
from batchata_tasks.operations.reconcile_report import UnknownBatch

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from batchata_tasks.common.settings import Settings
    from batchata_tasks.ledger import Chunk, Intent, Ledger
    from batchata_tasks.operations.asked import Asked
    from batchata_tasks.operations.reconcile_report import ReconcileReport
    from batchata_tasks.providers import Adapter, BatchLook

_DAY = 86400.0
_MOST_LISTED = 10_000  # batches of one provider
_PATIENT, _SHORTEST = 10, 60.0  # times BATCHATA_PATIENCE, and seconds, for one provider's batches
_MOST_READ = 50  # ended batches whose results are read to see whose they are; each is a call


class Strays:
    """Finds batches that nobody owns, and cancels those that a person names."""

    def __init__(
        self, ledger: Ledger, settings: Settings, asked: Asked, report: ReconcileReport
    ) -> None:
        self._ledger = ledger
        self._settings = settings
        self._asked = asked
        self._report = report
        self._where = dict[str, "Adapter"]()  # the accounts of those that nobody owns
        self.seen = set[str]()  # batches of the ledger that the providers' lists show

    def report(self, days: float) -> None:
        """Report the batches that no chunk owns, as far as can be told."""
        now, reads_left = time.time(), _MOST_READ
        for name, provider in self._asked.adapters.items():
            until = time.monotonic() + max(_SHORTEST, _PATIENT * self._settings.patience)
            try:
                looks = self._listed(name, now - days * _DAY, until)
            except (TransientError, TerminalError, CredentialsError) as error:
                self._asked.failed(name, error)
                continue
            # read in this order, because a run may be at work: when it records a batch that was
            # unclear, the batch is known below
            in_doubt = [*self._ledger.unclear_chunks(), *self._missing()]
            known = self._ledger.known_batches(look.batch_id for look in looks)
            self._report.known[name] = len(known)
            self.seen |= known
            listed = {look.batch_id for look in looks}
            for look in looks:
                if look.batch_id in known:
                    continue
                reads_left *= time.monotonic() < until
                may_be = [
                    chunk
                    for chunk, intent in in_doubt
                    if _may_be(provider, look, chunk, intent, reads=reads_left > 0)
                ]
                if (late := _given_up(provider, look, may_be)) is not None and reads_left:
                    self._report.late[late.id] = look.batch_id
                    reads_left -= 1
                    continue
                named = self._named(provider, look) if reads_left else None
                freed = named if named is not None and self._ledger.freed(named.id) else None
                twice = None if freed else self._sent_twice(look, named, listed)
                batch = UnknownBatch(
                    provider=provider.name,
                    batch_id=look.batch_id,
                    status=look.status,
                    requests=look.requests,
                    age=None if look.created_at is None else max(round(now - look.created_at), 0),
                    ours=_is_ours(provider, look) if reads_left else None,
                    twice=None if twice is None else twice.id,
                    freed=freed is not None or _was_freed(twice),
                    counted=twice is not None and self._count(provider, look, twice, listed),
                    may_be=next((chunk.id for chunk in (freed, *may_be) if chunk), None),
                    ended=look.ended,
                )
                reads_left -= look.ended and reads_left > 0
                self._report.strays.append(batch)
                self._where[batch.batch_id] = provider
        self._asked.require_answers()

    def _named(self, provider: Adapter, look: BatchLook) -> Chunk | None:
        """Return the chunk of this ledger that a batch is named after."""
        try:
            token = provider.token_of(look)
        except (TransientError, TerminalError):  # its results cannot be read at this moment
            return None
        return next(iter(self._ledger.existing_chunks([token] if token else [])), None)

    def _sent_twice(
        self, look: BatchLook, named: Chunk | None, listed: Collection[str]
    ) -> Chunk | None:
        """Return the chunk that a batch is `named` after, if that has another, or was freed.

        No request of a chunk that was dropped otherwise was ever sent. One whose batch was never
        seen, nor is listed, may have this one, under another id than its create was told.
        """
        if named is None or _was_freed(named) or is_beside(look, named, listed):
            return named
        return None if named.batch_id is None or self._ledger.is_missing(named) else named

    def _count(
        self, provider: Adapter, look: BatchLook, chunk: Chunk, listed: Collection[str]
    ) -> bool:
        """Count a second batch of a chunk as spent; return whether it is counted by now.

        A run that is at work on the dataset does that itself.
        """
        is_second = chunk.state == ChunkState.DROPPED or is_beside(look, chunk, listed)
        url = self._ledger.dataset_url(chunk.dataset_id)
        if ran_nothing(look) or url is None or not (is_second or provider.lists_all):
            return False
        try:
            lease = self._ledger.acquire_lease(chunk.dataset_id, self._settings.lease_seconds)
        except LeaseError:
            return False
        try:
            count(self._ledger, lease, DatasetFolder.at_url(url), chunk, look)
        finally:
            self._ledger.release_lease(lease)
        return True

    def _missing(self) -> list[tuple[Chunk, Intent]]:
        """Return the chunks whose batches were never found by their ids, and set aside."""
        aside = self._ledger.chunks_in((ChunkState.OVERDUE, ChunkState.ABANDONED))
        missing = [chunk for chunk in aside if self._ledger.is_missing(chunk)]
        return [(chunk, self._ledger.intent(chunk.id)) for chunk in missing]

    def _listed(self, name: str, since: float, until: float) -> list[BatchLook]:
        """Return an account's newest batches, as many as can be listed in the time."""
        if name in self._asked.errors:
            raise self._asked.errors[name]
        looks = list["BatchLook"]()
        for look in self._asked.adapters[name].recent(since):
            looks.append(look)
            if len(looks) >= _MOST_LISTED or time.monotonic() > until:
                self._report.notes.append(
                    f"{name}: only the newest {pluralize(len(looks), 'batch')} were listed."
                )
                break
        return looks

    def cancel(self, batch_ids: Iterable[str]) -> None:
        """Cancel batches that no chunk owns."""
        unknown = {batch.batch_id: batch for batch in self._report.strays}
        unclear = {chunk.id for chunk in self._ledger.chunks_in((ChunkState.UNCLEAR,))}
        for batch_id in batch_ids:
            if (batch := unknown.get(batch_id)) is None:
                message = (
                    f"--cancel {batch_id}: no such batch that nobody owns; "
                    "`batchata cancel SPEC` cancels those of a spec."
                )
                raise SpecError(message)
            if batch.may_be in unclear:
                message = (
                    f"--cancel {batch_id}: it may be chunk {batch.may_be}, which is in doubt; "
                    "let a run or `--hold` settle that first."
                )
                raise SpecError(message)
            if batch.ended or not self._cancel(self._where[batch_id], batch_id):
                self._report.had_ended.append(batch_id)
                continue
            self._report.cancelled.append(batch_id)
            if batch.ours is not False and batch.twice is None:
                sent = "was sent" if batch.ours else "may have been sent"
                self._report.notes.append(
                    f"batch {batch_id} {sent} by this program under another ledger: there, the "
                    "next run lands what ran, and sends the rest again."
                )

    @staticmethod
    def _cancel(provider: Adapter, batch_id: str) -> bool:
        """Cancel a batch; return False if it had ended by then."""
        try:
            provider.cancel(batch_id)
        except TerminalError:
            if provider.look(batch_id).ended:
                return False
            raise
        return True


def _was_freed(chunk: Chunk | None) -> bool:
    return chunk is not None and chunk.state == ChunkState.DROPPED


def _is_ours(provider: Adapter, look: BatchLook) -> bool | None:
    try:
        return provider.ours(look)
    except (TransientError, TerminalError):  # its results cannot be read at this moment
        return None


def _given_up(provider: Adapter, look: BatchLook, chunks: Iterable[Chunk]) -> Chunk | None:
    """Return the chunk, of some that were abandoned, of which an ended batch has results."""
    for chunk in chunks:
        if chunk.state == ChunkState.ABANDONED and look.ended and not look.gone:
            try:
                if provider.owns(look, chunk.id):
                    return chunk
            except (TransientError, TerminalError):  # its results cannot be read at this moment
                return None
    return None


def _may_be(
    provider: Adapter, look: BatchLook, chunk: Chunk, intent: Intent, *, reads: bool
) -> bool:
    """Whether a batch may be a chunk in doubt; its results tell if they are to be read."""
    if chunk.provider == provider.name and is_of(look, intent) and not look.no_room:
        return True
    if (
        chunk.provider != provider.name
        or look.requests not in (None, chunk.rows)
        or (look.created_at is not None and look.created_at < oldest(intent))
        or look.no_room
    ):
        return False
    try:
        return not reads or provider.owns(look, chunk.id) is not False
    except (TransientError, TerminalError):  # its results cannot be read at this moment
        return True
