"""Runs: begun, planned once, then resumed until they are closed."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from sqlalchemy import bindparam, delete, func, insert, select, update

from batchata_tasks.common.clock import now_us
from batchata_tasks.ledger import tables as t
from batchata_tasks.ledger.chunks import chunk_row
from batchata_tasks.ledger.leases import Leases
from batchata_tasks.ledger.store import reads, writes
from batchata_tasks.ledger.values import (
    SENDING_ENDS,
    UNTIL_LOOKED_AT,
    Chunk,
    ChunkState,
    Lease,
    RunEnd,
    RunPhase,
    StopReason,
    new_id,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from sqlalchemy import Connection, Row


_RUN = select(t.runs).where(t.runs.c.id == bindparam("run_id"))
_STOP = select(t.runs.c.stop).where(t.runs.c.id == bindparam("run_id"))
_OPEN = (
    select(t.runs)
    .where(t.runs.c.dataset_id == bindparam("dataset_id"), t.runs.c.state != RunPhase.CLOSED)
    .order_by(t.runs.c.started_at.desc())
)
_NEWEST = select(t.runs).order_by(t.runs.c.started_at.desc()).limit(bindparam("number"))
_NEWEST_OF = _NEWEST.where(t.runs.c.dataset_id == bindparam("dataset_id"))
_SET = update(t.runs).where(t.runs.c.id == bindparam("of_run"))
_NO_CHUNKS = delete(t.chunks).where(t.chunks.c.run_id == bindparam("of_run"))
_UNSENT = (t.chunks.c.run_id == bindparam("of_run")) & (t.chunks.c.state == ChunkState.PLANNED)
_RELEASE_UNSENT = delete(t.reservations).where(
    t.reservations.c.chunk_id.in_(select(t.chunks.c.id).where(_UNSENT))
)
_DROP_UNSENT = update(t.chunks).where(_UNSENT)


class Runs(Leases):
    """The part of the ledger about runs, with each run's chunk list."""

    @reads
    def open_run(self, connection: Connection, dataset_id: str) -> Row[Any] | None:
        """Return the run of this dataset that has not finished, if there is one."""
        return connection.execute(_OPEN, {"dataset_id": dataset_id}).first()

    @writes
    def begin_run(self, connection: Connection, lease: Lease, values: Mapping[str, Any]) -> str:
        """Record a new run, which is being planned; return its id."""
        run_id = new_id()
        row = {
            "id": run_id,
            "dataset_id": lease.dataset_id,
            "state": RunPhase.PLANNING,
            "started_at": now_us(),
            **values,
        }
        self._check(connection, lease)
        connection.execute(insert(t.runs), row)
        return run_id

    @writes
    def set_spec(self, connection: Connection, lease: Lease, run_id: str, spec: str) -> None:
        """Keep another record (JSON) of a run's spec."""
        self._check(connection, lease)
        connection.execute(_SET, {"of_run": run_id, "spec": spec})

    @reads
    def run(self, connection: Connection, run_id: str) -> Row[Any]:
        """Return one run's row."""
        return connection.execute(_RUN, {"run_id": run_id}).one()

    @reads
    def find_run(self, connection: Connection, run_id: str) -> Row[Any] | None:
        """Return one run's row; None if the ledger has no such run."""
        return connection.execute(_RUN, {"run_id": run_id}).first()

    @reads
    def run_of_batch(self, connection: Connection, batch_id: str) -> Row[Any] | None:
        """Return the run that sent a batch; None if the ledger has no such batch."""
        sent = select(t.chunks.c.run_id).where(t.chunks.c.batch_id == batch_id)
        return connection.execute(select(t.runs).where(t.runs.c.id.in_(sent))).first()

    @reads
    def runs_of(self, connection: Connection, dataset_id: str | None, limit: int) -> list[Row[Any]]:
        """Return the newest runs, of one dataset or of all."""
        if dataset_id is None:
            return list(connection.execute(_NEWEST, {"number": limit}))
        which = {"number": limit, "dataset_id": dataset_id}
        return list(connection.execute(_NEWEST_OF, which))

    @reads
    def last_that_planned(self, connection: Connection, dataset_id: str) -> Row[Any] | None:
        """Return the newest run of a dataset that had a plan, and was not declined; None if none.

        The others sent nothing.
        """
        query = _NEWEST_OF.where(
            t.runs.c.plan.is_not(None),
            func.coalesce(t.runs.c.result, "") != RunEnd.DECLINED,
        )
        return connection.execute(query, {"number": 1, "dataset_id": dataset_id}).first()

    @reads
    def count_runs(self, connection: Connection, dataset_id: str | None) -> int:
        """Return how many runs there are, of one dataset or of all."""
        query = select(func.count()).select_from(t.runs)
        if dataset_id is not None:
            query = query.where(t.runs.c.dataset_id == dataset_id)
        return connection.execute(query).scalar_one()

    @reads
    def last_refresh(
        self, connection: Connection, dataset_id: str, *, rehearsal: bool
    ) -> Row[Any] | None:
        """Return the newest run of a dataset that was to send landed rows again.

        None without one. Those that were refused or declined do not count: they sent nothing.
        """
        sent_nothing = (RunEnd.REFUSED, RunEnd.DECLINED)
        query = (
            select(t.runs)
            .where(t.runs.c.dataset_id == dataset_id, t.runs.c.refresh_before.is_not(None))
            .where(func.coalesce(t.runs.c.rehearsal, 0) == int(rehearsal))
            .where(func.coalesce(t.runs.c.result, "").not_in(sent_nothing))
            .order_by(t.runs.c.started_at.desc())
        )
        return connection.execute(query.limit(1)).first()

    @reads
    def specs_of(self, connection: Connection, dataset_id: str) -> list[str]:
        """Return the specs (JSON) of all runs of a dataset."""
        query = select(t.runs.c.spec).where(t.runs.c.dataset_id == dataset_id)
        return list(connection.execute(query).scalars())

    @writes
    def fix_plan(
        self,
        connection: Connection,
        lease: Lease,
        run_id: str,
        plan: Mapping[str, Any],
        chunks: Iterable[Chunk],
    ) -> None:
        """Write the run's chunk list; from here on the run is resumed, never planned again."""
        self._check(connection, lease)
        connection.execute(_NO_CHUNKS, {"of_run": run_id})
        _add(connection, chunks)
        values = {"state": RunPhase.OPEN, "plan": json.dumps(plan)}
        connection.execute(_SET, {"of_run": run_id, **values})

    @writes
    def add_round(self, connection: Connection, lease: Lease, chunks: Iterable[Chunk]) -> None:
        """Write the chunks of a run's next round; from here on the round is not planned again."""
        self._check(connection, lease)
        _add(connection, chunks)

    @writes
    def request_stop(self, connection: Connection, run_id: str, reason: str) -> None:
        """Ask a run to send nothing more.

        The first reason stays, unless it only ends the sending: a later one may cancel batches.
        """
        replaceable = t.runs.c.stop.is_(None) | t.runs.c.stop.in_(SENDING_ENDS)
        here = (t.runs.c.id == run_id) & replaceable
        connection.execute(update(t.runs).where(here).values(stop=reason))

    @writes
    def stop_for_trouble(
        self, connection: Connection, lease: Lease, run_id: str, reason: StopReason
    ) -> None:
        """Let an open run send nothing more, and note why as its result.

        The result stays whatever else stops the run by then, and what somebody has to look at
        stays before trouble of the account.
        """
        self._check(connection, lease)
        here = (t.runs.c.id == run_id) & (t.runs.c.state != RunPhase.CLOSED)
        sends = update(t.runs).where(here & t.runs.c.stop.is_(None))
        connection.execute(sends.values(stop=reason))
        free = t.runs.c.result.is_(None) | t.runs.c.result.not_in(UNTIL_LOOKED_AT)
        connection.execute(update(t.runs).where(here & free).values(result=reason))

    @writes
    def resume(self, connection: Connection, lease: Lease, run_id: str) -> None:
        """Let a run send again that trouble of the account had stopped."""
        self._check(connection, lease)
        for column in (t.runs.c.stop, t.runs.c.result):
            here = (t.runs.c.id == run_id) & (column == StopReason.ACCOUNT_TROUBLE)
            connection.execute(update(t.runs).where(here).values({column: None}))

    @reads
    def stop_reason(self, connection: Connection, run_id: str) -> str | None:
        """Return why a run is to stop before its end, or None."""
        return connection.execute(_STOP, {"run_id": run_id}).scalar_one()

    @writes
    def note_result(self, connection: Connection, lease: Lease, run_id: str, result: str) -> None:
        """Record why a run that stays open stopped."""
        self._check(connection, lease)
        connection.execute(_SET, {"of_run": run_id, "result": result})

    @writes
    def close_run(
        self,
        connection: Connection,
        lease: Lease,
        run_id: str,
        result: str,
        untold: str | None = None,
    ) -> None:
        """End a run; chunks that were never sent are dropped, and their money is released.

        `untold` is what Prefect's server is still to be told of it, if others than its own flow run
        end it. What was to be told of how it stood before is told no more.
        """
        self._check(connection, lease)
        put_untold(connection, run_id, untold)
        connection.execute(_RELEASE_UNSENT, {"of_run": run_id})
        dropped = {"state": ChunkState.DROPPED, "updated_at": now_us()}
        connection.execute(_DROP_UNSENT, {"of_run": run_id, **dropped})
        closed = {"state": RunPhase.CLOSED, "result": result, "finished_at": now_us()}
        connection.execute(_SET, {"of_run": run_id, **closed})


def put_untold(connection: Connection, run_id: str, facts: str | None) -> None:
    """Let this alone be what Prefect's server is still to be told of a run; None: nothing is."""
    connection.execute(delete(t.untold).where(t.untold.c.run_id == run_id))
    if facts is not None:
        connection.execute(insert(t.untold), {"run_id": run_id, "facts": facts})


def _add(connection: Connection, chunks: Iterable[Chunk]) -> None:
    if rows := [chunk_row(chunk) for chunk in chunks]:
        connection.execute(insert(t.chunks), rows)
