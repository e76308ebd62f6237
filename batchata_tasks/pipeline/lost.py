"""Chunks whose files are gone, and batches in flight, by what is known without the provider."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from batchata_tasks.common.money import total
from batchata_tasks.dataset.columns import keys_of
from batchata_tasks.dataset.manifest import read_chunk_manifest
from batchata_tasks.dataset.packs import is_kept
from batchata_tasks.dataset.part_files import part_of_chunk
from batchata_tasks.dataset.parts import Dataset
from batchata_tasks.execution.land import commit_of
from batchata_tasks.execution.reread import reread_parts
from batchata_tasks.ledger import UNFINISHED, ChunkKind, ChunkState, RunPhase
from batchata_tasks.planning.fingerprint import with_schema
from batchata_tasks.types.ids import custom_id, row_ids
from batchata_tasks.types.outcome import Outcome

if TYPE_CHECKING:
    from collections.abc import Container, Iterable

    from batchata_tasks.dataset.folder import DatasetFolder
    from batchata_tasks.ledger import Chunk, Ledger


@dataclass(frozen=True)
class LostChunks:
    """Chunks whose rows are not in the dataset, and which their own run does not land."""

    parts: list[Chunk]  # landed; only the part is gone
    landed: list[Chunk]  # landed; part and manifest are gone
    unfinished: list[Chunk]  # sent; the manifest is gone, or the run is closed


def lost_chunks(ledger: Ledger, folder: DatasetFolder, dataset_id: str) -> LostChunks:
    """Return the chunks of a dataset that are lost.

    Those of closed runs are: an earlier recovery began with them, and died, so nobody else would
    land them.
    """
    parts = parts_of(folder)
    gone = [c for c in ledger.landed_chunks(dataset_id) if part_of_chunk(c.id) not in parts]
    return LostChunks(
        parts=[chunk for chunk in gone if is_kept(folder.manifest(chunk.id))],
        landed=[chunk for chunk in gone if not is_kept(folder.manifest(chunk.id))],
        unfinished=[
            chunk
            for chunk in sent_chunks(ledger, dataset_id)
            if not is_kept(folder.manifest(chunk.id))
            or ledger.run(chunk.run_id).state == RunPhase.CLOSED
        ],
    )


def sent_chunks(ledger: Ledger, dataset_id: str) -> list[Chunk]:
    """Return the chunks of a dataset that were sent, or may have been, and have not landed."""
    chunks = ledger.unfinished_chunks(dataset_id, "")
    return [chunk for chunk in chunks if chunk.state in UNFINISHED]


def parts_of(folder: DatasetFolder) -> set[str]:
    """Return the names of the parts whose rows a dataset has, merged into others or not."""
    return set(Dataset(folder.data, pa.schema([]), [], []).holders())


@dataclass(frozen=True)
class LostRows:
    """The rows of lost batches: ids if the manifest is there, else only their number.

    Of `uncertain_rows`, `open_rows` are of batches whose results never came.
    """

    chunks: frozenset[str] = frozenset()
    row_ids: frozenset[str] = frozenset()
    uncertain_rows: int = 0
    open_rows: int = 0


def lost_rows(
    ledger: Ledger,
    folder: DatasetFolder,
    dataset_id: str,
    key: list[str],
    but_runs: Container[str] = (),
    reread: Iterable[str] = (),
) -> LostRows:
    """Return the rows that `recover` would look up again. Nothing is written.

    `reread` are the models, by their parts of fingerprints, by which they are read then.
    """
    lost = lost_chunks(ledger, folder, dataset_id)
    found = (*lost.parts, *lost.landed, *lost.unfinished)
    chunks = [c for c in found if c.kind == ChunkKind.BATCH and c.run_id not in but_runs]
    ids_known, uncertain_rows, open_rows = set[str](), 0, 0
    for chunk in chunks:
        has_landed = chunk.state == ChunkState.LANDED
        ran = _rows_that_ran(ledger, chunk) if has_landed else chunk.rows
        if is_kept(folder.manifest(chunk.id)):
            if ran:
                ids_known |= _row_ids(ledger, folder, chunk, key, reread)
        elif has_landed:
            uncertain_rows += ran
        else:
            open_rows += chunk.rows
    ids = frozenset(chunk.id for chunk in chunks)
    return LostRows(ids, frozenset(ids_known), uncertain_rows + open_rows, open_rows)


def _rows_that_ran(ledger: Ledger, chunk: Chunk) -> int:
    """Return how many rows of a landed chunk have results, or may have."""
    totals = ledger.outcomes(chunk.run_id, [chunk.id])
    return sum(one.rows for outcome, one in totals.items() if not Outcome(outcome).never_ran)


def _row_ids(
    ledger: Ledger, folder: DatasetFolder, chunk: Chunk, key: list[str], reread: Iterable[str]
) -> set[str]:
    """Return the ids of a chunk's requests, also under the models that read its answers anew.

    Those that were forgotten are none: their rows do not come back.
    """
    rows = read_chunk_manifest(folder.manifest(chunk.id))
    rows = rows.filter(pc.is_null(rows["_batchata_left"]))
    if forgotten := ledger.forgotten(chunk.id):
        names = [custom_id(chunk.id, row_id) for row_id in rows["_row_id"].to_pylist()]
        rows = rows.filter(pa.array([name not in forgotten for name in names], pa.bool_()))
    ids = set[str](rows["_row_id"].to_pylist())
    if parts := {*reread_parts(commit_of(folder, chunk.id)), *reread}:
        keys, prints = keys_of(rows, key), rows["_fingerprint"].to_pylist()
        for part in parts:
            other = [with_schema(text, part) for text in prints]
            ids.update(row_ids(chunk.dataset_id, keys, other))
    return ids


@dataclass(frozen=True)
class InFlight:
    """Batches that were sent, or may have been, and whose cost is unknown yet.

    `bound` is what is reserved for them, `expected` their likely cost, in picodollars; None without
    a known price.
    """

    batches: int = 0
    bound: int | None = 0
    expected: int | None = 0

    def without(self, part: InFlight) -> InFlight:
        """Return what remains without a part of these batches."""
        return InFlight(
            self.batches - part.batches,
            _less(self.bound, part.bound),
            _less(self.expected, part.expected),
        )


def _less(whole: int | None, part: int | None) -> int | None:
    return None if whole is None or part is None else whole - part


def in_flight(chunks: Iterable[Chunk]) -> InFlight:
    """Return what is in flight of unfinished chunks: all but those that were settled."""
    sent = [chunk for chunk in chunks if chunk.state != ChunkState.COLLECTED]
    bound = total(chunk.bound for chunk in sent)
    return InFlight(len(sent), bound, total(chunk.expected for chunk in sent))
