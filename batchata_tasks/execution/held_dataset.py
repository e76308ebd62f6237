"""A dataset that a run holds: its folder, its ledger, and the lease on it.

The process that begins or carries on a run takes the lease (`hold_dataset`), and a thread renews it
until the run ends. Steps of the run may be done in another process: see `borrowed_dataset.py`.
"""

from __future__ import annotations

import math
import threading
from abc import ABC, abstractmethod
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from batchata_tasks.common.clock import awake_clock
from batchata_tasks.common.errors import (
    BatchataError,
    LeaseError,
    LedgerError,
    WrongLedgerError,
)
from batchata_tasks.common.files import locked
from batchata_tasks.dataset.folder import DatasetFolder
from batchata_tasks.dataset.packing import Packing
from batchata_tasks.execution.intent_files import require_current
from batchata_tasks.execution.open_adapters import OpenAdapters
from batchata_tasks.ledger import opened_ledger
from batchata_tasks.progress.listener import silent

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable

    from batchata_tasks.common.settings import Settings
    from batchata_tasks.execution.run_ref import MakesParts
    from batchata_tasks.ledger import Lease, Ledger
    from batchata_tasks.progress.listener import Progress
    from batchata_tasks.schema.answers import AnswerSchemas


class InterruptedRunError(BatchataError):
    """The run was asked to stop; its open batches go on, and the next run lands them."""


class CancelledRunError(InterruptedRunError):
    """A person cancelled the run while no process was at work on it; it is not gone on with."""


class SuspendedRunError(BatchataError):
    """The run let go of its dataset while its batches are at the provider; the next one lands them.

    `run_id` names it in the ledger whose id is `ledger_id`.
    """

    def __init__(self, message: str, ledger_id: str, run_id: str) -> None:
        super().__init__(message)
        self.ledger_id = ledger_id
        self.run_id = run_id


@dataclass(frozen=True, slots=True)
class LettingGo:
    """Whether a run lets go of its dataset once there is nothing to do but to wait.

    It does if what it waits for has not come `after` so many seconds. `before` are the runs of the
    ledger that the same work let go of: to go on with one of them is not to carry on a dead run.
    `is_watched` tells whether passes of `watch` look after its ledger's runs.
    """

    after: float = math.inf
    before: frozenset[str] = frozenset()
    is_watched: bool = False


@dataclass
class HeldDataset(ABC):
    """A dataset that a run holds, as one process sees it: folder, ledger, and the run's lease."""

    folder: DatasetFolder
    ledger: Ledger
    lease: Lease
    settings: Settings
    progress: Progress
    stop: threading.Event = field(default_factory=threading.Event)  # leave the run as it is
    stop_requested: str | None = None  # why somebody in this process wants nothing more to be sent
    run_at_work: str | None = None  # whose steps are done at this moment
    adapters: OpenAdapters = field(default_factory=OpenAdapters)
    answers: AnswerSchemas | None = None  # the response models of the spec that this process runs
    letting_go: LettingGo = field(default_factory=LettingGo)
    makes_parts: MakesParts | None = None  # of results, elsewhere; None: this process does

    @contextmanager
    def landing_alone(self) -> Generator[None, None, None]:
        """Keep other processes from landing: two would rewrite the same parts.

        Raises:
            StorageError: the file system has no locks, so that only the process that holds the
                dataset may land.
            WrongLedgerError: another ledger took it over meanwhile.
        """
        with locked(self.folder.landing_lock(self.lease.fence), self.sleep) as alone:
            if not alone:
                self.require_own()
            require_owner(self.folder, self.ledger)
            yield

    @property
    def packing(self) -> Packing:
        """What changes the packs of the dataset's folder."""
        return Packing(self.folder.packs, self.require_lease)

    def unpack_commits(self, chunk_ids: Iterable[str]) -> None:
        """Take commits that are to be written anew out of packs, where they would be outdated."""
        self.packing.unpack([self.folder.commit(chunk_id) for chunk_id in chunk_ids])

    @abstractmethod
    def require_own(self) -> None:
        """Raise StorageError unless this process itself holds the dataset."""

    @abstractmethod
    def require_lease(self) -> None:
        """Raise LeaseError unless it is sure at this moment that the run holds the dataset.

        A process that was stopped (a signal, a sleeping laptop) wakes up where it was: right
        before a create, say, when a successor took over long ago.
        """

    @abstractmethod
    def raise_if_left(self) -> None:
        """Raise InterruptedRunError if the run is to end at once; LeaseError without its lease."""

    @abstractmethod
    def sleep(self, seconds: float) -> None:
        """Wait; raises as `raise_if_left` as soon as the run is to end."""


@dataclass
class OwnDataset(HeldDataset):
    """A dataset whose lease this process took and renews."""

    held_until: float = 0.0  # by `awake_clock`; until then nobody else can hold the dataset
    lost: LeaseError | None = None
    keeper: threading.Thread | None = None  # renews it
    given_back: bool = False

    def give_back(self) -> None:
        """Give the lease back, and send nothing from now on.

        A call that nobody waits for any more may still come to the point of sending.
        """
        self.stop.set()
        self.given_back = True
        if self.keeper is not None:
            self.keeper.join()  # it may be renewing the lease
        if self.lost is None:
            self.ledger.release_lease(self.lease)

    def require_own(self) -> None:
        """See HeldDataset."""

    def require_lease(self) -> None:
        """See HeldDataset."""
        require_unexpired(float("-inf") if self.given_back else self.held_until)

    def raise_if_left(self) -> None:
        """See HeldDataset."""
        self.sleep(0)

    def sleep(self, seconds: float) -> None:
        """See HeldDataset."""
        if self.stop.wait(seconds):
            if self.lost is not None:
                raise self.lost
            message = (
                "the run was stopped; batches that were sent go on at the provider, "
                "and the next run lands them."
            )
            raise InterruptedRunError(message)


def require_unexpired(held_until: float) -> None:
    """Raise LeaseError if a lease that was last seen to hold until then has run out since."""
    if awake_clock() >= held_until:
        message = (
            "this run was stopped for longer than its lease, so it sends nothing; start it again."
        )
        raise LeaseError(message)


@contextmanager
def hold_dataset(
    output: str,
    settings: Settings,
    progress: Progress | None = None,
    run: str | None = None,
    adapters: OpenAdapters | None = None,
) -> Generator[OwnDataset, None, None]:
    """Hold a dataset: make its folders, check that the ledger owns it, take and renew the lease.

    `run` names what this process works for, so that others can tell who holds the dataset.
    `adapters` are closed at the end, and those that are made meanwhile.

    Raises:
        WrongLedgerError: another ledger owns the dataset, or this one is older than it.
        AlreadyRunningError: another run holds it.
    """
    folder = DatasetFolder(output)
    folder.create()
    with (
        closing(adapters or OpenAdapters()) as opened,
        opened_ledger(settings.ledger_url) as ledger,
    ):
        dataset_id = owned_dataset(folder, ledger)
        held_until = awake_clock() + settings.lease_seconds
        lease = ledger.acquire_lease(dataset_id, settings.lease_seconds, run)
        held = OwnDataset(folder, ledger, lease, settings, progress or silent(), adapters=opened)
        held.held_until = held_until
        with _kept(held):
            require_current(folder, ledger)
            if folder.owner() is None:
                folder.write_owner(dataset_id, ledger.id)
            if lease.lost is not None:
                held.progress.note(
                    f"{lease.lost} held this dataset and was lost: "
                    "what it left unfinished is carried on."
                )
            yield held


@contextmanager
def _kept(held: OwnDataset) -> Generator[None, None, None]:
    """Renew a dataset's lease until the block ends, and give it back then, whatever happened."""
    held.keeper = threading.Thread(target=_keep_lease, args=(held,), name="lease", daemon=True)
    held.keeper.start()
    try:
        yield
    except Exception as error:
        _blame_lost_lease(held, error)
        raise
    finally:
        held.give_back()
        with suppress(OSError):  # of a disk that is read-only by now
            held.folder.landing_lock(held.lease.fence).unlink(missing_ok=True)


def _blame_lost_lease(held: OwnDataset, error: Exception) -> None:
    """Raise LeaseError if the lease is gone: that explains unexpected files and states."""
    try:
        held.ledger.check_lease(held.lease)
    except LeaseError as lost:
        raise lost from error


def another_ledgers(folder: DatasetFolder) -> WrongLedgerError:
    """Return the error that refuses a dataset which another ledger owns."""
    return WrongLedgerError(
        f"output: the dataset in {folder.root} belongs to another ledger, which knows what was "
        "paid for; set BATCHATA_LEDGER_URL to that ledger, or, if it is lost, "
        f"run `batchata status {folder.word} --rebuild`."
    )


def require_owner(folder: DatasetFolder, ledger: Ledger) -> None:
    """Raise WrongLedgerError if another ledger took a dataset over since it is held.

    Whoever rebuilds a ledger cannot see that a run of the old one is asleep, and wakes up.
    """
    owner = folder.owner()
    if owner is not None and owner.get("ledger_id") != ledger.id:
        raise another_ledgers(folder)


def find_dataset(folder: DatasetFolder, ledger: Ledger) -> str | None:
    """Return the id of a dataset; None if neither its folder nor the ledger has one.

    The ledger knows datasets by their URL, too, because the folder may have been deleted.
    """
    owner = folder.owner()
    return ledger.dataset_at(folder.url) if owner is None else owner["dataset_id"]


def owned_dataset(folder: DatasetFolder, ledger: Ledger) -> str:
    """Return the dataset's id; refuse a dataset that another ledger owns."""
    require_owner(folder, ledger)
    owner = folder.owner()
    return ledger.dataset_id(folder.url, owner["dataset_id"] if owner else None)


def _keep_lease(held: OwnDataset) -> None:
    """Renew the lease until the run ends; stop the run when it is lost."""
    seconds = held.settings.lease_seconds
    while not held.stop.wait(seconds / 4):
        try:
            held_until = awake_clock() + seconds  # before the ledger's own, so never later than it
            held.ledger.renew_lease(held.lease, seconds)
            held.held_until = held_until
        except LeaseError as error:
            held.lost = error
            held.stop.set()
        except LedgerError:
            continue  # a busy database; the lease has three quarters of its time left
