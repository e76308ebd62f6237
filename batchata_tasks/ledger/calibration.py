"""Calibration: what the finished batches of a spec used, as a measure for the next ones."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from sqlalchemy import select

from batchata_tasks.ledger import tables as t
from batchata_tasks.ledger.store import Store, reads
from batchata_tasks.ledger.values import ChunkState
from batchata_tasks.types.outcome import Outcome

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sqlalchemy import Connection, Row

_NEWEST = 20  # batches; runs are taken whole, since their later rounds belong to all of the first
_RAN = (Outcome.SUCCEEDED, Outcome.INVALID, Outcome.TRUNCATED, Outcome.REFUSED)


@dataclass(frozen=True, slots=True)
class UsageHistory:
    """What requests of a spec use: sums over those that ran in the first round of their run.

    `again_` is what further rounds added for requests that had run before. Only ratios of these
    numbers count. Without `batches` they are a guess.
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
    """What the ledger knows of the use of a spec's requests."""

    @reads
    def usual(
        self, connection: Connection, provider: str, model: str, name: str
    ) -> UsageHistory | None:
        """Return what the newest finished batches of a spec (by its name) and model used; None where none ran."""
        c = t.chunks.c
        mine = (c.provider == provider) & (c.model == model) & (c.kind == "batch")
        done = mine & c.state.in_((ChunkState.COLLECTED, ChunkState.LANDED)) & (c.bytes > 0)
        runs = (
            select(t.runs.c.id, t.runs.c.started_at)
            .join(t.chunks, c.run_id == t.runs.c.id)
            .distinct()
        )
        runs = runs.where(done, t.runs.c.name == name, c.round == 1)
        found = UsageHistory()
        for run_id in connection.execute(
            runs.order_by(t.runs.c.started_at.desc()).limit(_NEWEST)
        ).scalars():
            query = select(t.outcomes, c.round, c.bytes).join(
                t.chunks, c.id == t.outcomes.c.chunk_id
            )
            by_chunk: dict[str, list[Row[Any]]] = defaultdict(list)
            for row in connection.execute(query.where(done, c.run_id == run_id)):
                by_chunk[row.chunk_id].append(row)
            for rows in by_chunk.values():
                found = _with_first(found, rows) if rows[0].round == 1 else _with_later(found, rows)
            if found.batches >= _NEWEST:
                break
        return found if found.requests and found.bytes else None


def _with_first(found: UsageHistory, rows: list[Row[Any]]) -> UsageHistory:
    ran = [row for row in rows if row.outcome in _RAN]
    requests = _sum(ran, "rows")
    if not requests:
        return found
    return replace(
        found,
        batches=found.batches + 1,
        requests=found.requests + requests,
        bytes=found.bytes + rows[0].bytes * requests // _sum(rows, "rows"),
        input_tokens=found.input_tokens + _sum(ran, "input_tokens"),
        output_tokens=found.output_tokens + _sum(ran, "output_tokens"),
        cache_read_tokens=found.cache_read_tokens + _sum(ran, "cache_read_tokens"),
        cache_write_tokens=found.cache_write_tokens + _sum(ran, "cache_write_tokens"),
    )


def _with_later(found: UsageHistory, rows: list[Row[Any]]) -> UsageHistory:
    """Add a chunk of a later round, as far as its requests had run before: a first answer is no addition."""
    all_of_it, again = (
        _sum(rows, "retried"),
        _sum((row for row in rows if row.outcome in _RAN), "retried"),
    )
    if not again:
        return found
    return replace(
        found,
        again_input_tokens=found.again_input_tokens
        + _sum(rows, "input_tokens") * again // all_of_it,
        again_output_tokens=found.again_output_tokens
        + _sum(rows, "output_tokens") * again // all_of_it,
    )


def _sum(rows: Iterable[Row[Any]], column: str) -> int:
    return sum(int(getattr(row, column)) for row in rows)
