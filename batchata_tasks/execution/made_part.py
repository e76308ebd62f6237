"""A chunk's part of the dataset, made of its results.

It is made as a file outside of `data/`, with the totals that settle the chunk (`MadePart`). Nothing
else changes by that: what is paid and what lands is up to the process that holds the dataset. So a
part may be made in another process, which may die, or be done with it twice.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass, fields, replace
from itertools import chain
from pathlib import Path  # noqa: TC003 - Pydantic reads annotations
from typing import TYPE_CHECKING, Any, Self, cast

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import TypeAdapter

from batchata_tasks.common.collector import uncollected
from batchata_tasks.common.errors import StorageError
from batchata_tasks.dataset.columns import dataset_schema
from batchata_tasks.dataset.declared import DeclaredSchema, Role
from batchata_tasks.dataset.manifest import SYSTEM_FIELDS, read_chunk_manifest
from batchata_tasks.dataset.packs import kept_json
from batchata_tasks.dataset.part_files import part_of_chunk
from batchata_tasks.dataset.parts import Dataset
from batchata_tasks.execution.collect import Collector, Report, not_sent
from batchata_tasks.execution.contexts import require_code
from batchata_tasks.execution.earlier import EarlierAnswers, RetiredValues
from batchata_tasks.execution.earlier_results import EarlierResults
from batchata_tasks.execution.forgotten import forgotten_names
from batchata_tasks.execution.quoted import QuotedFields
from batchata_tasks.execution.reread import (
    INVALID,
    NAMED,
    as_landed,
    by_schema,
    invalid_in,
    readings_of,
)
from batchata_tasks.execution.run_context import BatchContext
from batchata_tasks.execution.trouble import grouped
from batchata_tasks.providers import rows_named, without_keys_set
from batchata_tasks.providers.result_lines import without_line
from batchata_tasks.spec.jobs import JobsSpec
from batchata_tasks.types.destination import Destination
from batchata_tasks.types.outcome import Outcome

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    import pyarrow.parquet as pq

    from batchata_tasks.dataset.folder import DatasetFolder
    from batchata_tasks.execution.run_context import RunContext
    from batchata_tasks.execution.run_ref import PartOrder
    from batchata_tasks.ledger import Chunk
    from batchata_tasks.providers import BatchLook
    from batchata_tasks.schema.response import ResponseSchema

_ERRORS_KEPT = 5
_ERROR_CHARS = 200


@dataclass(frozen=True)
class PartColumns:
    """The columns of a chunk's part that hold no answers."""

    carried: pa.Schema
    retired: pa.Schema
    marks: bool

    @classmethod
    def of(cls, folder: DatasetFolder, manifest: pa.Schema) -> Self:
        """Return those of a chunk whose manifest has this schema."""
        source = [field for field in manifest if field.name not in SYSTEM_FIELDS.names]
        # types may have been widened since it was sent, and columns have come or gone
        declared = DeclaredSchema.read(folder) or DeclaredSchema()
        known = declared.of((Role.KEY, Role.CARRIED))
        retired = declared.of((Role.RETIRED,))
        others = [f for f in source if f.name not in {*known.names, *retired.names}]
        return cls(pa.schema([*known, *others]), retired, declared.marks)

    def under(self, response: ResponseSchema | None) -> pa.Schema:
        """Return the dataset's columns under a response model."""
        return dataset_schema(self.carried, response, self.retired, marks=self.marks)


class ChunkPart:
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
        own_columns = PartColumns.of(context.folder, self.manifest.schema)
        columns = own_columns.under(answers.common)
        commit = kept_json(context.folder.commit(chunk.id)) or {}
        live = context.run.held.answers
        self._readings = readings_of(commit, own_columns.under, live)
        self._invalid: list[str] | None = commit.get(INVALID)
        self._answers, self._schema = answers, columns
        self.dataset = Dataset(
            context.folder.data,
            columns,
            spec.key,
            spec.carried,
            gate=context.require_lease,
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
            RetiredValues(self.dataset, self.manifest, own, own_columns.retired),
            reread=(reading.part for reading in self._readings),
            quoted=QuotedFields(context, chunk),
            # if it landed before, its manifest says which rows stayed; and a job whose request did
            # not run says so: nobody asked for its older answer
            leaves=not commit and not isinstance(spec, JobsSpec),
        )

    def file(self) -> AbstractContextManager[pq.ParquetWriter]:
        """Return the file of the part, which appears when it is whole."""
        return self.dataset.part_file(self._path, self._columns_written)

    def aside(self) -> AbstractContextManager[tuple[Path, pq.ParquetWriter]]:
        """Return a file that is to be the part, and what writes it."""
        return self.dataset.part_aside(self._path, self._columns_written)

    @property
    def _path(self) -> Path:
        return self.dataset.data / part_of_chunk(self._chunk.id)

    @property
    def _columns_written(self) -> pa.Schema:
        return self._readings[-1].schema if self._readings else self.dataset.schema

    def rows(self, look: BatchLook | None, paths: list[Path]) -> Iterator[pa.RecordBatch]:
        """Yield the rows, one for each of the chunk's requests, but for those that stay elsewhere.

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

    def replaces(self) -> list[str]:
        """Return the older parts that have rows of these keys."""
        return sorted(filter(None, set(self.manifest["_replaces"].to_pylist())))

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

        That includes earlier attempts at rows whose cost is unknown now, and not rows that stay as
        they were. Call it after `rows`.
        """
        replaced = sum(cost or 0 for cost in self.manifest["_replaced_cost"].to_pylist())
        costs: list[int | None] = self.manifest["_replaced_cost"].to_pylist()
        stayed = sum(costs[position] or 0 for position in self.collector.left)
        return replaced + self.collector.report.superseded - stayed


def end_of(left_as: str) -> tuple[str, str | None]:
    """Return outcome and error of a request whose row stays in an older part."""
    outcome, _, error = left_as.partition(" ")
    return outcome, error or None


@dataclass(frozen=True)
class MadePart:
    """A file that is to be a chunk's part, and what its rows add up to.

    `replaces` names older parts that have rows of its keys. `errors` are the commonest of its rows,
    `errors_before` those of the same rows' attempts before, `retried` counts these by outcome.
    `kept` rows keep an earlier answer. Those at the positions `left_at` of the manifest stay in an
    older part, since what they ask ended `left_as` (outcome and error). `invalid` are custom_ids,
    None if they are too many to be named. `superseded` is in picodollars.
    """

    file: Path
    report: Report
    enriched_at: int
    replaces: list[str]
    errors: dict[str, int]
    errors_before: dict[str, int]
    retried: dict[str, int]
    kept: int
    left_at: list[int]
    left_as: list[str]
    invalid: list[str] | None
    superseded: int

    def to_json(self) -> dict[str, Any]:
        """Return it as plain JSON values; the file by its name."""
        report = {one.name: getattr(self.report, one.name) for one in fields(Report)}
        report |= {"kept": {}, "tallies": {k: asdict(v) for k, v in self.report.tallies.items()}}
        own = {one.name: getattr(self, one.name) for one in fields(self)}
        return own | {"file": self.file.name, "report": report}

    @classmethod
    def from_json(cls, values: object, folder: Path) -> Self:
        """Return what `to_json` was called on; its file is in `folder`.

        Raises:
            ValueError: it was called on nothing that says this.
        """
        made = cast("Self", _MADE.validate_python(values))
        if made.to_json() != values:  # of what is lacking, the defaults would count as told
            message = "fields are missing, or of other types"
            raise ValueError(message)
        return replace(made, file=folder / made.file)


_MADE = TypeAdapter(MadePart)


def make_ordered(run: RunContext, order: PartOrder) -> MadePart | None:
    """Make a part of results that another process has downloaded, for that one to land.

    Returns None if the dataset's files cannot be read here at this moment: those of a shared folder
    that lags, say. The process that lands reads them then, while nothing else lands.

    Raises:
        LeaseError: the run does not hold its dataset any more.
        SpecError: the response model has other code here.
    """
    require_code(run, order.code)
    chunk, folder = run.ledger.chunk(order.chunk_id), run.folder
    record = kept_json(folder.responses / f"{chunk.id}.json")
    paths = [folder.responses / name for name in (record or {}).get("files", ())]
    if record is None or not all(path.exists() for path in paths):
        return None
    to = Destination(chunk.provider, chunk.model, chunk.endpoint)
    with without_keys_set():  # what was downloaded is read without an account
        context = BatchContext(run, run.route(to, None))
    with run.state.landing:  # one at a time, since each holds a manifest in memory
        try:
            return make_part(context, chunk, order.look, paths, order.landed_at, run.raise_if_left)
        except (StorageError, KeyError):
            # an older part with rows of these keys was replaced, perhaps, as another batch landed
            return None


def make_part(
    context: BatchContext,
    chunk: Chunk,
    look: BatchLook | None,
    paths: list[Path],
    enriched_at: int,
    between: Callable[[], None] = lambda: None,
) -> MadePart:
    """Make a chunk's part of its results, in a file that a death leaves to be swept up.

    `between` is called between blocks of rows, and may raise to give up.
    """
    part = ChunkPart(context, chunk, enriched_at)
    report, errors, invalid = part.collector.report, Counter[str](), list[str]()
    with part.aside() as (file, writer):
        for batch in part.rows(look, paths):
            between()
            writer.write_batch(batch)
            invalid += invalid_in(batch)
            texts = batch.column("_error").drop_null().to_pylist()
            errors.update(text[:_ERROR_CHARS] for text in texts)
    # of these the rows themselves say nothing
    errors.update(text[:_ERROR_CHARS] for _, text in report.kept.values() if text)
    ends = list(part.collector.left.values())
    errors.update(text[:_ERROR_CHARS] for _, text in map(end_of, ends) if text)
    invalid += [name for name, (end, _) in report.kept.items() if end is Outcome.INVALID]
    return MadePart(
        file,
        report,
        enriched_at,
        part.replaces(),
        dict(grouped(errors.items()).most_common(_ERRORS_KEPT)),
        dict(grouped(part.errors_before().items())),
        dict(part.retried()),
        len(report.kept),
        list(part.collector.left),
        ends,
        invalid if len(invalid) <= NAMED else None,
        part.superseded(),
    )
