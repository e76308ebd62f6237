"""Taking a row and its texts out of a dataset's folder; what it cost stays counted.

Each step can be done again, so that a command which died half-way is simply given again: money
moves first, and a manifest, which leads to the row's request and answer, is the last file of its
chunk to be written anew.
"""

from __future__ import annotations

from collections import defaultdict
from itertools import chain
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from batchata_tasks.common.canonical import key_digest, key_digests
from batchata_tasks.common.files import storage_errors, write_json
from batchata_tasks.common.money import pico_from_usd
from batchata_tasks.dataset.columns import keys_of
from batchata_tasks.dataset.manifest import (
    has_plan,
    plan_rows,
    read_chunk_manifest,
    write_manifest,
)
from batchata_tasks.dataset.packs import kept_files, kept_json
from batchata_tasks.dataset.raw_files import batch_files, job_files
from batchata_tasks.execution.forgotten import FORGOTTEN, forgotten_names, without_lines
from batchata_tasks.execution.held import ANSWER
from batchata_tasks.execution.lost_files import commit_of_landed
from batchata_tasks.execution.overdue import WHY
from batchata_tasks.ledger import ChunkState
from batchata_tasks.spec.jobs import JOB_ID
from batchata_tasks.types.ids import TOKEN_CHARS, custom_id

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Iterator, Mapping

    from batchata_tasks.dataset.folder import DatasetFolder
    from batchata_tasks.dataset.parts import Dataset
    from batchata_tasks.execution.held_dataset import HeldDataset

_UNSAID: dict[str, Any] = {"errors": {}, "errors_before": {}, "begins": None}


def take_out(
    held: HeldDataset, dataset: Dataset, digests: Container[bytes], parts: Iterable[str]
) -> int:
    """Take rows of some keys (their digests) out of parts; return how many rows there were."""
    taken = 0
    for part in parts:
        keys, costs = set[bytes](), defaultdict[str, dict[str, int]](dict)
        for digest, name, cost in _rows(dataset, part, digests):
            keys.add(digest)
            taken += 1
            if name is not None:
                costs[name[:TOKEN_CHARS]][name] = cost
        held.unpack_commits(costs)
        for chunk_id, rows in costs.items():
            _supersede(held, chunk_id, rows)
        if keys:
            dataset.supersede({part: keys})
    return taken


def _rows(
    dataset: Dataset, part: str, digests: Container[bytes]
) -> Iterator[tuple[bytes, str | None, int]]:
    """Yield (key's digest, custom_id, cost in picodollars) of the rows of some keys in a part."""
    for batch in dataset.part_rows(part, [*dataset.key, "_custom_id", "_cost_usd"]):
        own = key_digests(keys_of(batch, dataset.key))
        places = [place for place, digest in enumerate(own) if digest in digests]
        rows = batch.take(pa.array(places, pa.int64()))
        columns = (rows.column(name).to_pylist() for name in ("_custom_id", "_cost_usd"))
        for place, name, cost in zip(places, *columns, strict=True):
            yield own[place], name, 0 if cost is None else pico_from_usd(cost)


def _supersede(held: HeldDataset, chunk_id: str, costs: Mapping[str, int]) -> None:
    """Count what rows of a chunk cost as that of rows which are in the dataset no more.

    `costs` has it by custom_id. Each row counts once, however often that is asked for.
    """
    held.ledger.forget(held.lease, chunk_id, costs)
    _note(held, chunk_id)


def _note(held: HeldDataset, chunk_id: str, **facts: Any) -> None:
    """Let the commit of a chunk say what the ledger knows of its forgotten rows."""
    if (commit := commit_of_landed(held, chunk_id)) is not None:
        amount = held.ledger.amounts(chunk_id)["superseded"]
        names = forgotten_names(held.folder, held.ledger, chunk_id)
        change = {**facts, "superseded_picodollars": amount, FORGOTTEN: names}
        held.require_lease()
        write_json(held.folder.commit(chunk_id), commit | change)


def chunks_with(
    held: HeldDataset, key: list[str], digest: bytes
) -> Iterator[tuple[str, list[int]]]:
    """Yield the chunks whose manifests have a key, with the places of its rows."""
    for path in kept_files(held.folder.intents, "*.arrow"):
        rows = read_chunk_manifest(path)
        places = [i for i, one in enumerate(keys_of(rows, key)) if key_digest(one) == digest]
        if places:
            yield path.stem, places


def is_planned(held: HeldDataset, key: list[str], digest: bytes) -> bool:
    """Whether a key is in the plan of an unfinished run, which has not sent it."""
    if (run := held.ledger.open_run(held.lease.dataset_id)) is None:
        return False
    plan, chunks = held.folder.run_folder(run.id), held.ledger.chunks(run.id, (ChunkState.PLANNED,))
    blocks = chain.from_iterable(plan_rows(plan, chunk) for chunk in chunks)
    return has_plan(plan, chunks) and any(
        digest in key_digests(keys_of(block, key)) for block in blocks
    )


def drop_texts(held: HeldDataset, chunk_id: str, places: list[int]) -> int:
    """Take rows of a chunk, by their places in its manifest, out of its files.

    Return how many files were written anew.
    """
    folder, path = held.folder, held.folder.manifest(chunk_id)
    held.packing.unpack(folder.files_of(chunk_id))  # so that no pack has a text of it any more
    rows = read_chunk_manifest(path)
    ids = rows["_row_id"].to_pylist()
    names = [custom_id(chunk_id, ids[place]) for place in places]
    held.require_lease()  # a stopped process may wake up after another one took the dataset over
    written = 1
    for raw in (folder.requests, folder.responses):
        for file in sorted(raw.glob(f"{chunk_id}*")):
            written += without_lines(file, names)
    written += _drop_copies(folder, rows.take(pa.array(places, pa.int64())), names)
    intent = kept_json(folder.intent(chunk_id)) or {}
    if quoting := {ANSWER, WHY} & intent.keys():  # what a provider said of the batch
        facts = {name: value for name, value in intent.items() if name not in quoting}
        write_json(folder.intent(chunk_id), facts)
    held.ledger.note_forgotten(held.lease, names)
    _note(held, chunk_id, **_UNSAID)  # what validators said, and how results begin, may quote it
    kept = [place for place in range(len(ids)) if place not in places]
    held.require_lease()
    write_manifest(path, rows.take(pa.array(kept, pa.int64())).combine_chunks())
    return written


def _drop_copies(folder: DatasetFolder, rows: pa.Table, names: list[str]) -> int:
    """Take rows out of the copies that a Batch keeps for people; return how many files had them."""
    written = sum(without_lines(path, names) for path in batch_files(folder))
    jobs = rows[JOB_ID].to_pylist() if JOB_ID in rows.column_names else []
    for path in [path for job_id in jobs for path in job_files(folder, str(job_id))]:
        with storage_errors(f"deleting {path.name}"):
            written += path.exists()
            path.unlink(missing_ok=True)
    return written
