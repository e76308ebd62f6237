"""Chunks as a planner makes them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from batchata_tasks.ledger import Chunk, ChunkState


def planned_chunk(name: str, run_id: str, dataset_id: str, rows: range, **values: Any) -> Chunk:
    """Return a planned chunk of a run's first round; `values` replace its other fields."""
    chunk = Chunk(
        id=name,
        run_id=run_id,
        dataset_id=dataset_id,
        round=1,
        kind="batch",
        provider="anthropic",
        model="m",
        endpoint="chat",
        start=rows.start,
        stop=rows.stop,
        bytes=100,
        bound=50,
        state=ChunkState.PLANNED,
    )
    return replace(chunk, **values)
