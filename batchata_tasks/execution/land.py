"""Landing: results to disk, outcomes to the ledger, rows to the dataset, in that order.

Each step can be repeated after a crash: the response files are byte for byte the provider's, the
part is a function of them and of the chunk's manifest, and superseding is taking keys away.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from itertools import chain
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from batchata_tasks.common.clock import now_us
from batchata_tasks.common.files import read_json, write_json
from batchata_tasks.dataset.columns import (
    chunk_of_part,
    dataset_schema,
    part_of_chunk,
    replaced_keys,
    without,
)
from batchata_tasks.dataset.manifest import SYSTEM_FIELDS, read_chunk_manifest
from batchata_tasks.dataset.parts import Dataset
from batchata_tasks.execution.bound_corrections import stop_over_bound
from batchata_tasks.execution.cleanup import discard
from batchata_tasks.execution.collect import Collector, not_sent
from batchata_tasks.execution.download import downloaded
from batchata_tasks.execution.poll import look_once
from batchata_tasks.ledger import Chunk, ChunkState
from batchata_tasks.providers import lines_with
from batchata_tasks.providers.result_lines import without_line

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from batchata_tasks.execution.run_context import BatchContext, RunContext
    from batchata_tasks.providers import BatchLook
    from batchata_tasks.types.answer import Answer

_ERRORS_KEPT = 5


def collect_and_land(context: BatchContext, chunk: Chunk) -> dict[str, int]:
    """Bring an ended batch (or rows that were never sent) home; return rows per outcome."""
    if chunk.state == ChunkState.LANDED:
        return dict(commit_of(context, chunk.id).get("outcomes", {}))
    look = look_once(context, chunk.batch_id) if chunk.batch_id is not None else None
    paths = downloaded(context, chunk, look) if look is not None else []
    outcomes = _land_answers(context, chunk, look, paths)
    if look is not None:
        discard(context, chunk, look)
    return outcomes


def _land_answers(
    context: BatchContext, chunk: Chunk, look: BatchLook | None, paths: list[Path]
) -> dict[str, int]:
    with (
        context.state.landing
    ):  # one at a time: two would rewrite the same parts, and hold two manifests
        manifest = read_chunk_manifest(context.folder.manifest(chunk.id))
        answers = chain.from_iterable(context.provider.answers(path) for path in paths)
        lines = sum(lines_with(path, chunk.id) for path in paths)
        absent, otherwise = (
            without_line(look, lines) if look is not None else (_rejected(manifest), not_sent(""))
        )
        return _land(context, chunk, manifest, answers, absent, otherwise)


def _rejected(manifest: pa.Table) -> dict[int, Answer]:
    return {i: not_sent(error) for i, error in enumerate(manifest["_error"].to_pylist())}


def _land(
    context: BatchContext,
    chunk: Chunk,
    manifest: pa.Table,
    answers: Iterator[Answer],
    absent: dict[int, Answer],
    otherwise: Answer,
) -> dict[str, int]:
    commit_path = context.folder.commit(chunk.id)
    enriched_at = (read_json(commit_path) or {}).get("enriched_at_us") or now_us()
    source = pa.schema([f for f in manifest.schema if f.name not in SYSTEM_FIELDS.names])
    columns = dataset_schema(source, context.answers.common)
    dataset = Dataset(
        context.folder.data,
        columns,
        context.spec.key,
        context.spec.carried,
        context.require_lease,
        emptying(context),
    )
    collector = Collector(
        chunk, manifest, columns, context.answers, context.taken.rates, enriched_at
    )
    errors: Counter[str] = Counter()
    replaced = replaced_keys(manifest, context.spec.key)
    before = zip(
        manifest["_prior_status"].to_pylist(), manifest["_prior_error"].to_pylist(), strict=True
    )
    errors_before = Counter(
        error[:200] for status, error in before if status is not None and error is not None
    )
    retried = Counter(
        status for status in manifest["_prior_status"].to_pylist() if status is not None
    )
    superseded = sum(cost or 0 for cost in manifest["_replaced_cost"].to_pylist())
    with dataset.part_file(dataset.data / part_of_chunk(chunk.id)) as writer:
        for batch in collector.rows(answers, absent, otherwise):
            writer.write_batch(batch)
            errors.update(text[:200] for text in batch.column("_error").drop_null().to_pylist())
        report = collector.report
        context.ledger.collect(context.lease, chunk, report.tallies, report.overhead, retried)
        if report.over_bound:
            stop_over_bound(context, chunk, report.over_bound, report.excess)
        record = _commit_record(context, chunk, enriched_at, collector, superseded, retried)
        record |= {
            "errors": dict(errors.most_common(_ERRORS_KEPT)),
            "errors_before": dict(errors_before),
        }
        write_json(commit_path, {**record, "state": "open", "replaces": sorted(replaced)})
        context.ledger.check_lease(context.lease)  # right before the part appears
    dataset.supersede(replaced)
    write_json(commit_path, {**record, "state": "closed", "replaces": sorted(replaced)})
    context.ledger.land(context.lease, chunk.id, superseded)
    return dict(record["outcomes"])


def _commit_record(
    context: BatchContext,
    chunk: Chunk,
    enriched_at: int,
    collector: Collector,
    superseded: int,
    retried: Counter[str],
) -> dict[str, Any]:
    report = collector.report
    return {
        "format": 1,
        "chunk": chunk.id,
        "run_id": chunk.run_id,
        "batch_id": chunk.batch_id,
        "ledger_id": context.ledger.id,
        "fence": context.lease.fence,
        "part": part_of_chunk(chunk.id),
        "rows": sum(t.rows for t in report.tallies.values()),
        "enriched_at_us": enriched_at,
        "outcomes": {outcome: tally.rows for outcome, tally in sorted(report.tallies.items())},
        "tallies": {outcome: asdict(tally) for outcome, tally in sorted(report.tallies.items())},
        "retried": dict(retried),
        "settled_picodollars": sum(tally.cost or 0 for tally in report.tallies.values())
        + report.overhead,
        "superseded_picodollars": superseded,
        "overhead_picodollars": report.overhead,
        "emptied": False,
        "unreadable": report.unreadable,
        "unknown_lines": report.unknown_lines,
        "doubled_lines": report.doubled_lines,
        "over_bound": report.over_bound,
        "cache_saved_picodollars": report.cache_saved,
    }


def emptying(context: RunContext) -> Callable[[str], None]:
    """Return what notes, in the ledger and beside the rows, that no row of a part is left."""

    def emptied(part: str) -> None:
        chunk_id = chunk_of_part(part)
        context.ledger.note_emptied(context.lease, chunk_id)
        path = context.folder.commit(chunk_id)
        if (commit := read_json(path)) is not None:
            write_json(path, {**commit, "emptied": True})

    return emptied


def land_again(context: BatchContext, chunk: Chunk, replaced: set[bytes]) -> bool:
    """Write a landed chunk's part anew, just as it was; False where its results are not to be had any more.

    Rows of the keys in `replaced` (digests) are left out: other parts have newer ones.
    """
    look = look_once(context, chunk.batch_id) if chunk.batch_id is not None else None
    paths = downloaded(context, chunk, look) if look is not None else []
    if look is not None and not paths:
        return False
    manifest = read_chunk_manifest(context.folder.manifest(chunk.id))
    source = pa.schema([f for f in manifest.schema if f.name not in SYSTEM_FIELDS.names])
    columns = dataset_schema(source, context.answers.common)
    enriched_at = commit_of(context, chunk.id).get("enriched_at_us", 0)
    collector = Collector(
        chunk, manifest, columns, context.answers, context.taken.rates, enriched_at
    )
    dataset = Dataset(
        context.folder.data, columns, context.spec.key, context.spec.carried, context.require_lease
    )
    answers = chain.from_iterable(context.provider.answers(path) for path in paths)
    lines = sum(lines_with(path, chunk.id) for path in paths)
    absent, otherwise = (
        without_line(look, lines) if look is not None else (_rejected(manifest), not_sent(""))
    )
    with dataset.part_file(dataset.data / part_of_chunk(chunk.id)) as writer:
        for batch in collector.rows(answers, absent, otherwise):
            writer.write_batch(without(batch, context.spec.key, replaced))
    return True


def commit_of(context: RunContext, chunk_id: str) -> dict[str, Any]:
    """Return a chunk's commit record; empty where it never landed."""
    return read_json(context.folder.commit(chunk_id)) or {}
