"""Reconciling: compare the providers' batches with the ledger.

Batches of ours whose create was never confirmed are adopted. Batches that no chunk of the ledger
owns are reported, with their size and age, and cancelled on request. For a create that can no
longer be looked up a person decides: it is adopted as a batch that the person names, or its chunk
is freed to be sent again.
"""

from __future__ import annotations

import time
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from batchata_tasks.common.errors import (
    BatchataError,
    CredentialsError,
    HeldError,
    InputError,
    LeaseError,
    SpecError,
    TerminalError,
    TransientError,
)
from batchata_tasks.common.text import pluralize
from batchata_tasks.dataset.folder import DatasetFolder
from batchata_tasks.execution.unclear import Listed, hold, is_of, look_for, oldest, record
from batchata_tasks.ledger import ChunkState, opened_ledger
from batchata_tasks.operations.abandon import Abandoning
from batchata_tasks.operations.reconcile_report import (
    ReconcileReport,
    ReconcileRequest,
    UnclearChunk,
    UnknownBatch,
)
from batchata_tasks.progress.listener import silent
from batchata_tasks.providers import known_providers, provider_type

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable

    from batchata_tasks.common.settings import Settings
    from batchata_tasks.ledger import Chunk, Intent, Lease, Ledger
    from batchata_tasks.progress.listener import Progress
    from batchata_tasks.providers import Adapter, BatchLook

_DAY = 86400.0
_MOST_LISTED = 10_000  # batches of one provider
_PATIENT, _SHORTEST = 10, 60.0  # times BATCHATA_PATIENCE, and seconds, for one provider's batches
_MOST_READ = 50  # ended batches whose results are read to see whose they are; each is a call
_HELD = (
    "held: if the provider's console shows it, `--adopt CHUNK=BATCH` lands it; if not, "
    "`--resend CHUNK` sends its rows again (and pays twice if it was accepted after all)"
)
_ABSENT = (
    "the list of batches does not show it, and shows others that the ledger knows: `--resend` "
    "sends its rows again"
)
_IN_DOUBT = (ChunkState.UNCLEAR, ChunkState.HELD)


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


def reconcile(
    settings: Settings,
    request: ReconcileRequest | None = None,
    *,
    days: float = 30,
    progress: Progress | None = None,
) -> ReconcileReport:
    """Compare the providers' batches of the last `days` with the ledger; do what `request` asks.

    Only providers whose key is in the environment are asked. Datasets that a run holds are left to
    that run.

    Raises:
        CredentialsError: no provider has a usable key, so there is nothing to compare.
        SpecError: the request names a chunk or batch to which it does not apply.
        BatchataError: the provider or the ledger cannot be used.
    """
    request, report = request or ReconcileRequest(), ReconcileReport()
    with (
        opened_ledger(settings.ledger_url) as ledger,
        closing(_Reconciler(ledger, settings, progress or silent(), report)) as work,
    ):
        work.abandon(request.abandon)
        work.require_providers()
        work.adopt_ours()
        work.settle(request)
        work.report_unknown(days)
        work.cancel(request.cancel)
        work.report_in_doubt()
        work.report_overdue(days)
    return report


class _Reconciler:
    """Does one reconciliation; its findings go to the report."""

    def __init__(
        self, ledger: Ledger, settings: Settings, progress: Progress, report: ReconcileReport
    ) -> None:
        self._ledger = ledger
        self._settings = settings
        self._progress = progress
        self._report = report
        self._providers: dict[str, Adapter] = {}
        for name in known_providers():
            try:
                self._providers[name] = provider_type(name)()
            except InputError as error:  # no key, or an address that cannot be right
                report.notes.append(f"{name} was not asked: {error}")
        self._notes: dict[str, str] = {}
        self._errors: dict[str, BatchataError] = {}  # of providers that cannot be asked
        self._abandoning = Abandoning(ledger, settings, self._providers, report)

    def abandon(self, batch_ids: Iterable[str]) -> None:
        """Give up batches that do not end."""
        for batch_id in dict.fromkeys(batch_ids):
            self._abandoning.abandon(batch_id)

    def report_overdue(self, days: float) -> None:
        """Report batches that did not end in time, and abandoned ones that ended since."""
        self._abandoning.report(days)

    def close(self) -> None:
        """Close the connections to the providers."""
        for provider in self._providers.values():
            provider.close()

    def require_providers(self) -> None:
        """Raise CredentialsError if there is no provider to ask, and nothing was done without."""
        if not self._providers and not self._report.abandoned:
            message = f"nothing was compared with the ledger: {' '.join(self._report.notes)}"
            raise CredentialsError(message)

    def settle(self, request: ReconcileRequest) -> None:
        """Settle chunks in doubt as a person decided."""
        abandoned = {chunk.id: chunk for chunk in self._ledger.chunks_in((ChunkState.ABANDONED,))}
        for chunk_id, batch_id in request.adopt.items() - self._report.adopted.items():
            if (given_up := abandoned.get(chunk_id)) is not None:
                self._abandoning.take_back(given_up, batch_id)
                continue
            with self._settling(chunk_id) as (context, chunk):
                look = context.provider.look(batch_id)
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
                self._ledger.drop_held(context.lease, chunk_id)
                self._folder(context).intent(chunk_id).unlink(missing_ok=True)
            self._report.freed.append(chunk_id)

    @contextmanager
    def _settling(
        self, chunk_id: str, *states: str
    ) -> Generator[tuple[_HeldContext, Chunk], None, None]:
        """Hold the dataset of a chunk in doubt, and yield the chunk as it is then.

        Until the dataset is held, a run or another person may settle the chunk.
        """
        with self._hold_dataset(self._in_doubt(chunk_id, *states)) as context:
            yield context, self._in_doubt(chunk_id, *states)

    def _refuse_wrong(
        self, chunk: Chunk, intent: Intent, provider: Adapter, look: BatchLook
    ) -> None:
        """Raise SpecError if a batch cannot be that chunk, or nobody can tell yet."""
        reason = None
        if self._ledger.known_batches([look.batch_id]):
            reason = "that batch is another chunk's"
        elif is_of(look, intent):
            return
        elif (
            look.requests not in (None, chunk.rows)
            or (owns := provider.owns(look, chunk.id)) is False
        ):
            reason = "that batch holds other requests; see the provider's console"
        elif owns is None:
            reason = "only its results show whose that batch is: try again when it has ended"
        if reason is not None:
            message = f"--adopt {chunk.id}={look.batch_id}: {reason}."
            raise SpecError(message)

    def _folder(self, context: _HeldContext) -> DatasetFolder:
        url = self._ledger.dataset_url(context.lease.dataset_id)
        assert url is not None  # noqa: S101 - there is a lease on it
        return DatasetFolder.at_url(url)

    def _hold(self, context: _HeldContext, chunk_id: str) -> None:
        hold(self._ledger, context.lease, self._folder(context), chunk_id)

    def _in_doubt(self, chunk_id: str, *states: str) -> Chunk:
        for chunk in self._ledger.chunks_in(states or _IN_DOUBT):
            if chunk.id == chunk_id:
                return chunk
        what = "held" if states == (ChunkState.HELD,) else "in doubt"
        message = (
            f"{chunk_id} is not a chunk that is {what} (any more); `batchata reconcile` lists "
            "those that are."
        )
        raise SpecError(message)

    def _provider(self, chunk: Chunk) -> Adapter:
        if chunk.provider not in self._providers:
            name = provider_type(chunk.provider).name
            message = f"{chunk.id} was sent to {name}, whose API key is not set; set it."
            raise CredentialsError(message)
        return self._providers[chunk.provider]

    @contextmanager
    def _hold_dataset(self, chunk: Chunk) -> Generator[_HeldContext, None, None]:
        lease = self._ledger.acquire_lease(chunk.dataset_id, self._settings.lease_seconds)
        try:
            provider = self._provider(chunk)
            yield _HeldContext(self._ledger, lease, provider, self._settings, self._progress)
        finally:
            self._ledger.release_lease(lease)

    def adopt_ours(self) -> None:
        """Look once for the batch of each chunk in doubt."""
        for chunk in self._ledger.chunks_in(_IN_DOUBT):
            if chunk.provider not in self._providers or chunk.provider in self._errors:
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
                        self._notes[chunk.id] = _ABSENT
            except (LeaseError, HeldError, CredentialsError) as error:
                self._notes[chunk.id] = str(error)
            except (TransientError, TerminalError) as error:
                self._could_not_ask(chunk.provider, error)

    def _adopt(self, context: _HeldContext, chunk: Chunk, look: BatchLook) -> None:
        if self._ledger.chunk(chunk.id).state == ChunkState.HELD:
            account = context.provider.account(self._ledger.id)
            self._ledger.adopt_held(context.lease, chunk, look.batch_id, account, look.status)
        else:
            record(context, chunk, look)
        self._report.adopted[chunk.id] = look.batch_id

    def report_unknown(self, days: float) -> None:
        """Report the batches that no chunk owns, as far as can be told."""
        now, reads_left = time.time(), _MOST_READ
        for name, provider in self._providers.items():
            until = time.monotonic() + max(_SHORTEST, _PATIENT * self._settings.patience)
            try:
                looks = self._listed(name, now - days * _DAY, until)
            except (TransientError, TerminalError, CredentialsError) as error:
                self._could_not_ask(name, error)
                continue
            # read in this order, because a run may be at work: when it records a batch that was
            # unclear, the batch is known below
            in_doubt = self._ledger.unclear_chunks()
            known = self._ledger.known_batches(look.batch_id for look in looks)
            self._report.known[name] = len(known)
            for look in looks:
                if look.batch_id in known:
                    continue
                reads_left *= time.monotonic() < until
                may_be = [
                    chunk.id
                    for chunk, intent in in_doubt
                    if _may_be(provider, look, chunk, intent, reads=reads_left > 0)
                ]
                batch = UnknownBatch(
                    provider=name,
                    batch_id=look.batch_id,
                    status=look.status,
                    requests=look.requests,
                    age=None if look.created_at is None else max(round(now - look.created_at), 0),
                    ours=_is_ours(provider, look) if reads_left else None,
                    twice=self._sent_twice(provider, look) if reads_left else None,
                    may_be=may_be[0] if may_be else None,
                    ended=look.ended,
                )
                reads_left -= look.ended and reads_left > 0
                self._report.strays.append(batch)
        if self._errors.keys() >= self._providers.keys() and not self._report.abandoned:
            for error in self._errors.values():
                raise error

    def _sent_twice(self, provider: Adapter, look: BatchLook) -> str | None:
        """Return the chunk of this ledger that a batch is of, although the chunk has another."""
        try:
            token = provider.token_of(look)
        except (TransientError, TerminalError):  # its results cannot be read at this moment
            return None
        chunks = self._ledger.existing_chunks([token] if token else [])
        return next((chunk.id for chunk in chunks if chunk.batch_id is not None), None)

    def _could_not_ask(self, name: str, error: BatchataError) -> None:
        """Note that a provider cannot be asked; the others are."""
        if name not in self._errors:
            self._errors[name] = error
            self._report.notes.append(f"{name} could not be asked: {error}")

    def _listed(self, name: str, since: float, until: float) -> list[BatchLook]:
        """Return an account's newest batches, as many as can be listed in the time."""
        if name in self._errors:
            raise self._errors[name]
        looks = list["BatchLook"]()
        for look in self._providers[name].recent(since):
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
            if batch.ended or not self._cancel(self._providers[batch.provider], batch_id):
                self._report.had_ended.append(batch_id)
                continue
            self._report.cancelled.append(batch_id)
            if batch.ours is not False:
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

    def report_in_doubt(self) -> None:
        """Report the chunks that are still in doubt."""
        now = time.time()
        for chunk, intent in self._ledger.unclear_chunks():
            is_held = chunk.state == ChunkState.HELD
            state = _HELD if is_held else "the next run looks for it"
            unclear = UnclearChunk(
                chunk=chunk.id,
                state=state,
                dataset=self._ledger.dataset_url(chunk.dataset_id) or "replaced by another one",
                provider=chunk.provider,
                requests=chunk.rows,
                age=max(round(now - intent.sent_at / 1e6), 0),
                note=self._notes.get(chunk.id, ""),
            )
            self._report.doubts.append(unclear)


def _is_ours(provider: Adapter, look: BatchLook) -> bool | None:
    try:
        return provider.ours(look)
    except (TransientError, TerminalError):  # its results cannot be read at this moment
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
