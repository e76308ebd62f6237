"""Landing: results to disk, outcomes to the ledger, rows to the dataset, in that order.

Each step can be repeated after a crash: the response files are the provider's, byte for byte (but
for keys that they quote), the part is a function of them and of the chunk's manifest, and
superseding is taking keys away.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from batchata_tasks.common.clock import now_us
from batchata_tasks.common.files import gone_if_failed, put_in_place, write_json
from batchata_tasks.dataset.columns import replaced_keys, without
from batchata_tasks.dataset.manifest import read_chunk_manifest, write_manifest
from batchata_tasks.dataset.packs import kept_json
from batchata_tasks.dataset.part_files import part_of_chunk
from batchata_tasks.dataset.parts import Dataset
from batchata_tasks.execution.as_ordered import as_ordered
from batchata_tasks.execution.bound_corrections import stop_over_bound
from batchata_tasks.execution.cleanup import discard
from batchata_tasks.execution.contexts import is_read_alike
from batchata_tasks.execution.download import NoResultsError, downloaded
from batchata_tasks.execution.forgotten import FORGOTTEN, forgotten_names
from batchata_tasks.execution.look import look_once
from batchata_tasks.execution.made_part import ChunkPart, MadePart, make_part
from batchata_tasks.execution.overdue import set_aside
from batchata_tasks.execution.reread import INVALID, REREAD
from batchata_tasks.execution.run_ref import PartOrder
from batchata_tasks.execution.trouble import is_unreadable, start_of, stop_for_trouble
from batchata_tasks.ledger import Chunk, ChunkState

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from batchata_tasks.dataset.folder import DatasetFolder
    from batchata_tasks.execution.held_dataset import HeldDataset
    from batchata_tasks.execution.run_context import BatchContext
    from batchata_tasks.providers import BatchLook


def collect_and_land(context: BatchContext, chunk: Chunk) -> dict[str, int]:
    """Land an ended batch, or rows that were never sent; return the number of rows per outcome.

    A batch whose results are not found, although they should be there, becomes overdue: no row
    lands, and none is sent again.

    Raises:
        NoResultsError: it was overdue before.
    """
    if chunk.state == ChunkState.LANDED:
        return dict(commit_of(context.folder, chunk.id).get("outcomes", {}))
    try:
        look, paths = _results(context, chunk)
    except NoResultsError as error:
        if chunk.state != ChunkState.SUBMITTED:
            raise
        set_aside(context, chunk, str(error), lacks_results=True)
        return {}
    made = _made_elsewhere(context, chunk, look)
    # one at a time: two would rewrite the same parts, and hold two manifests in memory
    with context.run.state.landing, context.run.held.landing_alone():
        outcomes = _land(context, chunk, look, paths, made)
    if look is not None:
        discard(context, chunk, look)
    return outcomes


def land_again(context: BatchContext, chunk: Chunk, replaced: set[bytes]) -> bool:
    """Write a landed chunk's part anew, just as it was; return False if its results are gone.

    Rows of the keys in `replaced` (digests) are left out: other parts have newer ones.
    """
    look, paths = _results(context, chunk)
    if look is not None and not paths:
        return False
    enriched_at = commit_of(context.folder, chunk.id).get("enriched_at_us", 0)
    part = ChunkPart(context, chunk, enriched_at, again=True)
    with part.file() as writer:
        for batch in part.rows(look, paths):
            writer.write_batch(without(batch, context.run.spec.key, replaced))
    return True


def _results(context: BatchContext, chunk: Chunk) -> tuple[BatchLook | None, list[Path]]:
    """Return the status of a chunk's batch and its downloaded results; None without a batch."""
    if chunk.batch_id is None:
        return None, []
    return downloaded(context, chunk, look_once(context, chunk.batch_id))


def _land(
    context: BatchContext,
    chunk: Chunk,
    look: BatchLook | None,
    paths: list[Path],
    made: MadePart | None,
) -> dict[str, int]:
    """Settle a chunk's money, then commit its rows. After a death it is done again."""
    if made is None:
        # as an earlier try had it that came far enough to tell
        landed_at = commit_of(context.folder, chunk.id).get("enriched_at_us") or now_us()
        made = make_part(context, chunk, look, paths, landed_at)
    with gone_if_failed(made.file):
        return _commit(context, chunk, made, paths)


def _made_elsewhere(context: BatchContext, chunk: Chunk, look: BatchLook | None) -> MadePart | None:
    """Return a chunk's part as another process made it; None if this one is to make it.

    Rows that landed before are made here: that they stay as they were needs what this process has.
    """
    run = context.run
    makes, is_first = run.held.makes_parts, not commit_of(run.folder, chunk.id)
    if makes is None or look is None or not is_first or not is_read_alike(run):
        return None
    if forgotten_names(run.folder, run.ledger, chunk.id):
        return None  # seldom, and then its rows are fewer than it adds up
    order = PartOrder(chunk.id, look, now_us(), run.answers.code)
    values = makes(run.ref, order)
    return None if values is None else as_ordered(context, chunk, order, values)


def _commit(
    context: BatchContext, chunk: Chunk, made: MadePart, paths: list[Path]
) -> dict[str, int]:
    """Settle a chunk by what its part adds up to, and let the part appear."""
    if made.left_at:
        _note_left(context, chunk, made)
    commit_path, ledger, report = context.folder.commit(chunk.id), context.ledger, made.report
    before = commit_of(context.folder, chunk.id)
    ledger.collect(context.lease, chunk, report.tallies, report.overhead, made.retried)
    if report.over_bound:
        stop_over_bound(context, chunk, report.over_bound, report.excess)
    stop_for_trouble(context, chunk, report)
    record: dict[str, Any] = {
        **_commit_record(context, chunk, made),
        "errors": made.errors,
        "errors_before": made.errors_before,
        "replaces": made.replaces,
        "begins": start_of(paths) if report.broken_lines and not report.read_lines else None,
        "unreadable_batch": is_unreadable(chunk, report),
        # else nobody knows, if rows are landed again, whether a class has become stricter
        **({} if made.invalid is None else {INVALID: made.invalid}),
        # rows are landed once more if the dataset's files were lost
        **{name: before[name] for name in (FORGOTTEN, REREAD) if name in before},
    }
    write_json(commit_path, {**record, "state": "open"})
    ledger.check_lease(context.lease)  # right before the part appears
    if record["emptied"]:
        made.file.unlink()
    else:
        put_in_place(made.file, context.folder.data / record["part"], context.require_lease)
    if made.replaces:
        _supersede(context, chunk)
    write_json(commit_path, {**record, "state": "closed"})
    ledger.land(context.lease, chunk.id, made.superseded, emptied=record["emptied"])
    return dict(record["outcomes"])


def _note_left(context: BatchContext, chunk: Chunk, made: MadePart) -> None:
    """Note in a chunk's manifest which of its rows stay in an older part, before it lands.

    Whoever reads that later leaves them there.
    """
    path = context.folder.manifest(chunk.id)
    rows = read_chunk_manifest(path)
    left: list[str | None] = [None] * rows.num_rows
    for position, text in zip(made.left_at, made.left_as, strict=True):
        left[position] = text
    place, field = (
        rows.schema.get_field_index("_batchata_left"),
        pa.field("_batchata_left", pa.string()),
    )
    context.require_lease()
    write_manifest(path, rows.set_column(place, field, pa.array(left, field.type)))


def _supersede(context: BatchContext, chunk: Chunk) -> None:
    """Take the keys of a chunk's rows out of older parts."""
    spec, folder = context.run.spec, context.folder
    gate, emptied = context.require_lease, emptying(context.run.held)
    dataset = Dataset(folder.data, pa.schema([]), spec.key, spec.carried, gate, emptied)
    dataset.supersede(replaced_keys(read_chunk_manifest(folder.manifest(chunk.id)), spec.key))


def _commit_record(context: BatchContext, chunk: Chunk, made: MadePart) -> dict[str, Any]:
    report = made.report
    tallies = sorted(report.tallies.items())
    settled = sum(tally.cost or 0 for _, tally in tallies) + report.overhead
    return {
        "format": 1,
        "chunk": chunk.id,
        "run_id": chunk.run_id,
        "batch_id": chunk.batch_id,
        "ledger_id": context.ledger.id,
        "fence": context.lease.fence,
        "part": part_of_chunk(chunk.id),
        "rows": sum(tally.rows for _, tally in tallies),
        "enriched_at_us": made.enriched_at,
        "outcomes": {outcome: tally.rows for outcome, tally in tallies},
        "tallies": {outcome: asdict(tally) for outcome, tally in tallies},
        "retried": made.retried,
        "settled_picodollars": settled,
        "superseded_picodollars": made.superseded,
        "overhead_picodollars": report.overhead,
        "emptied": len(made.left_at) == chunk.rows,
        "unreadable": report.unreadable,
        "unknown_lines": report.unknown_lines,
        "doubled_lines": report.doubled_lines,
        "over_bound": report.over_bound,
        "unbelieved": report.unbelieved,
        "kept": made.kept,
        "left": len(made.left_at),
        "account": report.account,
        "answered": report.answered,
        "account_error": report.account_error,
        "read_lines": report.read_lines,
        "broken_lines": report.broken_lines,
        "cache_saved_picodollars": report.cache_saved,
    }


def emptying(held: HeldDataset) -> Callable[[list[str]], None]:
    """Return a function that notes, in ledger and commits, that no row is left of chunks."""

    def emptied(chunk_ids: list[str]) -> None:
        held.ledger.note_emptied(held.lease, chunk_ids)
        held.unpack_commits(chunk_ids)
        for chunk_id in chunk_ids:
            path = held.folder.commit(chunk_id)
            commit = kept_json(path)
            if commit is not None and not commit.get("emptied"):
                held.require_lease()
                write_json(path, {**commit, "emptied": True})

    return emptied


def commit_of(folder: DatasetFolder, chunk_id: str) -> dict[str, Any]:
    """Return a chunk's commit record; empty if it never landed."""
    return kept_json(folder.commit(chunk_id)) or {}
