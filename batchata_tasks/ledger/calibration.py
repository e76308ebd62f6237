"""Calibration: the tokens that a spec's finished batches used, to forecast the next ones."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from sqlalchemy import bindparam, func, select

from batchata_tasks.ledger import tables as t
from batchata_tasks.ledger.store import Store, reads
from batchata_tasks.ledger.values import ChunkKind, ChunkState
from batchata_tasks.types.outcome import Outcome

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sqlalchemy import Connection, Row

# batches; runs are counted whole, because later rounds belong to all batches of the first
_NEWEST = 20
_RAN = (Outcome.SUCCEEDED, Outcome.INVALID, Outcome.TRUNCATED, Outcome.REFUSED)

_DONE = (
    (t.chunks.c.provider == bindparam("provider"))
    & (t.chunks.c.model == bindparam("model"))
    & (t.chunks.c.kind == ChunkKind.BATCH)
    & t.chunks.c.state.in_((ChunkState.COLLECTED, ChunkState.LANDED))
    & (t.chunks.c.bytes > 0)
)
_NEWEST_RUNS = (
    select(t.runs.c.id, t.runs.c.started_at)
    .join(t.chunks, t.chunks.c.run_id == t.runs.c.id)
    .distinct()
    .where(_DONE, t.runs.c.name == bindparam("name"), t.chunks.c.round == 1)
    .where(func.coalesce(t.runs.c.rehearsal, 0) == bindparam("rehearsal"))
    .order_by(t.runs.c.started_at.desc())
    .limit(_NEWEST)
)
_OUTCOMES = (
    select(t.outcomes, t.chunks.c.round, t.chunks.c.bytes)
    .join(t.chunks, t.chunks.c.id == t.outcomes.c.chunk_id)
    .where(_DONE, t.chunks.c.run_id == bindparam("run_id"))
)


@dataclass(frozen=True, slots=True)
class UsageHistory:
    """The use of a spec's requests: sums over those that ran in the first round of their run.

    `again_…` is what later rounds added for requests that had run before. Only the ratios of these
    numbers matter. If `batches` is 0, they are a guess.
    """

    batches: int = 0
    requests: int = 0
    bytes: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0
    again_input_tokens: int = 0
    again_output_tokens: int = 0


class Calibration(Store):
    """The part of the ledger about the tokens that requests used."""

    @reads
    def usage_history(
        self,
        connection: Connection,
        provider: str,
        model: str,
        name: str,
        *,
        rehearsal: bool = False,
    ) -> UsageHistory | None:
        """Return what the newest finished batches of the spec `name` used; None if none ran.

        Those of rehearsals tell about rehearsals alone.
        """
        sent = {"provider": provider, "model": model}
        which = {**sent, "name": name, "rehearsal": int(rehearsal)}
        usage = UsageHistory()
        for run_id in connection.execute(_NEWEST_RUNS, which).scalars():
            by_chunk: dict[str, list[Row[Any]]] = defaultdict(list)
            for row in connection.execute(_OUTCOMES, {**sent, "run_id": run_id}):
                by_chunk[row.chunk_id].append(row)
            for rows in by_chunk.values():
                add = _with_first_round if rows[0].round == 1 else _with_later_round
                usage = add(usage, rows)
            if usage.batches >= _NEWEST:
                break
        return usage if usage.requests and usage.bytes else None


def _with_first_round(usage: UsageHistory, rows: list[Row[Any]]) -> UsageHistory:
    """Add a chunk of a first round; `rows` are its outcomes."""
    ran = [row for row in rows if row.outcome in _RAN]
    requests = _sum(ran, "rows")
    if not requests:
        return usage
    return replace(
        usage,
        batches=usage.batches + 1,
        requests=usage.requests + requests,
        bytes=usage.bytes + rows[0].bytes * requests // _sum(rows, "rows"),
        input_tokens=usage.input_tokens + _sum(ran, "input_tokens"),
        output_tokens=usage.output_tokens + _sum(ran, "output_tokens"),
        cache_read_tokens=usage.cache_read_tokens + _sum(ran, "cache_read_tokens"),
        cache_write_tokens=usage.cache_write_tokens + _sum(ran, "cache_write_tokens"),
    )


def _with_later_round(usage: UsageHistory, rows: list[Row[Any]]) -> UsageHistory:
    """Add a chunk of a later round, counting only requests that had run before.

    A request that runs for the first time in a later round adds nothing to the first round's use.
    """
    retried = _sum(rows, "retried")
    again = _sum((row for row in rows if row.outcome in _RAN), "retried")
    if not again:
        return usage
    more_input = _sum(rows, "input_tokens") * again // retried
    more_output = _sum(rows, "output_tokens") * again // retried
    return replace(
        usage,
        again_input_tokens=usage.again_input_tokens + more_input,
        again_output_tokens=usage.again_output_tokens + more_output,
    )


def _sum(rows: Iterable[Row[Any]], column: str) -> int:
    return sum(int(getattr(row, column)) for row in rows)
