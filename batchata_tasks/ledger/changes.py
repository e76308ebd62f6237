"""What was done to landed rows, so that it holds although a dataset's folder is lost."""

from __future__ import annotations

from collections import defaultdict
from types import MappingProxyType
from typing import TYPE_CHECKING

from sqlalchemy import bindparam, func, insert, select, update

from batchata_tasks.common.clock import now_us
from batchata_tasks.ledger import tables as t
from batchata_tasks.ledger.leases import Leases
from batchata_tasks.ledger.store import reads, writes
from batchata_tasks.types.ids import TOKEN_CHARS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from sqlalchemy import Connection

    from batchata_tasks.ledger.values import Lease

_REREADS = select(t.rereads.c.part).where(t.rereads.c.dataset_id == bindparam("dataset_id"))
_FORGOTTEN = select(t.forgotten.c.custom_id).where(t.forgotten.c.chunk_id == bindparam("chunk_id"))


_OF_DATASET = t.forgotten.join(t.chunks, t.chunks.c.id == t.forgotten.c.chunk_id)


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
    def forget(
        self, connection: Connection, lease: Lease, chunk_id: str, costs: Mapping[str, int]
    ) -> None:
        """Record that rows of a chunk are forgotten: their costs are in no row from now on.

        `costs` has these in picodollars, by custom_id. Each counts once, however often this is
        called.
        """
        self._check(connection, lease)
        known = _forgotten(connection, chunk_id)
        new = {name: cost for name, cost in costs.items() if name not in known}
        insert_forgotten(connection, new)
        more = func.coalesce(t.reservations.c.superseded, 0) + sum(new.values())
        here = t.reservations.c.chunk_id == chunk_id
        connection.execute(update(t.reservations).where(here).values(superseded=more))

    @writes
    def note_forgotten(
        self,
        connection: Connection,
        lease: Lease,
        names: Iterable[str],
        superseded: Mapping[str, int] = MappingProxyType({}),
    ) -> None:
        """Record that rows are forgotten, by their custom_ids, of which the dataset has none.

        `superseded` has, by chunk, what no row of the dataset has cost since, in picodollars.
        """
        self._check(connection, lease)
        insert_forgotten(connection, names)
        for chunk_id, amount in superseded.items():
            here = t.reservations.c.chunk_id == chunk_id
            connection.execute(update(t.reservations).where(here).values(superseded=amount))

    @reads
    def forgotten_number(self, connection: Connection, dataset_id: str) -> int:
        """Return how many requests of a dataset were forgotten."""
        query = select(func.count()).select_from(_OF_DATASET)
        mine = t.chunks.c.dataset_id == dataset_id
        return connection.execute(query.where(mine)).scalar_one()

    @reads
    def forgotten_by_chunk(self, connection: Connection, dataset_id: str) -> dict[str, set[str]]:
        """Return the custom_ids of a dataset's rows that were forgotten, by chunk."""
        query = select(t.forgotten).select_from(_OF_DATASET)
        found = defaultdict[str, set[str]](set)
        for row in connection.execute(query.where(t.chunks.c.dataset_id == dataset_id)):
            found[row.chunk_id].add(row.custom_id)
        return dict(found)

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
    by_chunk = defaultdict[str, set[str]](set)
    for name in names:
        by_chunk[name[:TOKEN_CHARS]].add(name)
    for chunk_id, own in sorted(by_chunk.items()):
        new = sorted(own - _forgotten(connection, chunk_id))
        if new:
            rows = [{"custom_id": name, "chunk_id": chunk_id} for name in new]
            connection.execute(insert(t.forgotten), rows)


def _rereads(connection: Connection, dataset_id: str) -> set[str]:
    return set(connection.execute(_REREADS, {"dataset_id": dataset_id}).scalars())


def _forgotten(connection: Connection, chunk_id: str) -> set[str]:
    return set(connection.execute(_FORGOTTEN, {"chunk_id": chunk_id}).scalars())
