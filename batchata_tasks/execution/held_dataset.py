"""A dataset that this process holds: its folder, its ledger, and the lease on it, kept alive by a thread."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import chain
from typing import TYPE_CHECKING

from batchata_tasks.common.clock import awake_clock
from batchata_tasks.common.errors import LeaseError, LedgerError, WrongLedgerError
from batchata_tasks.dataset.folder import DatasetFolder
from batchata_tasks.ledger import opened_ledger
from batchata_tasks.progress.listener import silent

if TYPE_CHECKING:
    from collections.abc import Generator

    from batchata_tasks.common.settings import Settings
    from batchata_tasks.ledger import Lease, Ledger
    from batchata_tasks.progress.listener import Progress


@dataclass(frozen=True)
class Recovery:
    """The chunks that are recovered, in the order in which they were sent, and the rows that each has answers for."""

    claims: dict[str, set[str]]

    @property
    def row_ids(self) -> set[str]:
        """The rows for which nothing needs to be sent."""
        return set(chain.from_iterable(self.claims.values()))


@dataclass
class HeldDataset:
    """One dataset, held by this process: its folder, its ledger and the lease on it."""

    folder: DatasetFolder
    ledger: Ledger
    lease: Lease
    settings: Settings
    progress: Progress
    held_until: float  # by the clock of `awake_clock`: until then nobody else can hold the dataset
    stop: threading.Event = field(default_factory=threading.Event)
    lost: LeaseError | None = None
    asked: str | None = None  # why somebody in this process wants nothing more to be sent
    recovery: Recovery | None = None


@contextmanager
def hold_dataset(
    output: str, settings: Settings, progress: Progress | None = None, run: str | None = None
) -> Generator[HeldDataset, None, None]:
    """Hold a dataset: make its folders, check that the ledger owns it, take and keep the lease.

    `run` names what this process works for, so that others can tell who holds the dataset.

    Raises:
        WrongLedgerError: another ledger owns the dataset.
        AlreadyRunningError: another run holds it.
    """
    folder = DatasetFolder(output)
    folder.create()
    with opened_ledger(settings.ledger_url) as ledger:
        dataset_id = owned_dataset(folder, ledger)
        held_until = awake_clock() + settings.lease_seconds
        lease = ledger.acquire_lease(dataset_id, settings.lease_seconds, run)
        if folder.owner() is None:
            folder.write_owner(dataset_id, ledger.id)
        held = HeldDataset(folder, ledger, lease, settings, progress or silent(), held_until)
        if lease.lost is not None:
            held.progress.note(
                f"{lease.lost} held this dataset and was lost: what it left unfinished is carried on."
            )
        keeper = threading.Thread(target=_keep_lease, args=(held,), name="lease", daemon=True)
        keeper.start()
        try:
            yield held
        except Exception as error:
            _blame_lost_lease(held, error)
            raise
        finally:
            held.stop.set()
            keeper.join()
            held.held_until = (
                0.0  # a call that nobody waited for any more may still come to the point of sending
            )
            if held.lost is None:
                ledger.release_lease(lease)


def _blame_lost_lease(held: HeldDataset, error: Exception) -> None:
    """Raise LeaseError where the lease is gone: then that is why files and states are not as expected."""
    try:
        held.ledger.check_lease(held.lease)
    except LeaseError as lost:
        raise lost from error


def another_ledgers(folder: DatasetFolder) -> WrongLedgerError:
    """Return what refuses a dataset that another ledger owns."""
    found = f"output: the dataset in {folder.root} belongs to another ledger, which knows what was paid for"
    remedy = "run `batchata status SPEC --rebuild` (for SPEC, a Batch names its results_dir)"
    return WrongLedgerError(
        f"{found}; set BATCHATA_LEDGER_URL to that ledger, or, if it is lost, {remedy}."
    )


def find_dataset(folder: DatasetFolder, ledger: Ledger) -> str | None:
    """Return the id of a dataset; None if neither its folder nor the ledger has one.

    The ledger knows datasets by their URL, too, because the folder may have been deleted.
    """
    owner = folder.owner()
    return ledger.dataset_at(folder.url) if owner is None else owner["dataset_id"]


def owned_dataset(folder: DatasetFolder, ledger: Ledger) -> str:
    """Return the dataset's id; refuse a dataset that another ledger owns."""
    owner = folder.owner()
    if owner is not None and owner.get("ledger_id") != ledger.id:
        raise another_ledgers(folder)
    return ledger.dataset_id(folder.url, owner["dataset_id"] if owner else None)


def _keep_lease(held: HeldDataset) -> None:
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
