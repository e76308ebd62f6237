"""Giving batches up that do not end, and taking them back if they end after all.

What is decided stands in the dataset's folder first and then in the ledger, so that a ledger which
is rebuilt from the folder does not bring a batch back to life.
"""

from __future__ import annotations

import time
from contextlib import contextmanager
from http import HTTPStatus
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from batchata_tasks.common.errors import BatchataError, SpecError
from batchata_tasks.common.files import make_folder, write_json
from batchata_tasks.common.text import pluralize
from batchata_tasks.dataset.folder import DatasetFolder
from batchata_tasks.dataset.packing import Packing
from batchata_tasks.execution.overdue import (
    LANDS_IN_PART,
    given_up_record,
    lacks_results,
    note_intent,
    note_taken_back,
    was_taken_back,
    why_overdue,
)
from batchata_tasks.ledger import ChunkState
from batchata_tasks.operations.reconcile_report import OverdueBatch
from batchata_tasks.pipeline.lost import lost_chunks
from batchata_tasks.providers import rows_named

if TYPE_CHECKING:
    from collections.abc import Generator

    from batchata_tasks.common.settings import Settings
    from batchata_tasks.ledger import Chunk, Lease, Ledger
    from batchata_tasks.operations.asked import Asked
    from batchata_tasks.operations.reconcile_report import ReconcileReport
    from batchata_tasks.providers import Adapter, BatchLook

_DAY = 86400.0
_MOST_LOOKED = 50  # abandoned batches that are looked at again; each is a call
_WAITING = (ChunkState.SUBMITTED, ChunkState.OVERDUE)


class Abandoning:
    """Gives batches up, and takes them back; what it does goes to the report."""

    def __init__(
        self,
        ledger: Ledger,
        settings: Settings,
        asked: Asked,
        report: ReconcileReport,
    ) -> None:
        self._ledger = ledger
        self._settings = settings
        self._asked = asked
        self._report = report

    def abandon(self, batch_id: str) -> None:
        """Free the rows of a batch to be planned again; its bound counts as spent from now on.

        It is asked to cancel, but nothing depends on that. If results of some rows are there, the
        next run lands these, and frees the others alone.

        Raises:
            SpecError: no run waits for it, or it has ended.
            AlreadyRunningError: a run is at work on its dataset.
        """
        # first the dataset: a run that is at work on it must not find its batch cancelled
        with self._leased(self._waiting(batch_id)) as lease:
            chunk = self._waiting(batch_id)
            if chunk.state == ChunkState.ABANDONED:
                self._report.notes.append(f"batch {batch_id} was given up before.")
            elif self._is_to_be_given_up(chunk):
                self._give_up(lease, chunk)
            else:
                return
        self._report.abandoned.append(batch_id)

    def _waiting(self, batch_id: str) -> Chunk:
        chunk = self._ledger.chunk_of_batch(batch_id)
        if chunk is None:
            message = f"--abandon {batch_id}: {self._instead_of(batch_id)}"
            raise SpecError(message)
        is_open = chunk.state in (*_WAITING, ChunkState.ABANDONED)
        if not is_open and not self._lost_its_rows(chunk):
            message = (
                f"--abandon {batch_id}: it has ended, and its results are here; there is nothing "
                "to give up."
            )
            raise SpecError(message)
        return chunk

    def _lost_its_rows(self, chunk: Chunk) -> bool:
        """Whether a batch landed before, and its rows are not in the dataset any more."""
        if chunk.state == ChunkState.COLLECTED:  # a run began to land it again
            return True
        if (folder := self._folder(chunk)) is None:
            return False
        lost = lost_chunks(self._ledger, folder, chunk.dataset_id)
        return chunk.id in {lost_one.id for lost_one in (*lost.parts, *lost.landed)}

    def _instead_of(self, name: str) -> str:
        """Say what may be meant by a name that is no batch of the ledger."""
        for chunk in self._ledger.existing_chunks([name]):
            if chunk.batch_id is not None:
                return f"that is a chunk; its batch is {chunk.batch_id}: name that."
            if chunk.state == ChunkState.HELD:
                return (
                    "that is a chunk, of which nobody knows a batch; `batchata reconcile --adopt "
                    f"{name}=BATCH` or `batchata reconcile --resend {name}` decides."
                )
        return (
            "the ledger has no such batch; `batchata reconcile --cancel BATCH` is for "
            "batches that nobody owns."
        )

    def _is_to_be_given_up(self, chunk: Chunk) -> bool:
        """Ask the provider to cancel a batch; return False if the next run lands a part of it.

        That it cannot be asked is only told.

        Raises:
            SpecError: it has ended, and can be landed.
        """
        batch_id, provider = chunk.batch_id or "", self._asked.find(chunk)
        if provider is None:
            return True
        try:
            look = provider.look(batch_id)
            if not look.ended:
                provider.cancel(batch_id)
                return True
        except BatchataError as error:
            is_gone = getattr(error, "status", None) == HTTPStatus.NOT_FOUND
            went_on = "is not at the provider any more" if is_gone else "may go on"
            self._report.notes.append(
                f"batch {batch_id} could not be cancelled, and {went_on}: {error}"
            )
            return True
        rows, problem = _found(provider, look, chunk)
        folder = self._folder(chunk)
        if folder is not None and _lands_in_part(folder, chunk, rows):
            note_intent(folder, chunk.id, **{LANDS_IN_PART: True})
            self._report.notes.append(
                f"batch {batch_id}: the next run lands the {pluralize(rows, 'row')} of it that "
                f"have results, and sends the other {chunk.rows - rows:,} again, which are paid "
                "for again."
            )
            return False
        if rows:
            message = (
                f"--abandon {batch_id}: it has ended ({look.status!r:.60}), so there is nothing to "
                "give up: the next run lands its rows."
            )
            raise SpecError(message)
        if look.refused or look.done == 0:  # nothing of it ran
            return True
        self._report.notes.append(
            f"batch {batch_id} has ended ({look.status!r:.60}), so what ran of it was billed, and "
            f"{problem}: if they come later, `batchata reconcile` says so, and how to land them."
        )
        return True

    def _give_up(self, lease: Lease, chunk: Chunk) -> None:
        if (folder := self._folder(chunk)) is not None:
            spent = chunk.bound or 0
            if chunk.state not in _WAITING:  # what it cost is known
                spent = self._ledger.settled([chunk.id])
            record = given_up_record(self._ledger.id, lease.fence, chunk, spent)
            make_folder(folder.commits)
            packing = Packing(folder.packs, lambda: self._ledger.check_lease(lease))
            packing.unpack([folder.commit(chunk.id)])
            write_json(folder.commit(chunk.id), {**record, "state": "abandoned"})
        self._ledger.abandon(lease, chunk.id)

    def take_back(self, chunk: Chunk, batch_id: str) -> None:
        """Let the next run land a batch that was abandoned and has ended.

        Raises:
            SpecError: it is another batch, has not ended, or its results are gone.
            AlreadyRunningError: a run is at work on its dataset.
        """
        what, reason = f"--adopt {chunk.id}={batch_id}", None
        provider = self._asked.find(chunk)
        if chunk.batch_id != batch_id:
            reason = f"that chunk was sent as batch {chunk.batch_id}"
        elif provider is None:
            reason = f"set the API key of {self._asked.name_of(chunk)}"
        elif not (look := provider.look(batch_id)).ended:
            reason = f"it has not ended yet ({look.status!r:.60})"
        elif look.gone:
            reason = "its results are gone"
        if reason is not None:
            message = f"{what}: {reason}."
            raise SpecError(message)
        with self._leased(chunk) as lease:
            if self._ledger.chunk(chunk.id).state == ChunkState.ABANDONED:
                if (folder := self._folder(chunk)) is not None:
                    note_taken_back(folder, chunk)
                    folder.commit(chunk.id).unlink(missing_ok=True)
                self._ledger.take_back(lease, chunk.id)
        self._report.adopted[chunk.id] = batch_id

    def report(self, days: float) -> None:
        """Report the overdue batches, and the abandoned ones that have ended with results."""
        now = time.time()
        for chunk in self._ledger.chunks_in((ChunkState.OVERDUE,)):
            if chunk.id in self._report.adopted:  # told there
                continue
            folder = self._folder(chunk)
            self._report.overdue.append(
                OverdueBatch(
                    batch_id=chunk.batch_id or "",
                    chunk=chunk.id,
                    dataset=self._ledger.dataset_url(chunk.dataset_id) or "replaced by another one",
                    provider=chunk.provider,
                    requests=chunk.rows,
                    age=max(round(now - self._sent_at(chunk)), 0),
                    why="" if folder is None else why_overdue(folder, chunk),
                    ended=folder is not None and was_taken_back(folder, chunk),
                )
            )
        abandoned = self._ledger.chunks_in((ChunkState.ABANDONED,))
        recent = [chunk for chunk in abandoned if now - self._sent_at(chunk) < days * _DAY]
        for chunk in recent[-_MOST_LOOKED:]:
            if self._has_results(chunk):
                self._report.late[chunk.id] = chunk.batch_id or ""

    def _sent_at(self, chunk: Chunk) -> float:
        """Return when a chunk's batch was recorded, in seconds since 1970."""
        return (self._ledger.submitted_at(chunk.batch_id or "") or 0) / 1e6

    def _has_results(self, chunk: Chunk) -> bool:
        provider = self._asked.find(chunk)
        if provider is None:
            return False
        try:
            look = provider.look(chunk.batch_id or "")
        except BatchataError:  # nothing depends on it
            return False
        return look.ended and look.done != 0 and _found(provider, look, chunk)[0] > 0

    def _folder(self, chunk: Chunk) -> DatasetFolder | None:
        """Return the folder of a chunk's dataset; None if another dataset is there by now."""
        url = self._ledger.dataset_url(chunk.dataset_id)
        return None if url is None else DatasetFolder.at_url(url)

    @contextmanager
    def _leased(self, chunk: Chunk) -> Generator[Lease, None, None]:
        lease = self._ledger.acquire_lease(chunk.dataset_id, self._settings.lease_seconds)
        try:
            yield lease
        finally:
            self._ledger.release_lease(lease)


def _lands_in_part(folder: DatasetFolder, chunk: Chunk, rows: int) -> bool:
    """Whether a batch with results of so many rows lacks others, and these are to be freed."""
    if chunk.state in _WAITING:
        return 0 < rows < chunk.rows and lacks_results(folder, chunk)
    return rows < chunk.rows  # it landed before, and its rows are lost


def _found(provider: Adapter, look: BatchLook, chunk: Chunk) -> tuple[int, str]:
    """Return of how many rows an ended batch has results, and why it has none."""
    if look.gone:
        return 0, "its results are gone"
    with TemporaryDirectory() as folder:
        try:
            paths = provider.download(look, Path(folder), "results")
            return rows_named(paths, chunk.id), "its results name none of its requests"
        except BatchataError as error:
            return 0, f"its results cannot be read now ({str(error).rstrip('.')})"
