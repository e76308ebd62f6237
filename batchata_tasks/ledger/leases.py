"""Datasets, and the lease on each: the right to plan, send and commit.

A number that grows with each holder (the fence) tells an old holder from a new one.
"""

from __future__ import annotations

import os
import re
import socket
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import bindparam, delete, insert, select, update

from batchata_tasks.common.clock import now_us
from batchata_tasks.common.errors import AlreadyRunningError, LeaseError
from batchata_tasks.common.process import has_ended
from batchata_tasks.ledger import tables as t
from batchata_tasks.ledger.store import Store, reads, writes
from batchata_tasks.ledger.values import Lease, new_id

if TYPE_CHECKING:
    from sqlalchemy import Connection, Row


WATCHING = "watch"
"""The work of a process that looks after the runs of others."""

_HOLDER = re.compile(r"process \d+ \((.+)\) on ")
_DATASET = select(t.datasets).where(t.datasets.c.id == bindparam("dataset_id"))
_LOCKED_DATASET = _DATASET.with_for_update()
_AT_URL = select(t.datasets.c.id).where(t.datasets.c.url == bindparam("at"))
_NONE_AT_URL = delete(t.datasets).where(t.datasets.c.url == bindparam("at"))
_SET = update(t.datasets).where(t.datasets.c.id == bindparam("of_dataset"))
_SET_HELD = _SET.where(t.datasets.c.fence == bindparam("held_with"))


class Leases(Store):
    """The part of the ledger about datasets and who holds them."""

    @writes
    def dataset_id(self, connection: Connection, url: str, owner_id: str | None) -> str:
        """Return the id of the dataset at `url`; `owner_id` is that in its owner file."""
        # else two first runs in one folder would give it two ids
        self.lock(connection, "names of datasets")
        at_url = connection.execute(_AT_URL, {"at": url}).scalar()
        if at_url is not None and owner_id in (None, at_url):
            return str(at_url)
        dataset_id = owner_id or new_id()
        # a dataset that was moved keeps its id, and with it the record of what was paid for
        connection.execute(_NONE_AT_URL, {"at": url})
        moved = connection.execute(_SET, {"of_dataset": dataset_id, "url": url})
        if moved.rowcount == 0:
            row = {"id": dataset_id, "url": url, "created_at": now_us(), "fence": 0}
            connection.execute(insert(t.datasets), row)
        return dataset_id

    @reads
    def dataset_at(self, connection: Connection, url: str) -> str | None:
        """Return the id of the dataset at `url`; None if no run has used this folder."""
        return connection.execute(_AT_URL, {"at": url}).scalar()

    @reads
    def dataset_urls(self, connection: Connection) -> list[str]:
        """Return the URLs of all datasets, as of their last use."""
        return list(
            connection.execute(select(t.datasets.c.url).order_by(t.datasets.c.url)).scalars()
        )

    @reads
    def dataset_url(self, connection: Connection, dataset_id: str) -> str | None:
        """Return the URL of a dataset's folder, as of its last use.

        It is None if another dataset was put in its place.
        """
        query = select(t.datasets.c.url).where(t.datasets.c.id == dataset_id)
        return connection.execute(query).scalar()

    @reads
    def is_held(self, connection: Connection, dataset_id: str) -> bool:
        """Whether a process holds the lease on a dataset, as far as this machine can see."""
        row = connection.execute(_DATASET, {"dataset_id": dataset_id}).first()
        if row is None or row.holder is None:
            return False
        return bool(row.lease_until > self.clock(connection)) and not is_dead(row.holder)

    @reads
    def left_by(self, connection: Connection, dataset_id: str) -> str | None:
        """Return the work that held a dataset last, such as a flow run; None if one holds it."""
        row = connection.execute(_DATASET, {"dataset_id": dataset_id}).first()
        return None if row is None or row.holder is not None else row.worked_by

    @reads
    def last_work(self, connection: Connection, dataset_id: str) -> str | None:
        """Return the work that holds a dataset, or held it last; it may have died meanwhile."""
        row = connection.execute(_DATASET, {"dataset_id": dataset_id}).first()
        return None if row is None else row.worked_by

    @writes
    def acquire_lease(
        self, connection: Connection, dataset_id: str, seconds: float, run: str | None = None
    ) -> Lease:
        """Take the lease on a dataset; `run` names the work of this process, such as a flow run.

        That is kept when it is released, until others hold it; `WATCHING` counts for nothing.

        Raises:
            AlreadyRunningError: another run holds it.
        """
        holder = f"process {os.getpid()}{f' ({run})' if run else ''} on {_machine()}"
        row = self._locked_dataset(connection, dataset_id)
        now = self.clock(connection)
        if row.holder is not None and row.lease_until > now and not is_dead(row.holder):
            wait = (row.lease_until - now) / 1e6
            message = (
                f"another run holds this dataset: {_for_people(row.holder)}; wait for it, "
                f"or, if it is dead, start again in {wait:.0f} s."
            )
            raise AlreadyRunningError(message, _for_people(row.holder), row.lease_until)
        values = {"fence": row.fence + 1, "holder": holder, "lease_until": now + int(seconds * 1e6)}
        worked_by = row.worked_by if run == WATCHING else run
        connection.execute(_SET, {"of_dataset": dataset_id, **values, "worked_by": worked_by})
        lost = row.holder and _for_people(row.holder)
        return Lease(dataset_id, row.fence + 1, holder, lost=lost)

    @writes
    def renew_lease(self, connection: Connection, lease: Lease, seconds: float) -> None:
        """Prolong the lease; raises LeaseError if another run has taken it."""
        self._check(connection, lease, expired_too=False)
        until = self.clock(connection) + int(seconds * 1e6)
        connection.execute(_SET, {"of_dataset": lease.dataset_id, "lease_until": until})

    @writes
    def release_lease(self, connection: Connection, lease: Lease) -> None:
        """Release the lease, if it is still ours."""
        mine = {"of_dataset": lease.dataset_id, "held_with": lease.fence}
        connection.execute(_SET_HELD, {**mine, "holder": None, "lease_until": None})

    @writes
    def check_lease(self, connection: Connection, lease: Lease) -> None:
        """Raise LeaseError unless the lease is still ours; called just before files are changed."""
        self._check(connection, lease)

    @reads
    def lease_left(self, connection: Connection, lease: Lease) -> float:
        """Return for how many seconds a lease still holds if nobody renews it.

        Raises:
            LeaseError: another run has taken it, it was released, or it has expired.
        """
        return self._check_held(connection, lease) / 1e6

    def _check_held(self, connection: Connection, lease: Lease) -> int:
        """Return how many microseconds a lease still holds; raises LeaseError if it does not."""
        row = connection.execute(_DATASET, {"dataset_id": lease.dataset_id}).one()
        left = int(row.lease_until or 0) - self.clock(connection)
        if row.fence != lease.fence or left < 0:
            raise _lost()
        return left

    def _locked_dataset(self, connection: Connection, dataset_id: str) -> Row[Any]:
        """Return a dataset's row, locked: others that want it wait until this transaction ends."""
        return connection.execute(_LOCKED_DATASET, {"dataset_id": dataset_id}).one()

    def _check(self, connection: Connection, lease: Lease, *, expired_too: bool = True) -> None:
        """Raise LeaseError if another run has taken the lease, or it has expired.

        Transactions that write for one dataset run one after another, since each begins by locking
        the dataset's row here.
        """
        row = self._locked_dataset(connection, lease.dataset_id)
        # the clock is read after the row was locked, because waiting for the lock takes time, too
        expired = expired_too and (row.lease_until or 0) < self.clock(connection)
        if row.fence != lease.fence or expired:
            raise _lost()


def _lost() -> LeaseError:
    return LeaseError(
        "this run lost its hold on the dataset, because it did not renew it in time; "
        "start it again."
    )


def _machine() -> str:
    """Name this machine, boot and process namespace, within which a process id is unique."""
    facts = [socket.gethostname()]
    with suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        facts.append(boot[:8])
        facts.append(str(Path("/proc/self/ns/pid").stat().st_ino))
    return "/".join(facts)


def _for_people(holder: str) -> str:
    """Name the holder of a lease by its process, the work of that, and its host name."""
    process, _, machine = holder.rpartition(" on ")
    here = " (this machine)" if machine == _machine() else ""
    return f"{process} on {machine.partition('/')[0]}{here}"


def work_of(holder: str) -> str | None:
    """Return the name of the work of a lease's holder; None if it gave none."""
    named = _HOLDER.match(holder)
    return None if named is None else named[1]


def is_flow_run(work: str | None) -> bool:
    """Whether work is a flow run, as the flows name it to the ledger."""
    return work is not None and work.startswith("flow run ")


def is_dead(holder: str) -> bool:
    """Whether the holder of a lease was a process of this machine that has ended."""
    words, _, machine = holder.removeprefix("process ").rpartition(" on ")
    process = words.partition(" ")[0]
    return machine == _machine() and process.isdigit() and has_ended(int(process))
