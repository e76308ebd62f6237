"""The outlook on what was sent before: what is under way, and what a run would fetch again first.

It is as far as that is known without the provider.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pyarrow as pa

from batchata_tasks.common.money import total
from batchata_tasks.dataset.columns import part_of_chunk
from batchata_tasks.dataset.manifest import read_chunk_manifest
from batchata_tasks.dataset.parts import Dataset
from batchata_tasks.ledger import UNFINISHED, ChunkKind, ChunkState, RunPhase
from batchata_tasks.types.outcome import Outcome

if TYPE_CHECKING:
    from collections.abc import Iterable

    from batchata_tasks.dataset.folder import DatasetFolder
    from batchata_tasks.ledger import Chunk, Ledger


@dataclass(frozen=True)
class Outlook:
    """Rows whose manifests are there are known one by one (`row_ids`), the others are but counted."""

    chunks: frozenset[str] = frozenset()
    row_ids: frozenset[str] = frozenset()
    uncertain_rows: int = 0


@dataclass(frozen=True)
class InFlight:
    """Batches that were sent, or may have been, and whose cost is not known yet.

    `bound` is what is reserved for them, `expected` what they are likely to cost, in picodollars;
    None without a known price.
    """

    batches: int = 0
    bound: int | None = 0
    expected: int | None = 0


def in_flight(chunks: Iterable[Chunk]) -> InFlight:
    """Return what is in flight of the unfinished chunks of a dataset: all but those whose results were settled."""
    sent = [chunk for chunk in chunks if chunk.state != ChunkState.COLLECTED]
    bound = total(chunk.bound for chunk in sent)
    return InFlight(len(sent), bound, total(chunk.expected for chunk in sent))


def outlook(ledger: Ledger, folder: DatasetFolder, dataset_id: str) -> Outlook:
    """Look ahead at what `recover` would do. Nothing is written."""
    row_ids, uncertain = set[str](), 0
    lost = _lost(ledger, folder, dataset_id)
    for chunk in lost:
        path = folder.manifest(chunk.id)
        if path.exists():
            row_ids.update(read_chunk_manifest(path)["_row_id"].to_pylist())
        elif chunk.state == ChunkState.LANDED:
            tallies = ledger.outcomes(chunk.run_id, [chunk.id])
            uncertain += sum(
                tally.rows for outcome, tally in tallies.items() if not Outcome(outcome).never_ran
            )
        else:
            uncertain += chunk.rows
    return Outlook(frozenset(chunk.id for chunk in lost), frozenset(row_ids), uncertain)


def _lost(ledger: Ledger, folder: DatasetFolder, dataset_id: str) -> list[Chunk]:
    """Return the chunks whose rows are neither in the dataset nor to be landed from its folder by the run that sent them."""
    parts = set(Dataset(folder.data, pa.schema([]), [], []).parts())
    gone = [
        chunk for chunk in ledger.landed_chunks(dataset_id) if part_of_chunk(chunk.id) not in parts
    ]
    sent = [
        chunk for chunk in ledger.unfinished_chunks(dataset_id, "") if chunk.state in UNFINISHED
    ]
    left = [
        chunk
        for chunk in sent
        if not folder.manifest(chunk.id).exists()
        or ledger.run(chunk.run_id).state == RunPhase.CLOSED
    ]
    return [chunk for chunk in (*gone, *left) if chunk.kind == ChunkKind.BATCH]
