"""Restoring: put the rows of a lost ledger into this one."""

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
    """The rows to restore, by table, with all columns named; runs by their id."""

    runs: dict[str, Row] = field(default_factory=dict[str, Row])
    chunks: list[Row] = field(default_factory=list[Row])
    intents: list[Row] = field(default_factory=list[Row])
    batches: list[Row] = field(default_factory=list[Row])
    outcomes: list[Row] = field(default_factory=list[Row])
    reservations: list[Row] = field(default_factory=list[Row])


class Restoring(Leases):
    """The part of the ledger that takes over what another one knew."""

    @writes
    def restore(self, connection: Connection, lease: Lease, restored: Restored) -> None:
        """Replace all that this ledger knows of the dataset by these rows; all of them or none."""
        self._check(connection, lease)
        chunk_ids = {row["id"] for row in restored.chunks}
        for table in (t.outcomes, t.reservations, t.intents, t.batches):
            for chunk_id in chunk_ids:
                connection.execute(delete(table).where(table.c.chunk_id == chunk_id))
        connection.execute(delete(t.chunks).where(t.chunks.c.dataset_id == lease.dataset_id))
        connection.execute(delete(t.runs).where(t.runs.c.dataset_id == lease.dataset_id))
        rows_by_table = {
            t.runs: list(restored.runs.values()),
            t.chunks: restored.chunks,
            t.intents: restored.intents,
            t.batches: restored.batches,
            t.outcomes: restored.outcomes,
            t.reservations: restored.reservations,
        }
        for table, rows in rows_by_table.items():
            if rows:
                connection.execute(insert(table), rows)
