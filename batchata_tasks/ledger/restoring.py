"""Restoring: put the rows of a lost ledger into this one."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from sqlalchemy import delete, insert, select, update

from batchata_tasks.common.clock import now_us
from batchata_tasks.ledger import tables as t
from batchata_tasks.ledger.changes import insert_forgotten, insert_reread
from batchata_tasks.ledger.leases import Leases
from batchata_tasks.ledger.store import blocks, writes
from batchata_tasks.ledger.values import UNFINISHED, ChunkState, RunPhase

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
    forgotten: set[str] = field(default_factory=set[str])  # custom_ids
    rereads: set[str] = field(default_factory=set[str])  # parts of fingerprints


class Restoring(Leases):
    """The part of the ledger that takes over what another one knew."""

    @writes
    def restore(self, connection: Connection, lease: Lease, restored: Restored) -> None:
        """Put these rows in place of what this ledger knows of the dataset; all of them or none.

        If it knows all of them, the folder is an older copy: then what it knows beyond them stays.
        """
        self._check(connection, lease)
        _leave_specs(connection, lease, restored)
        chunk_ids = {row["id"] for row in restored.chunks}
        for table in (t.outcomes, t.reservations, t.intents, t.batches):
            for chunk_id in chunk_ids:
                connection.execute(delete(table).where(table.c.chunk_id == chunk_id))
        _leave_to_others(connection, restored)
        # what was reserved for rows that were not sent would count for ever, of no chunk
        here = t.chunks.c.dataset_id == lease.dataset_id
        unsent = select(t.chunks.c.id).where(here, t.chunks.c.state == ChunkState.PLANNED)
        connection.execute(delete(t.reservations).where(t.reservations.c.chunk_id.in_(unsent)))
        chunks = select(t.chunks.c.id).where(here, t.chunks.c.state != ChunkState.PLANNED)
        if chunk_ids <= set(connection.execute(chunks).scalars()):
            _keep_beyond(connection, lease, restored)
        else:
            connection.execute(delete(t.chunks).where(here))
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
        insert_forgotten(connection, restored.forgotten)
        for part in sorted(restored.rereads):
            insert_reread(connection, lease.dataset_id, part)


def _keep_beyond(connection: Connection, lease: Lease, restored: Restored) -> None:
    """Delete what is restored, and what was never sent; end other runs, which have no plan left."""
    here, r = t.chunks.c.dataset_id == lease.dataset_id, t.runs.c
    connection.execute(delete(t.chunks).where(here, t.chunks.c.state == ChunkState.PLANNED))
    for row in restored.chunks:
        connection.execute(delete(t.chunks).where(t.chunks.c.id == row["id"]))
    for run_id in restored.runs:
        connection.execute(delete(t.runs).where(r.id == run_id))
    still_open = (r.dataset_id == lease.dataset_id) & (r.state != RunPhase.CLOSED)
    ended = {"state": RunPhase.CLOSED, "result": "rebuilt", "finished_at": now_us()}
    connection.execute(update(t.runs).where(still_open).values(ended))


def _leave_specs(connection: Connection, lease: Lease, restored: Restored) -> None:
    """Let runs keep the records that the ledger has of them: these tell of renamed columns, too."""
    query = select(t.runs.c.id, t.runs.c.spec).where(t.runs.c.dataset_id == lease.dataset_id)
    for run_id, spec in connection.execute(query):
        if run_id in restored.runs:
            restored.runs[run_id]["spec"] = spec


def _leave_to_others(connection: Connection, restored: Restored) -> None:
    """Restore no batch whose id is another dataset's: two servers may name their batches alike.

    A chunk that waits for such a batch is held, since nobody could tell the two apart.
    """
    taken = set[str]()
    for block in blocks(row["batch_id"] for row in restored.batches):
        query = select(t.batches.c.batch_id).where(t.batches.c.batch_id.in_(block))
        taken.update(connection.execute(query).scalars())
    restored.batches = [row for row in restored.batches if row["batch_id"] not in taken]
    for chunk in restored.chunks:
        if chunk["batch_id"] in taken and chunk["state"] in (*UNFINISHED, ChunkState.OVERDUE):
            chunk |= {"state": ChunkState.HELD, "batch_id": None}
