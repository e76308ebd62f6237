"""Planning: one pass over the source that decides, row by row, which are to be sent and why.

The pass is a stream: rows are read, keyed, fingerprinted and compared with the dataset; those that
need work are rendered into request bodies in the run's folder and packed into chunks. Nothing is
sent before the pass has ended, so that a duplicate key in the last row costs nothing.
"""

from __future__ import annotations

import shutil
from collections import Counter, defaultdict
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from batchata_tasks.common.canonical import canonical, key_digest
from batchata_tasks.common.errors import SourceError
from batchata_tasks.common.files import storage_errors
from batchata_tasks.dataset.columns import carried_digests
from batchata_tasks.dataset.manifest import PlanRows, PlanWriter
from batchata_tasks.planning.fingerprint import changed
from batchata_tasks.planning.packing import Packer, PlannedChunk
from batchata_tasks.planning.retry import worth_another
from batchata_tasks.planning.row_index import scratch_index
from batchata_tasks.planning.summary import Options, PlanSummary
from batchata_tasks.planning.values import python_values
from batchata_tasks.types.ids import CUSTOM_ID_CHARS, row_id
from batchata_tasks.types.outcome import ErrorCode, Outcome, describe, error_code

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from collections.abc import Set as AbstractSet
    from pathlib import Path

    from batchata_tasks.dataset.parts import LandedRow
    from batchata_tasks.planning.builder import BuiltRequest
    from batchata_tasks.planning.table import PreparedTable


class Planner:
    """One planning pass; `folder` receives the plan's files."""

    def __init__(
        self,
        table: PreparedTable,
        folder: Path,
        dataset_id: str,
        options: Options,
        progress: Callable[[int], None] = lambda _rows: None,
        claimed: AbstractSet[str] = frozenset(),
    ) -> None:
        self._table, self._folder = table, folder
        self._dataset_id, self._options = dataset_id, options
        self._progress = progress
        self._claimed = claimed  # ids of the rows whose answers are recovered
        self._spec, self._builder = table.spec, table.builder
        self.summary = PlanSummary()
        self._reasons: Counter[str] = Counter()
        self.carried: dict[str, dict[bytes, tuple[Any, ...]]] = defaultdict(dict)
        self.doubled: dict[str, set[bytes]] = defaultdict(set)  # rows to be deleted, by part
        limits = [route.provider.limits for route in table.builder.routes]
        pilot = table.spec.pilot.rows if table.spec.pilot else None
        self.packer = Packer(limits, table.spec.items_per_batch, pilot)

    def run(self, in_flight: Iterable[tuple[bytes, bool]] = ()) -> list[PlannedChunk]:
        """Make the pass; return the chunks of the plan, in order.

        `in_flight` has the keys of rows that were sent and did not land yet, and whether each is
        held.

        Raises:
            SourceError: a row cannot be used; it is named, with the remedy.
        """
        shutil.rmtree(self._folder, ignore_errors=True)
        with storage_errors("planning"):
            self._folder.mkdir(parents=True)
        table = self._table
        fields = table.source.schema(self._spec.carried)
        with scratch_index(self._folder / "index.db") as self._index:
            self._index.add_landed(table.dataset.landed())
            if self._index.landed_twice:
                self._find_doubled()
            self._index.add_in_flight(in_flight)
            with ExitStack() as files:
                names = ["plan", "local", *(["claimed"] if self._claimed else [])]
                writers = {
                    name: files.enter_context(PlanWriter(self._folder, name, fields))
                    for name in names
                }
                for block in table.source.batches(table.columns.names):
                    self._batch(block.rows, writers)
                    self._progress(self.summary.source_rows)
        return self._finish()

    def _find_doubled(self) -> None:
        """Collect the rows whose key has a newer row.

        A process that lost its hold on the dataset may have brought them back.
        """
        for digest, row in self._table.dataset.landed():
            newest = self._index.landed(digest)
            if newest is not None and newest.part != row.part:
                self.doubled[row.part].add(digest)

    def _finish(self) -> list[PlannedChunk]:
        spans = self.packer.finish()
        summary = self.summary
        summary.reasons = dict(sorted(self._reasons.items()))
        summary.requests = sum(span.stop - span.start for span in spans)
        summary.batches = len(spans)
        routes = self._builder.routes
        summary.factors = {route.destination.key: route.factor for route in routes}
        if spans:
            priced = all(routes[span.route].rates is not None for span in spans)
        else:
            priced = any(route.rates for route in routes)
        summary.bound = sum(span.bound for span in spans) if priced else None
        pilot = self._spec.pilot.rows if self._spec.pilot is not None else 0
        summary.pilot = pilot if summary.requests > pilot else 0
        summary.carried = sum(len(rows) for rows in self.carried.values())
        return spans

    def _batch(self, batch: pa.RecordBatch, writers: Mapping[str, PlanWriter]) -> None:
        first = self.summary.source_rows + 1
        self.summary.source_rows += batch.num_rows
        values = {name: python_values(batch, name, first) for name in batch.schema.names}
        rows = [dict(zip(values, row, strict=True)) for row in zip(*values.values(), strict=True)]
        keeps = self._builder.keeps
        places = [i for i, row in enumerate(rows) if keeps(row, self._namer(row, first + i))]
        self.summary.filtered += len(rows) - len(places)
        if len(places) < len(rows):
            batch, rows = batch.take(pa.array(places, pa.int64())), [rows[i] for i in places]
        numbers = [first + i for i in places]
        keys = [canonical([row[name] for name in self._spec.key]) for row in rows]
        digests = self._checked(rows, numbers, keys)
        picked = {name: PlanRows() for name in writers}
        source_rows = batch.select(self._spec.carried)
        if self._index.landed_rows:
            carried = carried_digests(batch, self._table.dataset.carried)
        else:
            carried = [b""] * len(rows)
        for i, row in enumerate(rows):
            planned = self._row(row, keys[i], digests[i], carried[i], self._namer(row, numbers[i]))
            if planned is not None:
                name, system, body = planned
                if picked[name].add(i, system, body):
                    picked[name].write(writers[name], source_rows)
                    picked[name] = PlanRows()
        for name, rows_of_plan in picked.items():
            rows_of_plan.write(writers[name], source_rows)

    def _namer(self, row: Mapping[str, Any], number: int) -> Callable[[], str]:
        """Return a function that names a row in an error, by its number and its key."""
        return lambda: f"row {number} ({self._key_of(row)})"

    def _key_of(self, row: Mapping[str, Any]) -> str:
        return ", ".join(f"{name}={row[name]!r}" for name in self._spec.key)

    def _checked(
        self, rows: list[dict[str, Any]], numbers: list[int], keys: list[bytes]
    ) -> list[bytes]:
        """Refuse null and duplicate keys; return the digests of the keys."""
        for row, number in zip(rows, numbers, strict=True):
            for name in self._spec.key:
                if row[name] is None:
                    where = f"key: {name!r} is null in row {number} of the source"
                    message = f"{where}; fill it in, or leave such rows out with `where`."
                    raise SourceError(message)
        digests = [key_digest(key) for key in keys]
        double = self._index.first_double(digests, numbers)
        if double is not None:
            number, earlier, place = double
            key = self._key_of(rows[place])
            same = f"key: rows {earlier} and {number} of the source have the same key ({key})"
            message = f"{same}; keys must be unique: fix the source, or add a column to `key`."
            raise SourceError(message)
        return digests

    def _row(
        self,
        row: Mapping[str, Any],
        key: bytes,
        digest: bytes,
        carried: bytes,
        where: Callable[[], str],
    ) -> tuple[str, dict[str, Any], bytes] | None:
        """Decide on one row; return what is to be written to which plan, if anything is."""
        summary, builder = self.summary, self._builder
        if self._spec.on_null in ("error", "skip") and (
            (null := builder.null_column(row)) is not None
        ):
            if self._spec.on_null == "skip":
                summary.null_skipped += 1
                return None
            reason = f"on_null: the column {null!r} that the templates use is null in {where()}"
            message = f"{reason}; fill it in, or set `on_null` to pass, empty or skip."
            raise SourceError(message)
        fingerprint, landed = builder.fingerprint(row), self._index.landed(digest)
        if self._index.in_flight(digest):
            summary.in_flight += 1
            summary.held += self._index.held(digest)
            return None
        request_id = row_id(self._dataset_id, key, fingerprint)
        if request_id in self._claimed:
            summary.recovered += 1
            return self._request(builder.build(row, where), request_id, fingerprint, None, landed)
        reason = self._reason(fingerprint, landed)
        if reason is None:
            if landed is not None and landed.carried != carried:
                values = tuple(row[name] for name in self._table.dataset.carried)
                self.carried[landed.part][digest] = values
            return None
        if self._spec.limit is not None and sum(self._reasons.values()) >= self._spec.limit:
            summary.over_limit += 1
            return None
        self._reasons[reason] += 1
        failed = landed if reason == "failed" else None
        return self._request(builder.build(row, where), request_id, fingerprint, failed, landed)

    def _request(
        self,
        request: BuiltRequest,
        request_id: str,
        fingerprint: str,
        failed: LandedRow | None,
        landed: LandedRow | None,
    ) -> tuple[str, dict[str, Any], bytes]:
        """Return (plan, system fields, body) of a row that is to be sent.

        `failed` is the row of an attempt that is made again.
        """
        shape, route = request.shape, self._builder.routes[request.route]
        again = None
        if failed is not None:
            again = route.again(request.body, shape, failed.status, failed.error, failed.attempts)
        body, bound = again or (request.body, route.bound(request.body, shape))
        size = route.provider.framing.size(CUSTOM_ID_CHARS, body)
        system = _system_fields(request_id, fingerprint, landed) | {
            "_changed": again is not None,
            "_prior_error": landed.error if landed is not None else None,
            "_bytes": size,
            "_bound": bound,
            "_error": None,
            "_cap": shape.cap,
            "_turns": shape.turns,
            "_schema": shape.schema,
            "_attached": shape.attached,
        }
        if request_id in self._claimed:
            return "claimed", system, body
        if self.packer.fits_alone(size, request.route):
            self.packer.add(size, bound, request.route)
            self.summary.least = min(self.summary.least or bound, bound)
            return "plan", system, body
        self.summary.too_large += 1
        text = f"the request has {size:,} bytes; one batch holds {route.provider.limits.bytes:,}"
        system |= {"_error": describe(ErrorCode.TOO_LARGE, text), "_bound": 0}
        return "local", system, b"{}"

    def _reason(self, fingerprint: str, landed: LandedRow | None) -> str | None:
        """Return why a row is to be sent; None if it is not, which the summary then counts."""
        summary = self.summary
        if landed is None:
            return self._wanted("new")
        refresh = self._options.refresh_before
        if refresh is not None and landed.enriched_at < refresh:
            return "refresh"
        if parts := changed(landed.fingerprint, fingerprint):
            return self._wanted(*parts)
        if landed.status == Outcome.SUCCEEDED:
            summary.up_to_date += 1
            return None
        again = worth_another(landed.status, landed.error, landed.attempts, self._spec.max_attempts)
        if not again and not self._options.retry_failed:
            summary.exhausted += 1
            return None
        # what met trouble of the account was not tried, so `rerun_on` has no say in it
        untried = error_code(landed.error) is ErrorCode.ACCOUNT
        return "failed" if untried else self._wanted("failed")

    def _wanted(self, *reasons: str) -> str | None:
        """Return the first of these reasons for which the spec sends rows again."""
        for reason in reasons:
            if reason in self._spec.rerun_on:
                return reason
        self.summary.not_asked += 1
        return None


def _system_fields(request_id: str, fingerprint: str, landed: LandedRow | None) -> dict[str, Any]:
    """Return a planned row's ids, and what earlier attempts at it used and cost."""
    same = landed is not None and landed.fingerprint == fingerprint
    prior = landed if same else None
    return {
        "_row_id": request_id,
        "_fingerprint": fingerprint,
        "_replaces": landed.part if landed is not None else None,
        "_prior_attempts": prior.attempts if prior else 0,
        "_prior_input_tokens": prior.input_tokens if prior else 0,
        "_prior_output_tokens": prior.output_tokens if prior else 0,
        "_prior_cache_read_tokens": prior.cache_read_tokens if prior else 0,
        "_prior_cost": prior.cost if prior else 0,
        "_replaced_cost": landed.cost if landed is not None and not same else 0,
    }
