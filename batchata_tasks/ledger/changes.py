"""What was done to landed rows, so that it holds although a dataset's folder is lost."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import func, insert, select, update

from batchata_tasks.common.clock import now_us
from batchata_tasks.ledger import tables as t
from batchata_tasks.ledger.leases import Leases
from batchata_tasks.ledger.store import reads, writes
from batchata_tasks.types.ids import TOKEN_CHARS

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sqlalchemy import Connection

    from batchata_tasks.ledger.values import Lease


class Changes(Leases):
    """The part of the ledger about answers that were read anew, and rows that were forgotten."""

    @writes
    def note_reread(self, connection: Connection, lease: Lease, part: str) -> None:
        """Record that kept answers of a dataset are read by a model (its part of fingerprints)."""
        self._check(connection, lease)
        insert_reread(connection, lease.dataset_id, part)

    @reads
    def rereads(self, connection: Connection, dataset_id: str) -> set[str]:
        """Return the parts of fingerprints of the models by which kept answers were read anew."""
        return _rereads(connection, dataset_id)

    @writes
    def forget(self, connection: Connection, lease: Lease, name: str, cost: int) -> None:
        """Record that a row is to be forgotten: its cost, in picodollars, is in no row from now on.

        It counts once, however often this is called.
        """
        self._check(connection, lease)
        chunk_id = name[:TOKEN_CHARS]
        if name in _forgotten(connection, chunk_id):
            return
        insert_forgotten(connection, [name])
        more = func.coalesce(t.reservations.c.superseded, 0) + cost
        here = t.reservations.c.chunk_id == chunk_id
        connection.execute(update(t.reservations).where(here).values(superseded=more))

    @writes
    def note_forgotten(self, connection: Connection, lease: Lease, names: Iterable[str]) -> None:
        """Record that rows of which the dataset has none are forgotten, by their custom_ids."""
        self._check(connection, lease)
        insert_forgotten(connection, names)

    @reads
    def forgotten(self, connection: Connection, chunk_id: str) -> set[str]:
        """Return the custom_ids of a chunk's rows that were forgotten."""
        return _forgotten(connection, chunk_id)


def insert_reread(connection: Connection, dataset_id: str, part: str) -> None:
    """Add a model by which a dataset's answers were read anew, if it is not known yet."""
    if part not in _rereads(connection, dataset_id):
        row = {"dataset_id": dataset_id, "part": part, "noted_at": now_us()}
        connection.execute(insert(t.rereads).values(row))


def insert_forgotten(connection: Connection, names: Iterable[str]) -> None:
    """Add custom_ids of forgotten rows that are not known yet."""
    for name in sorted(set(names)):
        chunk_id = name[:TOKEN_CHARS]
        if name not in _forgotten(connection, chunk_id):
            row = {"custom_id": name, "chunk_id": chunk_id}
            connection.execute(insert(t.forgotten).values(row))


def _rereads(connection: Connection, dataset_id: str) -> set[str]:
    query = select(t.rereads.c.part).where(t.rereads.c.dataset_id == dataset_id)
    return set(connection.execute(query).scalars())


def _forgotten(connection: Connection, chunk_id: str) -> set[str]:
    query = select(t.forgotten.c.custom_id).where(t.forgotten.c.chunk_id == chunk_id)
    return set(connection.execute(query).scalars())
