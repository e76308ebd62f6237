"""What is open at this moment, of all datasets: batches, cancelled runs, lost processes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from sqlalchemy import delete, insert, select

from batchata_tasks.ledger import tables as t
from batchata_tasks.ledger.chunks import chunk_of
from batchata_tasks.ledger.leases import WATCHING, is_dead, work_of
from batchata_tasks.ledger.runs import put_untold
from batchata_tasks.ledger.store import Store, reads, writes
from batchata_tasks.ledger.values import Chunk, ChunkState, RunPhase, StopReason

if TYPE_CHECKING:
    from sqlalchemy import Connection, Row

_AWAITED = (
    select(
        t.chunks,
        *(t.batches.c[name] for name in ("account", "status", "requests_done")),
        *(t.batches.c[name] for name in ("submitted_at", "looked_at", "ended_at")),
        t.intents.c.scope,
    )
    .join(t.runs, t.runs.c.id == t.chunks.c.run_id)
    .join(t.batches, t.batches.c.batch_id == t.chunks.c.batch_id)
    .outerjoin(t.intents, t.intents.c.chunk_id == t.chunks.c.id)
    .where(
        t.runs.c.state == RunPhase.OPEN,
        t.chunks.c.state.in_((ChunkState.SUBMITTED, ChunkState.COLLECTED)),
    )
    .order_by(t.batches.c.submitted_at)
)
_CANCELLED = select(t.runs.c.id, t.runs.c.dataset_id).where(
    t.runs.c.state != RunPhase.CLOSED, t.runs.c.stop == StopReason.CANCEL
)
_LEFT = (
    select(t.datasets.c.id, t.datasets.c.worked_by)
    .join(t.runs, t.runs.c.dataset_id == t.datasets.c.id)
    .where(
        t.runs.c.state == RunPhase.OPEN,
        t.datasets.c.holder.is_(None),
        t.datasets.c.worked_by.is_not(None),
    )
)
_HELD = select(t.datasets.c.id, t.datasets.c.holder, t.datasets.c.lease_until).where(
    t.datasets.c.holder.is_not(None)
)


@dataclass(frozen=True, slots=True)
class AwaitedBatch:
    """A batch that an open run waits for, as it was seen last; moments in microseconds since 1970.

    `account` is the one that it was sent to, and `scope` the settings that select that, if known.
    `status` and `done` are None if nobody has looked at it since its create.
    """

    chunk: Chunk
    batch_id: str
    account: str
    scope: str | None
    submitted_at: int
    status: str | None
    done: int | None
    ended_at: int | None


@dataclass(frozen=True, slots=True)
class OpenWork:
    """What is open in a ledger, of all datasets.

    - `batches` are those that open runs wait for, the oldest first.
    - `cancelled` are runs that a person cancelled and that have not ended, with their datasets.
    - `lost` names by dataset the work of processes that held it, and died or fell silent.
    - `at_work` names the work of processes that hold a dataset.
    - `left` names by dataset the work that held it last, if its run is open and nobody holds it.
    """

    batches: list[AwaitedBatch]
    cancelled: dict[str, str]
    lost: dict[str, str]
    at_work: frozenset[str] = field(default_factory=frozenset[str])
    left: dict[str, str] = field(default_factory=dict[str, str])


class Awaiting(Store):
    """The part of the ledger about what is open, and who looks at it."""

    @writes
    def note_watched(self, connection: Connection) -> None:
        """Note that `watch` has looked at all that is open."""
        self.lock(connection, "passes of watch")
        connection.execute(delete(t.passes).where(t.passes.c.work == WATCHING))
        row = {"work": WATCHING, "ended_at": self.clock(connection)}
        connection.execute(insert(t.passes), row)

    @reads
    def watched_at(self, connection: Connection) -> int | None:
        """Return when `watch` looked last, in microseconds since 1970; None if it never did."""
        query = select(t.passes.c.ended_at).where(t.passes.c.work == WATCHING)
        return connection.execute(query).scalar()

    @writes
    def note_untold(self, connection: Connection, run_id: str, facts: str) -> None:
        """Note what Prefect's server is to be told of a run, in the place of what was before."""
        put_untold(connection, run_id, facts)

    @writes
    def note_told(self, connection: Connection, run_id: str) -> None:
        """Note that Prefect's server has been told all of a run."""
        put_untold(connection, run_id, None)

    @reads
    def untold(self, connection: Connection) -> dict[str, str]:
        """Return what Prefect's server is to be told, by run."""
        query = select(t.untold.c.run_id, t.untold.c.facts)
        return {row.run_id: row.facts for row in connection.execute(query)}

    @reads
    def open_work(self, connection: Connection, silent: float) -> OpenWork:
        """Return what is open.

        A process is lost if it was one of this machine that has ended, or if its lease ran out
        `silent` seconds ago.
        """
        before = self.clock(connection) - int(silent * 1e6)
        lost, at_work = dict[str, str](), set[str]()
        for row in connection.execute(_HELD):
            if (work := work_of(row.holder)) is None:
                continue
            if row.lease_until < before or is_dead(row.holder):
                lost[row.id] = work
            else:
                at_work.add(work)
        return OpenWork(
            [_awaited(row) for row in connection.execute(_AWAITED)],
            {row.id: row.dataset_id for row in connection.execute(_CANCELLED)},
            lost,
            frozenset(at_work),
            {row.id: row.worked_by for row in connection.execute(_LEFT)},
        )


def _awaited(row: Row[Any]) -> AwaitedBatch:
    was_seen = row.looked_at is not None
    return AwaitedBatch(
        chunk_of(row),
        row.batch_id,
        row.account,
        row.scope,
        row.submitted_at,
        row.status if was_seen else None,
        row.requests_done if was_seen else None,
        row.ended_at,
    )
