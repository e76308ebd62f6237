"""Planning: one pass over the source that decides, row by row, what is to be sent and why.

The pass is a stream: rows are read, keyed, fingerprinted and compared with the dataset; those that
need work are rendered into request bodies in the run's folder and packed into spans. Nothing is
sent before it has ended, so that a double key in the last row costs nothing.
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
from batchata_tasks.types.ids import CUSTOM_ID_CHARS, row_id
from batchata_tasks.types.outcome import ErrorCode, Outcome, describe

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from collections.abc import Set as AbstractSet
    from pathlib import Path

    from batchata_tasks.dataset.parts import LandedRow
    from batchata_tasks.planning.builder import BuiltRequest
    from batchata_tasks.planning.table import Table


class Planner:
    """One planning pass; `folder` receives the plan's files."""

    def __init__(
        self,
        table: Table,
        folder: Path,
        dataset_id: str,
        options: Options,
        progress: Callable[[int], None] = lambda _rows: None,
        claimed: AbstractSet[str] = frozenset(),
    ) -> None:
        self._table, self._folder = table, folder
        self._dataset_id, self._options, self._progress = dataset_id, options, progress
        self._claimed = claimed  # rows for which an answer is at hand already
        self._spec, self._builder = table.spec, table.builder
        self.summary = PlanSummary()
        self._reasons: Counter[str] = Counter()
        self.carried: dict[str, dict[bytes, tuple[Any, ...]]] = defaultdict(dict)
        self.doubled: dict[str, set[bytes]] = defaultdict(set)  # rows to be taken out, by part
        limits = [route.provider.limits for route in table.builder.routes]
        self.packer = Packer(
            limits, table.spec.items_per_batch, table.spec.pilot.rows if table.spec.pilot else None
        )

    def run(self, in_flight: Iterable[bytes] = ()) -> list[PlannedChunk]:
        """Make the pass; return the spans of the plan, in order.

        Raises:
            SourceError: a row cannot be used; it is named, with the remedy.
        """
        shutil.rmtree(self._folder, ignore_errors=True)
        with storage_errors("planning"):
            self._folder.mkdir(parents=True)
        table, fields = (
            self._table,
            pa.schema([self._table.source.schema.field(n) for n in self._spec.carried]),
        )
        with scratch_index(self._folder / "index.db") as self._index:
            self._index.add_landed(table.dataset.landed())
            if self._index.landed_twice:
                self._find_doubled()
            self._index.add_in_flight(in_flight)
            columns = self._builder.columns_needed(table.source.schema.names)
            with ExitStack() as files:
                names = ["plan", "local", *(["claimed"] if self._claimed else [])]
                writers = {
                    name: files.enter_context(PlanWriter(self._folder, name, fields))
                    for name in names
                }
                for batch in table.source.batches(columns):
                    self._batch(batch, writers)
                    self._progress(self.summary.source_rows)
        return self._finish()

    def _find_doubled(self) -> None:
        """Note the rows whose key has a newer row: a process that lost the dataset may have brought them back."""
        for digest, row in self._table.dataset.landed():
            if (newest := self._index.landed(digest)) is not None and newest.part != row.part:
                self.doubled[row.part].add(digest)

    def _finish(self) -> list[PlannedChunk]:
        spans = self.packer.finish()
        summary = self.summary
        summary.reasons = dict(sorted(self._reasons.items()))
        summary.requests = sum(span.stop - span.start for span in spans)
        summary.batches = len(spans)
        routes = self._builder.routes
        summary.factors = {route.destination.key: route.factor for route in routes}
        priced = (
            all(routes[span.route].rates is not None for span in spans)
            if spans
            else any(route.rates for route in routes)
        )
        summary.bound = sum(span.bound for span in spans) if priced else None
        pilot = self._spec.pilot.rows if self._spec.pilot is not None else 0
        summary.pilot = pilot if summary.requests > pilot else 0
        summary.carried = sum(len(rows) for rows in self.carried.values())
        return spans

    def _batch(self, batch: pa.RecordBatch, writers: Mapping[str, PlanWriter]) -> None:
        first = self.summary.source_rows + 1
        self.summary.source_rows += batch.num_rows
        values = {name: _values(batch, name, first) for name in batch.schema.names}
        rows = [dict(zip(values, row, strict=True)) for row in zip(*values.values(), strict=True)]
        kept = [
            i for i, row in enumerate(rows) if self._builder.keeps(row, self._namer(row, first + i))
        ]
        self.summary.filtered += len(rows) - len(kept)
        if len(kept) < len(rows):
            batch, rows = batch.take(pa.array(kept, pa.int64())), [rows[i] for i in kept]
        numbers = [first + i for i in kept]
        keys = [canonical([row[name] for name in self._spec.key]) for row in rows]
        digests = self._checked(rows, numbers, keys)
        picked, source_rows = (
            {name: PlanRows() for name in writers},
            batch.select(self._spec.carried),
        )
        carried = (
            carried_digests(batch, self._table.dataset.carried)
            if self._index.landed_rows
            else [b""] * len(rows)
        )
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
        """Return what names a row in an error: its number and its key."""
        return lambda: (
            f"row {number} ({', '.join(f'{name}={row[name]!r}' for name in self._spec.key)})"
        )

    def _checked(
        self, rows: list[dict[str, Any]], numbers: list[int], keys: list[bytes]
    ) -> list[bytes]:
        """Refuse null and double keys; return the digests of the keys."""
        for row, number in zip(rows, numbers, strict=True):
            for name in self._spec.key:
                if row[name] is None:
                    message = f"key: {name!r} is null in row {number} of the source; fill it in, or leave such rows out with `where`."
                    raise SourceError(message)
        digests = [key_digest(key) for key in keys]
        double = self._index.first_double(digests, numbers)
        if double is not None:
            number, earlier, at = double
            named = ", ".join(f"{name}={rows[at][name]!r}" for name in self._spec.key)
            same = f"key: rows {earlier} and {number} of the source have the same key ({named})"
            message = f"{same}; keys must be unique: mend the source, or add a column to `key`."
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
        """Decide on one row: what is to be written to which plan, or None."""
        summary, builder = self.summary, self._builder
        if (null := builder.null_column(row)) is not None and self._spec.on_null != "empty":
            if self._spec.on_null == "skip":
                summary.null_skipped += 1
                return None
            found = f"on_null: the column {null!r} that the templates use is null in {where()}"
            message = f"{found}; fill it in, or set `on_null` to empty or skip."
            raise SourceError(message)
        found, landed = builder.fingerprint(row), self._index.landed(digest)
        if self._index.in_flight(digest):
            summary.in_flight += 1
            return None
        name = row_id(self._dataset_id, key, found)
        if name in self._claimed:
            summary.recovered += 1
            return self._request(builder.made(row, where), name, found, None, landed)
        reason = self._reason(found, landed)
        if reason is None:
            if landed is not None and landed.carried != carried:
                self.carried[landed.part][digest] = tuple(
                    row[name] for name in self._table.dataset.carried
                )
            return None
        if self._spec.limit is not None and sum(self._reasons.values()) >= self._spec.limit:
            summary.over_limit += 1
            return None
        self._reasons[reason] += 1
        return self._request(
            builder.made(row, where), name, found, landed if reason == "failed" else None, landed
        )

    def _request(
        self,
        made: BuiltRequest,
        name: str,
        found: str,
        failed: LandedRow | None,
        landed: LandedRow | None,
    ) -> tuple[str, dict[str, Any], bytes]:
        """Return (plan, system fields, body) of a row that is to be sent; `failed` is what is tried again."""
        summary, again, shape, route = (
            self.summary,
            None,
            made.shape,
            self._builder.routes[made.route],
        )
        if failed is not None:
            again = route.again(made.body, shape, failed.status, failed.error, failed.attempts)
        body, bound = again or (made.body, route.bound(made.body, shape))
        size = route.provider.framing.size(CUSTOM_ID_CHARS, body)
        system = _system_fields(name, found, landed)
        system |= {
            "_changed": again is not None,
            "_prior_error": landed.error if landed is not None else None,
        }
        system |= {"_bytes": size, "_bound": bound, "_error": None}
        system |= {
            "_cap": shape.cap,
            "_turns": shape.turns,
            "_schema": shape.schema,
            "_attached": shape.attached,
        }
        if name in self._claimed:
            return "claimed", system, body
        if self.packer.fits_alone(size, made.route):
            self.packer.add(size, system["_bound"], made.route)
            summary.least = min(summary.least or system["_bound"], system["_bound"])
            return "plan", system, body
        summary.too_large += 1
        text = f"the request has {size:,} bytes; one batch holds {route.provider.limits.bytes:,}"
        system |= {"_error": describe(ErrorCode.TOO_LARGE, text), "_bound": 0}
        return "local", system, b"{}"

    def _reason(self, found: str, landed: LandedRow | None) -> str | None:
        """Why a row is to be sent; None where it is not, and the summary says why not."""
        summary = self.summary
        if landed is None:
            return self._asked("new")
        refresh = self._options.refresh_before
        if refresh is not None and landed.enriched_at < refresh:
            return "refresh"
        if parts := changed(landed.fingerprint, found):
            return self._asked(*parts)
        if landed.status == Outcome.SUCCEEDED:
            summary.up_to_date += 1
            return None
        again = worth_another(landed.status, landed.error, landed.attempts, self._spec.max_attempts)
        if not again and not self._options.retry_failed:
            summary.exhausted += 1
            return None
        return self._asked("failed")

    def _asked(self, *reasons: str) -> str | None:
        for reason in reasons:
            if reason in self._spec.rerun_on:
                return reason
        self.summary.not_asked += 1
        return None


def _values(batch: pa.RecordBatch, name: str, first: int) -> list[Any]:
    """Return a column in Python values, which cannot be all that Arrow can."""
    try:
        return batch.column(name).to_pylist()
    except (ValueError, OverflowError) as error:
        last = first + batch.num_rows - 1
        message = f"source: the column {name!r} holds a value that cannot be used, in rows {first} to {last}: {error}; mend it."
        raise SourceError(message) from error


def _system_fields(request_id: str, found: str, landed: LandedRow | None) -> dict[str, Any]:
    """Return what the plan knows of a row: its ids and what earlier attempts used and cost."""
    same = landed is not None and landed.fingerprint == found
    prior = landed if landed is not None and same else None
    return {
        "_row_id": request_id,
        "_fingerprint": found,
        "_replaces": landed.part if landed is not None else None,
        "_prior_attempts": prior.attempts if prior else 0,
        "_prior_input_tokens": prior.input_tokens if prior else 0,
        "_prior_output_tokens": prior.output_tokens if prior else 0,
        "_prior_cache_read_tokens": prior.cache_read_tokens if prior else 0,
        "_prior_cost": prior.cost if prior else 0,
        "_replaced_cost": landed.cost if landed is not None and not same else 0,
    }
