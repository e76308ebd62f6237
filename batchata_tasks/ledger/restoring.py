"""Restoring: rows of a ledger that was lost, put into this one."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from sqlalchemy import delete, insert

from batchata_tasks.ledger import tables as t
from batchata_tasks.ledger.leases import Leases
from batchata_tasks.ledger.store import writes

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from batchata_tasks.ledger.values import Lease

Row = dict[str, Any]


@dataclass
class Restored:
    """Rows by table, all columns named; runs by their id."""

    runs: dict[str, Row] = field(default_factory=dict[str, Row])
    chunks: list[Row] = field(default_factory=list[Row])
    intents: list[Row] = field(default_factory=list[Row])
    batches: list[Row] = field(default_factory=list[Row])
    outcomes: list[Row] = field(default_factory=list[Row])
    reservations: list[Row] = field(default_factory=list[Row])


class Restoring(Leases):
    """How a ledger comes to know what another one knew."""

    @writes
    def restore(self, connection: Connection, lease: Lease, found: Restored) -> None:
        """Put these rows in the place of all that this ledger knew of the dataset; all of them or none."""
        self._check(connection, lease)
        mine = t.runs.c.dataset_id == lease.dataset_id
        chunks = {row["id"] for row in found.chunks}
        for table in (t.outcomes, t.reservations, t.intents, t.batches):
            for chunk_id in chunks:
                connection.execute(delete(table).where(table.c.chunk_id == chunk_id))
        connection.execute(delete(t.chunks).where(t.chunks.c.dataset_id == lease.dataset_id))
        connection.execute(delete(t.runs).where(mine))
        rows = {
            t.runs: list(found.runs.values()),
            t.chunks: found.chunks,
            t.intents: found.intents,
            t.batches: found.batches,
            t.outcomes: found.outcomes,
            t.reservations: found.reservations,
        }
        for table, values in rows.items():
            if values:
                connection.execute(insert(table), values)
