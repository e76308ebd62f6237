"""Second batches: of a create that a provider accepted twice, the batch that nobody told us of.

The most that one may cost counts as spent, for no row. It is a settled reservation of its own,
named after the chunk and the batch, so that it counts once, whoever notices it, and how often.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import func, insert, select, update

from batchata_tasks.common.canonical import base32, digest
from batchata_tasks.common.clock import now_us
from batchata_tasks.common.json import as_dict
from batchata_tasks.ledger import tables as t
from batchata_tasks.ledger.budgets import Budgets, period_of
from batchata_tasks.ledger.chunks import Chunks, chunk_of, reservation_row
from batchata_tasks.ledger.store import blocks, reads, writes
from batchata_tasks.ledger.values import Chunk, ChunkState, Lease, RunPhase, StopReason

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sqlalchemy import Connection

_FREE = (ChunkState.PLANNED, ChunkState.DROPPED)
_OF_CHUNK = t.chunks.c.id == t.reservations.c.chunk_id


@dataclass(frozen=True, slots=True)
class SecondBatch:
    """The money of a second batch; it counts as that of its chunk does.

    `amount` is in picodollars, the times are microseconds since 1970; `period` is the begin of the
    budget's period.
    """

    chunk_id: str
    batch_id: str
    run_id: str
    amount: int
    reserved_at: int
    budget: str | None = None
    period: int | None = None


def name_of_second(chunk_id: str, batch_id: str) -> str:
    """Return the name of a second batch's money: the chunk's, and what derives from the batch's."""
    return f"{chunk_id}-{base32(digest('second batch', batch_id.encode()))[:19]}"


class Twice(Chunks, Budgets):
    """The part of the ledger about creates that were accepted twice."""

    @reads
    def second_batch(self, connection: Connection, chunk: Chunk, batch_id: str) -> SecondBatch:
        """Return what a second batch of a chunk counts, and against which budget.

        The chunk's money is gone if a person said that it was never accepted.
        """
        here = t.reservations.c.chunk_id == chunk.id
        money = connection.execute(select(t.reservations).where(here)).first()
        if money is not None:
            at, budget, period = money.reserved_at, money.budget, money.period
        else:
            sent_at = select(t.intents.c.sent_at).where(t.intents.c.chunk_id == chunk.id)
            at = connection.execute(sent_at).scalar() or now_us()
            spec = select(t.runs.c.spec).where(t.runs.c.id == chunk.run_id)
            budget = _budget_in(connection.execute(spec).scalar())
            period = None if budget is None else period_of(connection, budget, at)
        return SecondBatch(chunk.id, batch_id, chunk.run_id, chunk.bound or 0, at, budget, period)

    @reads
    def freed(self, connection: Connection, chunk_id: str) -> Chunk | None:
        """Return a chunk that a person freed, if nothing of its dataset was sent since; else None.

        It was sent, and taken for never accepted.
        """
        sent = t.intents.c.chunk_id == t.chunks.c.id
        free = t.chunks.c.state.in_(_FREE)
        query = select(t.chunks).join(t.intents, sent).where(t.chunks.c.id == chunk_id, free)
        if (row := connection.execute(query).first()) is None:
            return None
        began = select(t.runs.c.started_at).where(t.runs.c.id == row.run_id).scalar_subquery()
        later = (
            select(t.chunks.c.id)
            .join(t.runs, t.runs.c.id == t.chunks.c.run_id)
            .where(t.chunks.c.dataset_id == row.dataset_id, t.runs.c.started_at > began)
            .where(t.chunks.c.state.not_in(_FREE))
            .limit(1)
        )
        return chunk_of(row) if connection.execute(later).first() is None else None

    @writes
    def hold_freed(
        self, connection: Connection, lease: Lease, chunk: Chunk, money: SecondBatch
    ) -> None:
        """Hold a chunk that was freed, since its batch is there; its `money` is reserved again."""
        self._check(connection, lease)
        self._move(connection, chunk.id, _FREE, ChunkState.HELD)
        here = select(t.reservations.c.chunk_id).where(t.reservations.c.chunk_id == chunk.id)
        if connection.execute(here).first() is None:
            counts = {"budget": money.budget, "period": money.period}
            values = {**reservation_row(chunk), **counts, "reserved_at": money.reserved_at}
            connection.execute(insert(t.reservations).values(values))

    @writes
    def count_second(
        self, connection: Connection, lease: Lease, second: SecondBatch, *, stops: bool = False
    ) -> bool:
        """Count a second batch as spent; return whether it was not counted yet.

        If it `stops` its run, that sends nothing more.
        """
        self._check(connection, lease)
        name = name_of_second(second.chunk_id, second.batch_id)
        self.lock(connection, f"second batches of {second.chunk_id}")
        known = select(t.reservations.c.chunk_id).where(t.reservations.c.chunk_id == name)
        if connection.execute(known).first() is not None:
            return False
        if second.budget is not None:
            self.lock(connection, f"budget {second.budget}")
        row = {
            "chunk_id": name,
            "run_id": second.run_id,
            "reserved": second.amount,
            "settled": second.amount,
            "superseded": 0,
            "overhead": second.amount,
            "reserved_at": second.reserved_at,
            "settled_at": now_us(),
            "budget": second.budget,
            "period": second.period,
        }
        connection.execute(insert(t.reservations).values(row))
        if stops:
            run = (t.runs.c.id == second.run_id) & (t.runs.c.state != RunPhase.CLOSED)
            sends = update(t.runs).where(run & t.runs.c.stop.is_(None))
            connection.execute(sends.values(stop=StopReason.SENT_TWICE))
        return True

    @reads
    def second_batches(self, connection: Connection, run_id: str) -> int:
        """Return how many second batches of a run's chunks are counted."""
        query = (
            select(func.count())
            .select_from(t.reservations.outerjoin(t.chunks, _OF_CHUNK))
            .where(t.reservations.c.run_id == run_id, t.chunks.c.id.is_(None))
        )
        return connection.execute(query).scalar_one()

    @reads
    def chunks_of_files(self, connection: Connection, file_ids: Iterable[str]) -> dict[str, str]:
        """Return the chunks that were sent from uploaded files, by the file's id.

        One from which several were sent is left out: a server may give an id again.
        """
        chunks = dict[str, set[str]]()
        intents = t.intents.c
        for block in blocks(file_ids):
            query = select(intents.input_file_id, intents.chunk_id)
            for row in connection.execute(query.where(intents.input_file_id.in_(block))):
                chunks.setdefault(row.input_file_id, set()).add(row.chunk_id)
        return {file_id: min(ids) for file_id, ids in chunks.items() if len(ids) == 1}


def _budget_in(spec: str | None) -> str | None:
    """Return the budget that a run's stored spec names."""
    stored: dict[str, Any] = json.loads(spec or "{}")
    name = as_dict(as_dict(stored.get("spec")).get("budget")).get("name")
    return name if isinstance(name, str) else None
