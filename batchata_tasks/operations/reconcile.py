"""Reconciling: the providers' batches against the ledger.

What is ours and was never confirmed is adopted; what nobody in the ledger owns is reported, with its
size and age, and cancelled where somebody asks for it; creates that nobody can judge any more are
settled by a person: adopted as a batch that the person names, or freed to be sent again.
"""

from __future__ import annotations

import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from batchata_tasks.common.errors import (
    CredentialsError,
    HeldError,
    LeaseError,
    SpecError,
    TerminalError,
    TransientError,
)
from batchata_tasks.common.settings import Settings
from batchata_tasks.dataset.folder import DatasetFolder
from batchata_tasks.execution.unclear import hold, look_for, oldest, record
from batchata_tasks.ledger import ChunkState, Ledger
from batchata_tasks.operations.reconcile_report import Report, Request, UnclearChunk, UnknownBatch
from batchata_tasks.progress.listener import silent
from batchata_tasks.providers import known_providers, provider_type

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable

    from batchata_tasks.ledger import Chunk, Intent, Lease
    from batchata_tasks.progress.listener import Progress
    from batchata_tasks.providers import Adapter, BatchLook

_DAY = 86400.0
_READ = 50  # ended batches of which the results are looked into, for whose they are; each is a call


@dataclass
class _LookContext:
    """What resolving doubt needs, for one dataset that is held for a moment."""

    ledger: Ledger
    lease: Lease
    provider: Adapter
    settings: Settings
    progress: Progress

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)

    def log(self, text: str) -> None:
        self.progress.note(text)


def reconcile(
    request: Request | None = None,
    days: float = 30,
    settings: Settings | None = None,
    progress: Progress | None = None,
) -> Report:
    """Compare the providers' batches of the last `days` with the ledger; do what `request` asks.

    Only providers whose key is in the environment are asked. Datasets that a run holds are left to it.

    Raises:
        CredentialsError: no provider has a key that can be used, so there is nothing to compare.
        SpecError: the request names a chunk or batch that it cannot be done to.
        BatchataError: the provider or the ledger cannot be used.
    """
    settings, report = settings or Settings(), Report()
    work = _Work(Ledger(settings.ledger_url), settings, progress or silent(), report)
    try:
        work.refuse_keyless()
        work.adopt_ours()
        work.settle(request or Request())
        work.report_strays(days)
        work.cancel((request or Request()).cancel)
        work.report_doubts()
    finally:
        work.ledger.close()
    return report


class _Work:
    def __init__(
        self, ledger: Ledger, settings: Settings, progress: Progress, report: Report
    ) -> None:
        self.ledger, self._settings, self._progress, self._report = (
            ledger,
            settings,
            progress,
            report,
        )
        self._providers: dict[str, Adapter] = {}
        for name in known_providers():
            try:
                self._providers[name] = provider_type(name)()
            except CredentialsError as error:
                report.notes.append(f"{name} was not asked: {error}")
        self._notes: dict[str, str] = {}

    def refuse_keyless(self) -> None:
        """Raise CredentialsError where no provider can be asked."""
        if not self._providers:
            message = f"nothing was compared with the ledger: {' '.join(self._report.notes)}"
            raise CredentialsError(message)

    def settle(self, request: Request) -> None:
        """Do to chunks in doubt what a person decided."""
        for chunk_id, batch_id in request.adopt.items():
            with self._settling(chunk_id) as (context, chunk):
                look = context.provider.look(batch_id)
                self._refuse_wrong(chunk, context.provider, look)
                if chunk.state == ChunkState.UNCLEAR:
                    self._hold(context, chunk.id)
                self._adopt(context, chunk, look)
        for chunk_id in request.hold:
            with self._settling(chunk_id, ChunkState.UNCLEAR) as (context, _):
                self._hold(context, chunk_id)
            self._report.held.append(chunk_id)
        for chunk_id in request.resend:
            with self._settling(chunk_id, ChunkState.HELD) as (context, _):
                self.ledger.drop_held(context.lease, chunk_id)
                folder = DatasetFolder(self.ledger.dataset_url(context.lease.dataset_id))
                folder.intent(chunk_id).unlink(missing_ok=True)
            self._report.freed.append(chunk_id)

    @contextmanager
    def _settling(
        self, chunk_id: str, *states: str
    ) -> Generator[tuple[_LookContext, Chunk], None, None]:
        """Hold the dataset of a chunk in doubt; a run, or another person, may have settled it by then."""
        with self._context_of(self._in_doubt(chunk_id, *states)) as context:
            yield context, self._in_doubt(chunk_id, *states)

    def _refuse_wrong(self, chunk: Chunk, provider: Adapter, look: BatchLook) -> None:
        """Refuse a batch that a chunk cannot be, or of which nobody can tell yet."""
        reason = None
        if self.ledger.known_batches([look.batch_id]):
            reason = "that batch is another chunk's"
        elif (
            look.requests not in (None, chunk.rows)
            or (owns := provider.owns(look, chunk.id)) is False
        ):
            reason = "that batch holds other requests; see the provider's console"
        elif owns is None:
            reason = "only its results can tell whose that batch is: try again when it has ended"
        if reason is not None:
            message = f"--adopt {chunk.id}={look.batch_id}: {reason}."
            raise SpecError(message)

    def _hold(self, context: _LookContext, chunk_id: str) -> None:
        hold(
            self.ledger,
            context.lease,
            DatasetFolder(self.ledger.dataset_url(context.lease.dataset_id)),
            chunk_id,
        )

    def _in_doubt(self, chunk_id: str, *states: str) -> Chunk:
        for chunk in self.ledger.chunks_in(states or (ChunkState.UNCLEAR, ChunkState.HELD)):
            if chunk.id == chunk_id:
                return chunk
        what = "held" if states == (ChunkState.HELD,) else "in doubt"
        message = f"{chunk_id} is no chunk that is {what} (any more); `batchata reconcile` lists those that are."
        raise SpecError(message)

    def _provider(self, chunk: Chunk) -> Adapter:
        if chunk.provider not in self._providers:
            message = f"{chunk.id} was sent to {provider_type(chunk.provider).name}, whose API key is not set; set it."
            raise CredentialsError(message)
        return self._providers[chunk.provider]

    @contextmanager
    def _context_of(self, chunk: Chunk) -> Generator[_LookContext, None, None]:
        lease = self.ledger.acquire_lease(chunk.dataset_id, self._settings.lease_seconds)
        try:
            yield _LookContext(
                self.ledger, lease, self._provider(chunk), self._settings, self._progress
            )
        finally:
            self.ledger.release_lease(lease)

    def adopt_ours(self) -> None:
        """Look once for the batch of each chunk in doubt."""
        for chunk in self.ledger.chunks_in((ChunkState.UNCLEAR, ChunkState.HELD)):
            if chunk.provider not in self._providers:
                continue
            try:
                with self._context_of(chunk) as context:
                    in_doubt = self.ledger.chunk(chunk.id).state in (
                        ChunkState.UNCLEAR,
                        ChunkState.HELD,
                    )  # still
                    found = look_for(context, self.ledger.intent(chunk.id)) if in_doubt else None
                    if found is not None:
                        self._adopt(context, chunk, found)
            except (LeaseError, HeldError, CredentialsError) as error:
                self._notes[chunk.id] = str(error)

    def _adopt(self, context: _LookContext, chunk: Chunk, look: BatchLook) -> None:
        if self.ledger.chunk(chunk.id).state == ChunkState.HELD:
            account = context.provider.account(self.ledger.id)
            self.ledger.adopt_held(context.lease, chunk, look.batch_id, account, look.status)
        else:
            record(context, chunk, look)
        self._report.adopted[chunk.id] = look.batch_id

    def report_strays(self, days: float) -> None:
        """Report the batches that no chunk owns, as far as anybody can tell."""
        now, left = time.time(), _READ
        for name, provider in self._providers.items():
            looks = list(provider.recent(now - days * _DAY))
            doubts = (
                self.ledger.doubts()
            )  # in this order: a run may be at work, and record what it sent
            known = self.ledger.known_batches(look.batch_id for look in looks)
            self._report.known[name] = len(known)
            for look in looks:
                if look.batch_id not in known:
                    age = max(round(now - look.created_at), 0)
                    may_be = next(
                        (
                            chunk.id
                            for chunk, intent in doubts
                            if _may_be(provider, look, chunk, intent)
                        ),
                        None,
                    )
                    ours = _ours(provider, look) if left else None
                    left -= look.ended and left > 0
                    stray = UnknownBatch(
                        name,
                        look.batch_id,
                        look.status,
                        look.requests,
                        age,
                        ours=ours,
                        may_be=may_be,
                        ended=look.ended,
                    )
                    self._report.strays.append(stray)

    def cancel(self, batch_ids: Iterable[str]) -> None:
        """Cancel batches that nobody owns."""
        strays = {stray.batch_id: stray for stray in self._report.strays}
        unclear = {chunk.id for chunk in self.ledger.chunks_in((ChunkState.UNCLEAR,))}
        for batch_id in batch_ids:
            if (stray := strays.get(batch_id)) is None:
                message = f"--cancel {batch_id}: no such batch that nobody owns; `batchata cancel SPEC` cancels those of a spec."
                raise SpecError(message)
            if (chunk_id := stray.may_be) in unclear:
                message = f"--cancel {batch_id}: it may be chunk {chunk_id}, which is in doubt; let a run or `--hold` settle that first."
                raise SpecError(message)
            cancelled = not stray.ended and self._cancel(self._providers[stray.provider], batch_id)
            (self._report.cancelled if cancelled else self._report.had_ended).append(batch_id)
            if cancelled and stray.ours is not False:
                whose = f"{'was' if stray.ours else 'may have been'} sent by this program under another ledger"
                self._report.notes.append(
                    f"batch {batch_id} {whose}: there, the next run lands what ran, and sends the rest again."
                )

    @staticmethod
    def _cancel(provider: Adapter, batch_id: str) -> bool:
        """Cancel a batch; False where it had ended meanwhile."""
        try:
            provider.cancel(batch_id)
        except TerminalError:
            if provider.look(batch_id).ended:
                return False
            raise
        return True

    def report_doubts(self) -> None:
        """Report what is still in doubt."""
        now = time.time()
        for chunk, intent in self.ledger.doubts():
            url = self.ledger.dataset_url(chunk.dataset_id)
            state = (
                "held: decide with --adopt or --resend"
                if chunk.state == ChunkState.HELD
                else "the next run looks for it"
            )
            note, age = self._notes.get(chunk.id, ""), max(round(now - intent.sent_at / 1e6), 0)
            self._report.doubts.append(
                UnclearChunk(chunk.id, state, url, chunk.provider, chunk.rows, age, note)
            )


def _ours(provider: Adapter, look: BatchLook) -> bool | None:
    try:
        return provider.ours(look)
    except (TransientError, TerminalError):  # its results cannot be had at this moment
        return None


def _may_be(provider: Adapter, look: BatchLook, chunk: Chunk, intent: Intent) -> bool:
    """Whether a batch may be a chunk of which nobody knows whether it was accepted."""
    if (
        chunk.provider != provider.name
        or look.requests not in (None, chunk.rows)
        or look.created_at < oldest(intent)
        or look.no_room
    ):
        return False
    try:
        return provider.owns(look, chunk.id) is not False
    except TransientError:  # its results cannot be had at this moment
        return True
