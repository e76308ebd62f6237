"""Planning: one pass over the source that decides which of its rows are to be sent, and why.

The pass is a stream of blocks: their rows are keyed, fingerprinted and compared with the dataset,
all rows of a block at once. Those that need work are rendered into request bodies in the run's
folder and packed into chunks. Nothing is sent before the pass has ended, so that a duplicate key in
the last row costs nothing.
"""

from __future__ import annotations

import shutil
from collections import Counter, defaultdict
from contextlib import ExitStack, closing
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pyarrow as pa

from batchata_tasks.common.collector import collector_paused
from batchata_tasks.common.errors import SourceError
from batchata_tasks.common.files import storage_errors
from batchata_tasks.dataset.manifest import PlanRows, PlanWriter
from batchata_tasks.planning.bad_documents import BadDocuments
from batchata_tasks.planning.compared_rows import ComparedRows
from batchata_tasks.planning.fingerprint import changed, is_rehearsed, other_parts
from batchata_tasks.planning.key_arrays import InFlight, SentRow, SourceKeys
from batchata_tasks.planning.landed import Landed, LandedRow
from batchata_tasks.planning.missing import MissingRows, SourceLook
from batchata_tasks.planning.packing import Packer, PlannedChunk
from batchata_tasks.planning.retry import worth_another
from batchata_tasks.planning.row_block import RowBlock
from batchata_tasks.planning.summary import CHANGES, NOTHING_SENT, Options, PlanSummary, SentBefore
from batchata_tasks.planning.values import require_usable
from batchata_tasks.sources.forms import DocumentsSource
from batchata_tasks.sources.source import no_such_file
from batchata_tasks.spec.enrichment import EnrichmentSpec
from batchata_tasks.spec.jobs import JobsSpec
from batchata_tasks.types.ids import CUSTOM_ID_CHARS, row_ids
from batchata_tasks.types.outcome import ErrorCode, Outcome, describe, error_code

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from collections.abc import Set as AbstractSet
    from pathlib import Path

    from numpy.typing import NDArray

    from batchata_tasks.planning.builder import BuiltRequest
    from batchata_tasks.planning.table import PreparedTable
    from batchata_tasks.sources.source import Block


class Wanted(NamedTuple):
    """A row that needs a request: its place in the block, and the dataset's row of its key.

    `fails` says that an attempt is made again; `claimed`, that an answer is recovered.
    """

    place: int
    landed: LandedRow | None
    fails: bool = False
    claimed: bool = False


class Planner:
    """One planning pass; `folder` receives the plan's files.

    With `lands_first`, what is in flight and not held lands before anything is sent: of it, rows
    that ask something else by now are to be sent again. `just_landed` are the parts of rows whose
    answers landed a moment ago. What was `sent_before` counts to the spec's `limit`. Without
    `pilots`, the rows that go first went already.
    """

    def __init__(
        self,
        table: PreparedTable,
        folder: Path,
        dataset_id: str,
        options: Options,
        progress: Callable[[int], None] = lambda _rows: None,
        claimed: AbstractSet[str] = frozenset(),
        legacy: Mapping[str, pa.DataType] = MappingProxyType({}),
        reread: Sequence[str] = (),
        just_landed: AbstractSet[str] = frozenset(),
        *,
        lands_first: bool = False,
        sent_before: SentBefore = NOTHING_SENT,
        pilots: bool = True,
    ) -> None:
        self._table, self._folder = table, folder
        self._dataset_id, self._options = dataset_id, options
        self._progress = progress
        self._claimed = claimed  # ids of the rows whose answers are recovered
        self._reread = reread  # parts of other response models under which these were asked for
        self._just_landed, self._lands_first = just_landed, lands_first
        self._sent_before, self._pilots = sent_before, pilots
        self._legacy = legacy  # the types in which version 1 of fingerprints read columns
        self._spec, self._builder = table.spec, table.builder
        otherwise = "set `on_bad_document: skip`, which leaves such rows unsent"
        is_table = isinstance(table.spec, EnrichmentSpec)
        self._bad_documents = BadDocuments(otherwise if is_table else None)
        self.summary = PlanSummary()
        self._reasons: Counter[str] = Counter()
        self._counted = 0  # rows that count to the spec's limit
        self._further = 0  # the bounds of attempts after those that are planned
        self.carried: dict[str, dict[bytes, tuple[Any, ...]]] = defaultdict(dict)
        self.doubled: dict[str, set[bytes]] = {}  # rows to be deleted, by part
        self.missing = MissingRows()
        limits = [route.provider.limits for route in table.builder.routes]
        self.packer = Packer(limits, table.spec.items_per_batch)

    def run(self, in_flight: Iterable[SentRow] = ()) -> list[PlannedChunk]:
        """Make the pass; return the chunks of the plan, in order.

        Raises:
            SourceError: a row cannot be used; it is named, with the remedy.
        """
        shutil.rmtree(self._folder, ignore_errors=True)
        for route in self._builder.routes:  # of an earlier pass, if answers were recovered
            route.attached = 0, 0
        with storage_errors("planning"):
            self._folder.mkdir(parents=True)
            self._pass(in_flight)
        self._bad_documents.refuse()
        return self._finish()

    def _pass(self, in_flight: Iterable[SentRow]) -> None:
        table = self._table
        fields = table.source.stored_schema(self._spec.carried)
        with ExitStack() as files:
            landed = files.enter_context(closing(Landed(self._folder, table.dataset)))
            keys = files.enter_context(closing(SourceKeys(self._folder / "keys.bin")))
            self.doubled = landed.doubled
            self.packer.pilot = self._pilot_rows(landed)
            flying, look = InFlight(in_flight), SourceLook(table, landed)
            names = ["plan", "local", *(["claimed"] if self._claimed else [])]
            writers = {
                name: files.enter_context(PlanWriter(self._folder, name, fields)) for name in names
            }
            for block in table.source.batches(table.columns.names):
                with collector_paused():
                    rows = self._kept(block, look)
                    self._plan(rows, landed, keys, flying, writers, look)
                self._progress(self.summary.source_rows)
            if (double := keys.first_double()) is not None:
                raise self._doubled(*double)
            if not len(landed) and not len(flying):
                self._require_documents()
            self.missing = look.missing(flying)

    def _require_documents(self) -> None:
        """Refuse a pattern of which there is no document, if there never was one.

        A folder that is empty by now is none that somebody misspelt: what it had has landed.
        """
        if not isinstance(self._spec, EnrichmentSpec) or self.summary.source_rows or self._claimed:
            return
        if isinstance(source := self._spec.source, DocumentsSource):
            raise no_such_file(source.documents)

    def _plan(
        self,
        rows: RowBlock,
        landed: Landed,
        keys: SourceKeys,
        flying: InFlight,
        writers: Mapping[str, PlanWriter],
        look: SourceLook,
    ) -> None:
        """Plan the rows of a block."""
        if not len(rows):
            return
        table = self._table
        stored = table.source.stored(rows.batch.select(self._spec.carried))
        version = table.fingerprint_version
        compared = ComparedRows(rows, stored, self._builder, landed, flying, self._legacy, version)
        keys.add(compared.keys, rows.numbers)
        look.note(compared.landed_places)
        self._write(rows, compared, self._wanted_rows(rows, compared), writers)

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
        summary.further = self._further if priced else None
        pilot = self.packer.pilot
        summary.pilot = pilot if summary.requests > pilot else 0
        summary.carried = sum(len(rows) for rows in self.carried.values())
        summary.returned = sum(len(keys) for keys in self.missing.back.values())
        if not isinstance(self._spec, JobsSpec):  # a Batch may have other jobs each time
            summary.kept_missing = self.missing.kept
        if (terms := self._spec.missing) is not None:
            summary.deleted = self.missing.rows if terms.delete else 0
            summary.marked = 0 if terms.delete else self.missing.rows
        return spans

    def _pilot_rows(self, landed: Landed) -> int:
        """Return the number of rows that are sent first.

        A pilot that is sent once asks what rows that landed may tell already: whether the answers
        to the same prompt, by the same model, in the same form are as it wants them.
        """
        pilot = self._spec.first_rows
        if pilot is None or not self._pilots:
            return 0
        if pilot.once and self._builder.constant:
            answered = landed.answered(
                other_parts(*self._builder.constant), rehearsal=self._table.rehearsal
            )
            if answered.keep_to(pilot):
                return 0
        return pilot.rows

    def _kept(self, block: Block, look: SourceLook) -> RowBlock:
        """Return the rows of a block of the source that count; their keys are not null."""
        numbers = block.numbers(self.summary.source_rows)
        rows = RowBlock(block.rows, numbers, self._spec.key)
        counted = rows.take(self._builder.kept(rows))
        if len(counted) < len(rows):
            look.note_left_out(block.rows)
        self.summary.source_rows += len(rows)
        self.summary.filtered += len(rows) - len(counted)
        require_usable(counted.batch, counted.numbers)
        for name in self._spec.key:
            if counted.batch.column(name).null_count:
                number = counted.numbers[counted.values(name).index(None)]
                where = f"key: {name!r} is null in row {number} of the source"
                message = f"{where}; fill it in, or leave such rows out with `where`."
                raise SourceError(message)
        return counted

    def _doubled(self, number: int, earlier: int) -> SourceError:
        """Return the error for a row whose key an earlier one has."""
        before, key = 0, ""
        for block in self._table.source.batches(self._spec.key):
            numbers = block.numbers(before)
            if number in numbers:
                rows = RowBlock(block.rows, numbers, self._spec.key)
                key = rows.key_of(numbers.index(number))
                break
            before += len(numbers)
        same = f"key: rows {earlier} and {number} of the source have the same key ({key})"
        return SourceError(
            f"{same}; keys must be unique: fix the source, or add a column to `key`."
        )

    def _nulls(self, rows: RowBlock) -> NDArray[np.bool_]:
        """Return which rows are left out, since a column that the templates use is null."""
        left_out = np.zeros(len(rows), np.bool_)
        if self._spec.on_null not in ("error", "skip"):
            return left_out
        nulls = self._builder.nulls(rows)
        if nulls and self._spec.on_null == "error":
            place = min(nulls)
            where = f"the column {nulls[place]!r} that the templates use is null in"
            message = (
                f"on_null: {where} {rows.namer(place)()}; "
                "fill it in, or set `on_null` to pass (a null prints nothing) or skip (such rows "
                "are left out)."
            )
            raise SourceError(message)
        self.summary.null_skipped += len(nulls)
        left_out[list(nulls)] = True
        return left_out

    def _wanted_rows(self, rows: RowBlock, compared: ComparedRows) -> list[Wanted]:
        """Decide on the rows of a block; return those that need a request."""
        left_out = self._nulls(rows)
        claimed = compared.claimed(self._claimed, self._dataset_id, self._reread)
        quiet = compared.up_to_date(self._options.refresh_before) & ~left_out & ~claimed
        anew = compared.carried_changed(self._table.dataset.carried_fields)
        self.summary.up_to_date += int(quiet.sum())
        self.summary.gone_documents += sum(map(compared.unread, np.flatnonzero(quiet).tolist()))
        wanted = list[Wanted]()
        for place in np.flatnonzero(~quiet & ~left_out).tolist():
            landed, flies = compared.landed(place), bool(compared.in_flight[place])
            if claimed[place] and not flies:
                self.summary.recovered += 1
                wanted.append(Wanted(place, landed, claimed=True))
                continue
            if flies:
                reason = self._reason_in_flight(compared, place)
            else:
                reason = self._reason(compared, place, landed)
            if reason is None:
                quiet[place] = not flies
            elif not (counts := self._counts(landed)) or not self._is_beyond_limit():
                self._reasons[reason] += 1
                self._counted += counts
                is_new = landed is not None and landed.part in self._just_landed
                self.summary.asked_anew += flies or (is_new and reason in CHANGES)
                wanted.append(Wanted(place, landed, fails=reason == "failed"))
            else:
                self.summary.over_limit += 1
        self._carry(compared, np.flatnonzero(quiet & anew))
        return wanted

    def _counts(self, landed: LandedRow | None) -> bool:
        """Whether a row counts to the spec's limit: not if the same run has sent it before."""
        return landed is None or landed.part not in self._sent_before.parts

    def _is_beyond_limit(self) -> bool:
        """Whether as many rows are to be sent as the spec allows for one run."""
        limit = self._spec.limit
        return limit is not None and self._sent_before.rows + self._counted >= limit

    def _carry(self, compared: ComparedRows, places: NDArray[np.int64]) -> None:
        """Note the new values of landed rows whose carried columns changed."""
        if not len(places):
            return
        batch = compared.stored.take(pa.array(places))
        columns = [batch.column(name).to_pylist() for name in self._table.dataset.carried]
        for place, values in zip(places.tolist(), zip(*columns, strict=True), strict=True):
            self.carried[compared.part(place)][compared.keys.digest(place)] = values

    def _write(
        self,
        rows: RowBlock,
        compared: ComparedRows,
        wanted: list[Wanted],
        writers: Mapping[str, PlanWriter],
    ) -> None:
        """Write the requests of a block's rows into the plans that they belong to."""
        plans = {name: PlanRows(writer, compared.stored) for name, writer in writers.items()}
        prints = [compared.fingerprint(one.place, sent=True) for one in wanted]
        keys = [compared.canonical[one.place] for one in wanted]
        ids = row_ids(self._dataset_id, keys, prints)
        requests = self._builder.requests(rows, [one.place for one in wanted])
        for one, row_id, text, request in zip(wanted, ids, prints, requests, strict=True):
            name, system, body = self._planned(one, request, row_id, text)
            plans[name].add(one.place, system, body)
        for plan in plans.values():
            plan.flush()

    def _planned(
        self, wanted: Wanted, request: BuiltRequest, request_id: str, fingerprint: str
    ) -> tuple[str, tuple[Any, ...], bytes]:
        """Return (plan, PLANNED_FIELDS, body) of a row that is to be sent."""
        body, shape, place, problem, without_text, refused = request
        if refused is not None:
            self._bad_documents.note(refused)
            problem = str(refused)
        self.summary.note_textless(without_text)
        route, landed, again = self._builder.routes[place], wanted.landed, None
        if wanted.fails and landed is not None and problem is None:
            again = route.again(body, shape, landed.status, landed.error, landed.attempts)
        body, bound = again or (body, route.bound(body, shape))
        size = route.provider.framing.size(CUSTOM_ID_CHARS, body)
        name, error = "plan", None
        if problem is not None:
            self.summary.bad_documents += 1
            name, bound, error = "local", 0, describe(ErrorCode.DOCUMENT, problem)
        elif wanted.claimed:
            name = "claimed"
        elif self.packer.fits_alone(size, place):
            self.packer.add(size, bound, place)
            self.summary.least = min(self.summary.least or bound, bound)
            self._further += self._further_bound(request, landed, fingerprint)
        else:
            self.summary.too_large += 1
            most = route.provider.limits.bytes
            text = f"the request has {size:,} bytes; one batch holds {most:,}"
            name, bound, error = "local", 0, describe(ErrorCode.TOO_LARGE, text)
        system = (
            *(request_id, fingerprint, bound, size),
            *(shape.cap, shape.turns, shape.schema, shape.attached, error),
            *_before(landed, fingerprint, changed=again is not None),
        )
        return name, system, body if error is None else b"{}"

    def _further_bound(
        self, request: BuiltRequest, landed: LandedRow | None, fingerprint: str
    ) -> int:
        """Return the most that attempts at a row after the next one can cost."""
        if "failed" not in self._spec.rerun_on:
            return 0
        is_same = landed is not None and landed.fingerprint == fingerprint
        before = landed.attempts if landed is not None and is_same else 0
        attempts = range(before + 1, self._spec.max_attempts)
        return self._builder.routes[request.route].further(request.body, request.shape, attempts)

    def _reason(self, compared: ComparedRows, place: int, landed: LandedRow | None) -> str | None:
        """Return why a row is to be sent; None if it is not, which the summary then counts."""
        summary = self.summary
        if landed is None:
            return self._wanted("new")
        if (reason := self._whatever_it_answers(landed)) is not None:
            return reason
        if parts := changed(landed.fingerprint, compared.fingerprint(place)):
            return self._wanted(*parts)
        if landed.status == Outcome.SUCCEEDED:
            summary.up_to_date += 1
            return None
        again = worth_another(landed.status, landed.error, landed.attempts, self._spec.max_attempts)
        if not again and not self._options.retries(landed.enriched_at):
            summary.exhausted += 1
            return None
        # what met trouble of the account was not tried, so `rerun_on` has no say in it
        untried = error_code(landed.error) is ErrorCode.ACCOUNT
        return "failed" if untried else self._wanted("failed")

    def _reason_in_flight(self, compared: ComparedRows, place: int) -> str | None:
        """Return why a row in flight is to be sent again; None, and the summary counts it, if not.

        It is not compared with what landed of it before: its own answer will have replaced that.
        """
        if self._lands_first and not compared.held[place]:
            for reason in compared.changed_in_flight(place):
                if reason in self._spec.rerun_on:
                    return reason
        self.summary.in_flight += 1
        self.summary.held += bool(compared.held[place])
        return None

    def _whatever_it_answers(self, landed: LandedRow) -> str | None:
        """Return why a row is to be sent although its request is the same, if it is.

        A made-up answer is none, and `rerun_on` has no say in either reason.
        """
        if is_rehearsed(landed.fingerprint) and not self._table.rehearsal:
            return "rehearsed"
        refresh = self._options.refresh_before
        return "refresh" if refresh is not None and landed.enriched_at < refresh else None

    def _wanted(self, *reasons: str) -> str | None:
        """Return the first of these reasons for which the spec sends rows again."""
        for reason in reasons:
            if reason in self._spec.rerun_on:
                return reason
        self.summary.not_asked += 1
        return None


def _before(landed: LandedRow | None, fingerprint: str, *, changed: bool) -> tuple[Any, ...]:
    """Return what earlier attempts at a row used and cost, from `_replaces` on."""
    if landed is None:
        return (None, False, None, 0, 0, 0, 0, 0, 0)
    before = (landed.part, changed, landed.error)
    if is_rehearsed(landed.fingerprint) != is_rehearsed(fingerprint):
        return (*before, 0, 0, 0, 0, 0, 0)  # money that a rehearsal made up is superseded by none
    if landed.fingerprint != fingerprint:
        return (*before, 0, 0, 0, 0, 0, landed.cost)
    tokens = (landed.input_tokens, landed.output_tokens, landed.cache_read_tokens)
    return (*before, landed.attempts, *tokens, landed.cost, 0)
