"""Rehearsals: runs that an emulator answers, of which nothing counts for real ones."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlsplit

from sqlalchemy import bindparam, delete, func, select, update

from batchata_tasks.common.clock import now_us
from batchata_tasks.common.json import as_dict
from batchata_tasks.ledger import tables as t
from batchata_tasks.ledger.chunks import Chunks
from batchata_tasks.ledger.store import blocks, reads, writes
from batchata_tasks.ledger.values import ChunkKind, ChunkState, Lease, RunPhase

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Connection

_ENDED = (ChunkState.LANDED, ChunkState.DROPPED, ChunkState.ABANDONED)
_UNSENT = (ChunkState.PLANNED, ChunkState.DROPPED)
_REHEARSALS = select(t.runs.c.id).where(
    t.runs.c.dataset_id == bindparam("dataset_id"), t.runs.c.rehearsal == 1
)
_LOOPBACK = ("127.0.0.1", "localhost", "::1")
_EMULATOR_PATHS = ("/anthropic", "/openai/v1")


def _is_of_emulator(scope: str | None) -> bool:
    """Whether a scope names an address that the emulator prints: on loopback, with its paths."""
    address = as_dict(json.loads(scope or "null")).get("address")
    url = urlsplit(address if isinstance(address, str) else "")
    return url.hostname in _LOOPBACK and url.path.rstrip("/") in _EMULATOR_PATHS


class DroppedRehearsals(NamedTuple):
    """What was dropped of rehearsals: chunks that never landed, and runs that had not ended."""

    chunks: list[str]
    runs: list[str]


class Rehearsals(Chunks):
    """The part of the ledger that keeps rehearsals and real runs of one dataset apart."""

    @reads
    def sent_for_real(self, connection: Connection, dataset_id: str) -> bool:
        """Whether anything of a dataset was sent to an endpoint that is no emulator.

        Of runs that older versions began, the address tells.
        """
        query = (
            select(t.runs.c.rehearsal, t.intents.c.scope)
            .select_from(t.chunks)
            .join(t.runs, t.runs.c.id == t.chunks.c.run_id)
            .outerjoin(t.intents, t.intents.c.chunk_id == t.chunks.c.id)
            .where(t.chunks.c.dataset_id == dataset_id)
            .where(func.coalesce(t.runs.c.rehearsal, 0) == 0)
            .where(t.chunks.c.kind == ChunkKind.BATCH, t.chunks.c.state.not_in(_UNSENT))
            .distinct()
        )
        return not all(
            row.rehearsal is None and _is_of_emulator(row.scope)
            for row in connection.execute(query)
        )

    @reads
    def rehearsals(self, connection: Connection, dataset_id: str) -> set[str]:
        """Return the ids of a dataset's runs that were rehearsals."""
        return set(connection.execute(_REHEARSALS, {"dataset_id": dataset_id}).scalars())

    def _kept(
        self, connection: Connection, dataset_id: str, is_to_go: Callable[[str | None], bool]
    ) -> set[str]:
        """Return the rehearsals of which a batch, ended or not, is not to go."""
        query = (
            select(t.runs.c.id, t.intents.c.scope)
            .join(t.chunks, t.chunks.c.run_id == t.runs.c.id)
            .join(t.intents, t.intents.c.chunk_id == t.chunks.c.id)
            .where(t.runs.c.dataset_id == dataset_id, t.runs.c.rehearsal == 1)
            .distinct()
        )
        rows = connection.execute(query).all()
        return {row.id for row in rows if row.scope is not None and not is_to_go(row.scope)}

    @writes
    def drop_rehearsals(
        self, connection: Connection, lease: Lease, is_to_go: Callable[[str | None], bool]
    ) -> DroppedRehearsals:
        """End the dataset's rehearsals that have not ended: nobody waits for their batches.

        Only those of which a batch was sent under a scope for which `is_to_go`, and those that sent
        none. Chunks of which the results are here count as landed.
        """
        self._check(connection, lease)
        c = t.chunks.c
        query = (
            select(c.id, c.run_id, c.state, t.intents.c.scope)
            .join(t.runs, t.runs.c.id == c.run_id)
            .outerjoin(t.intents, t.intents.c.chunk_id == c.id)
            .where(t.runs.c.dataset_id == lease.dataset_id, t.runs.c.rehearsal == 1)
            .where(c.state.not_in(_ENDED))
        )
        rows = connection.execute(query).all()
        kept = self._kept(connection, lease.dataset_id, is_to_go)
        rows = [row for row in rows if row.run_id not in kept]
        landed = [row.id for row in rows if row.state == ChunkState.COLLECTED]
        dropped = [row.id for row in rows if row.state != ChunkState.COLLECTED]
        for ids, state in ((landed, ChunkState.LANDED), (dropped, ChunkState.DROPPED)):
            for block in blocks(ids):
                here = update(t.chunks).where(c.id.in_(block))
                connection.execute(here.values(state=state, updated_at=now_us()))
        r = t.reservations.c
        for block in blocks(dropped):
            unsettled = r.chunk_id.in_(block) & r.settled.is_(None)
            connection.execute(delete(t.reservations).where(unsettled))
        of_rehearsals = (t.runs.c.dataset_id == lease.dataset_id) & (t.runs.c.rehearsal == 1)
        still_open = of_rehearsals & (t.runs.c.state != RunPhase.CLOSED)
        ids = connection.execute(select(t.runs.c.id).where(still_open)).scalars()
        runs = [run_id for run_id in ids if run_id not in kept]
        closed = {"state": RunPhase.CLOSED, "result": "abandoned", "finished_at": now_us()}
        for block in blocks(runs):
            connection.execute(update(t.runs).where(t.runs.c.id.in_(block)).values(closed))
        return DroppedRehearsals(dropped, runs)
