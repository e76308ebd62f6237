"""Landing: results to disk, outcomes to the ledger, rows to the dataset, in that order.

Each step can be repeated after a crash: the response files are the provider's, byte for byte (but
for keys that they quote), the part is a function of them and of the chunk's manifest, and
superseding is taking keys away.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from itertools import chain
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from batchata_tasks.common.clock import now_us
from batchata_tasks.common.collector import uncollected
from batchata_tasks.common.files import write_json
from batchata_tasks.dataset.columns import dataset_schema, replaced_keys, without
from batchata_tasks.dataset.declared import DeclaredSchema, Role
from batchata_tasks.dataset.manifest import SYSTEM_FIELDS, read_chunk_manifest
from batchata_tasks.dataset.packs import kept_json
from batchata_tasks.dataset.part_files import part_of_chunk
from batchata_tasks.dataset.parts import Dataset
from batchata_tasks.execution.bound_corrections import stop_over_bound
from batchata_tasks.execution.cleanup import discard
from batchata_tasks.execution.collect import Collector, not_sent
from batchata_tasks.execution.download import NoResultsError, downloaded
from batchata_tasks.execution.earlier import EarlierAnswers, RetiredValues
from batchata_tasks.execution.earlier_results import EarlierResults
from batchata_tasks.execution.forgotten import FORGOTTEN, forgotten_names
from batchata_tasks.execution.look import look_once
from batchata_tasks.execution.overdue import set_aside
from batchata_tasks.execution.reread import (
    INVALID,
    NAMED,
    REREAD,
    as_landed,
    by_schema,
    invalid_in,
    readings_of,
)
from batchata_tasks.execution.trouble import grouped, is_unreadable, start_of, stop_for_trouble
from batchata_tasks.ledger import Chunk, ChunkState
from batchata_tasks.providers import rows_named
from batchata_tasks.providers.result_lines import without_line
from batchata_tasks.types.outcome import Outcome

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

    import pyarrow.parquet as pq

    from batchata_tasks.dataset.folder import DatasetFolder
    from batchata_tasks.execution.held_dataset import HeldDataset
    from batchata_tasks.execution.run_context import BatchContext
    from batchata_tasks.providers import BatchLook
    from batchata_tasks.schema.response import ResponseSchema

_ERRORS_KEPT = 5
_ERROR_CHARS = 200


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
    # one at a time: two would rewrite the same parts, and hold two manifests in memory
    with context.run.state.landing, context.run.held.landing_alone():
        outcomes = _land(context, chunk, look, paths)
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
    part = _Part(context, chunk, enriched_at, again=True)
    with part.file() as writer:
        for batch in part.rows(look, paths):
            writer.write_batch(without(batch, context.run.spec.key, replaced))
    return True


def _results(context: BatchContext, chunk: Chunk) -> tuple[BatchLook | None, list[Path]]:
    """Return the status of a chunk's batch and its downloaded results; None without a batch."""
    if chunk.batch_id is None:
        return None, []
    return downloaded(context, chunk, look_once(context, chunk.batch_id))


class _Part:
    """The part of the dataset that a chunk's answers make, `again` if it was there and is lost."""

    def __init__(
        self, context: BatchContext, chunk: Chunk, enriched_at: int, *, again: bool = False
    ) -> None:
        self._provider = context.provider
        self._chunk = chunk
        names = forgotten_names(context.folder, context.ledger, chunk.id)
        self._forgotten = pa.array(names, pa.string())
        self.manifest = read_chunk_manifest(context.folder.manifest(chunk.id))
        spec, answers = context.run.spec, context.run.answers
        source = pa.schema([f for f in self.manifest.schema if f.name not in SYSTEM_FIELDS.names])
        # types may have been widened since it was sent, and columns have come or gone
        declared = DeclaredSchema.read(context.folder) or DeclaredSchema()
        known = declared.of((Role.KEY, Role.CARRIED))
        retired = declared.of((Role.RETIRED,))
        others = [f for f in source if f.name not in {*known.names, *retired.names}]
        self._carried, self._retired = pa.schema([*known, *others]), retired
        self._marks = declared.marks
        columns = self._columns(answers.common)
        commit, live = commit_of(context.folder, chunk.id), context.run.held.answers
        self._readings = readings_of(commit, self._columns, live)
        self._invalid: list[str] | None = commit.get(INVALID)
        self._answers, self._schema = answers, columns
        self.dataset = Dataset(
            context.folder.data,
            columns,
            spec.key,
            spec.carried,
            gate=context.require_lease,
            emptied=emptying(context.run.held),
        )
        own = part_of_chunk(chunk.id)
        in_parts = earlier = EarlierAnswers(self.dataset, self.manifest, own)
        if again and commit.get("kept", 1):
            results = EarlierResults(context, chunk, self.manifest)

            def earlier(position: int) -> dict[str, Any]:
                return in_parts(position) or results(position)

        self.collector = Collector(
            chunk,
            self.manifest,
            columns,
            answers,
            context.route.rates,
            enriched_at,
            earlier,
            RetiredValues(self.dataset, self.manifest, own, retired),
            reread=(reading.part for reading in self._readings),
        )

    def _columns(self, response: ResponseSchema | None) -> pa.Schema:
        """Return the dataset's columns under a response model."""
        return dataset_schema(self._carried, response, self._retired, marks=self._marks)

    def file(self) -> AbstractContextManager[pq.ParquetWriter]:
        """Return the file of the part, which appears when it is whole."""
        schema = self._readings[-1].schema if self._readings else self.dataset.schema
        return self.dataset.part_file(self.dataset.data / part_of_chunk(self._chunk.id), schema)

    def rows(self, look: BatchLook | None, paths: list[Path]) -> Iterator[pa.RecordBatch]:
        """Yield the rows, one for each of the chunk's requests.

        If it landed before, rows that were forgotten since are left out, no row is invalid that was
        not, and kept answers are read by the models that read them since.
        """
        landed = None if self._invalid is None else by_schema(self._answers, self._schema)
        invalid = pa.array(self._invalid or [], pa.string())
        for batch in self._collected(look, paths):
            rows = batch if landed is None else as_landed(batch, landed, invalid)
            if len(self._forgotten):
                rows = rows.filter(pc.invert(pc.is_in(rows.column("_custom_id"), self._forgotten)))
            for reading in self._readings:
                rows = reading.read(rows).rows
            yield rows

    def _collected(self, look: BatchLook | None, paths: list[Path]) -> Iterator[pa.RecordBatch]:
        if look is None:
            errors = self.manifest["_error"].to_pylist()
            absent, otherwise = {i: not_sent(e) for i, e in enumerate(errors)}, not_sent("")
        else:
            # how many lines there are matters of a batch that was stopped alone
            lines = 0
            if look.stopped is not None:
                lines = rows_named(paths, self._chunk.id) + len(self._forgotten)
            absent, otherwise = without_line(look, lines)
        answers = chain.from_iterable(self._provider.answers(path) for path in paths)
        return uncollected(self.collector.rows(answers, absent, otherwise))

    def replaced(self) -> dict[str, set[bytes]]:
        """Return the keys (digests) that the part takes out of older parts, by part."""
        return replaced_keys(self.manifest, self.dataset.key)

    def retried(self) -> Counter[str]:
        """Count the outcomes of the attempts that these rows had in this run before."""
        statuses = self.manifest["_prior_status"].to_pylist()
        return Counter(status for status in statuses if status is not None)

    def errors_before(self) -> Counter[str]:
        """Count the errors of the attempts that these rows had in this run before."""
        statuses = self.manifest["_prior_status"].to_pylist()
        errors = self.manifest["_last_error"].to_pylist()
        older = self.manifest["_prior_error"].to_pylist()  # of manifests of older versions
        prior = zip(statuses, errors, older, strict=True)
        return Counter(
            (last or before)[:_ERROR_CHARS]
            for status, last, before in prior
            if status is not None and (last or before)
        )

    def superseded(self) -> int:
        """Return what the rows had cost that these replace, in picodollars.

        That includes earlier attempts at rows whose cost is unknown now. Call it after `rows`.
        """
        replaced = sum(cost or 0 for cost in self.manifest["_replaced_cost"].to_pylist())
        return replaced + self.collector.report.superseded


def _land(
    context: BatchContext, chunk: Chunk, look: BatchLook | None, paths: list[Path]
) -> dict[str, int]:
    """Settle a chunk's money, then commit its rows. After a death it is done again."""
    commit_path, ledger = context.folder.commit(chunk.id), context.ledger
    before = commit_of(context.folder, chunk.id)
    enriched_at = before.get("enriched_at_us") or now_us()
    part = _Part(context, chunk, enriched_at)
    replaced, report = part.replaced(), part.collector.report
    errors: Counter[str] = Counter()
    invalid = list[str]()
    with part.file() as writer:
        for batch in part.rows(look, paths):
            writer.write_batch(batch)
            invalid += invalid_in(batch)
            texts = batch.column("_error").drop_null().to_pylist()
            errors.update(text[:_ERROR_CHARS] for text in texts)
        # of these the rows themselves say nothing
        errors.update(text[:_ERROR_CHARS] for _, text in report.kept.values() if text)
        invalid += [name for name, (end, _) in report.kept.items() if end is Outcome.INVALID]
        ledger.collect(context.lease, chunk, report.tallies, report.overhead, part.retried())
        if report.over_bound:
            stop_over_bound(context, chunk, report.over_bound, report.excess)
        stop_for_trouble(context, chunk, report)
        record: dict[str, Any] = {
            **_commit_record(context, chunk, part, enriched_at),
            "errors": dict(grouped(errors.items()).most_common(_ERRORS_KEPT)),
            "errors_before": dict(grouped(part.errors_before().items())),
            "replaces": sorted(replaced),
            "begins": start_of(paths) if report.broken_lines and not report.read_lines else None,
            "unreadable_batch": is_unreadable(chunk, report),
            # else nobody knows, if rows are landed again, whether a class has become stricter
            **({INVALID: invalid} if len(invalid) <= NAMED else {}),
            # rows are landed once more if the dataset's files were lost
            **{name: before[name] for name in (FORGOTTEN, REREAD) if name in before},
        }
        write_json(commit_path, {**record, "state": "open"})
        ledger.check_lease(context.lease)  # right before the part appears
    part.dataset.supersede(replaced)
    write_json(commit_path, {**record, "state": "closed"})
    ledger.land(context.lease, chunk.id, part.superseded())
    return dict(record["outcomes"])


def _commit_record(
    context: BatchContext, chunk: Chunk, part: _Part, enriched_at: int
) -> dict[str, Any]:
    report = part.collector.report
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
        "enriched_at_us": enriched_at,
        "outcomes": {outcome: tally.rows for outcome, tally in tallies},
        "tallies": {outcome: asdict(tally) for outcome, tally in tallies},
        "retried": dict(part.retried()),
        "settled_picodollars": settled,
        "superseded_picodollars": part.superseded(),
        "overhead_picodollars": report.overhead,
        "emptied": False,
        "unreadable": report.unreadable,
        "unknown_lines": report.unknown_lines,
        "doubled_lines": report.doubled_lines,
        "over_bound": report.over_bound,
        "unbelieved": report.unbelieved,
        "kept": len(report.kept),
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
