"""Results of jobs, read from the dataset that their runs landed in."""

from __future__ import annotations

import math
from contextlib import suppress
from dataclasses import replace
from itertools import chain
from typing import TYPE_CHECKING, Any, TypeVar, cast

import pyarrow as pa
import pyarrow.compute as pc

from batchata_tasks.api.job_result import JobResult
from batchata_tasks.common.arrow_types import as_stored, shared_values
from batchata_tasks.common.collector import collector_paused
from batchata_tasks.common.money import PICO
from batchata_tasks.dataset.columns import UNKNOWN_COST, dataset_schema, picodollars
from batchata_tasks.dataset.folder import DatasetFolder
from batchata_tasks.dataset.manifest import read_chunk_manifest
from batchata_tasks.dataset.parts import Dataset
from batchata_tasks.execution.held import answered, create_error, decide
from batchata_tasks.execution.held_dataset import find_dataset
from batchata_tasks.execution.overdue import remedy, why_overdue
from batchata_tasks.ledger import SET_ASIDE, ChunkState, opened_ledger
from batchata_tasks.planning.fingerprint import (
    FINGERPRINT_VERSION,
    REHEARSED_VERSION,
    changed,
    fingerprint,
    is_rehearsed,
)
from batchata_tasks.planning.job_store import INPUT, JOB, TERMS
from batchata_tasks.planning.stored_jobs import StoredJobs, Terms, inputs_of_jobs
from batchata_tasks.sources.opening import open_source
from batchata_tasks.spec.job import Job
from batchata_tasks.spec.jobs import JOB_ID
from batchata_tasks.types.outcome import ErrorCode, Outcome, describe

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from batchata_tasks.common.settings import Settings
    from batchata_tasks.planning.stored_jobs import StoredJob
    from batchata_tasks.spec.jobs import JobsSpec


# columns of which a JobResult is made, in the order of its fields, and what else is read of a row
_ANSWER = (
    "_response",
    "_citations",
    "_input_tokens",
    "_output_tokens",
    "_cost_usd",
    "_error",
    "_status",
    "_batch_id",
)
_READ = (JOB_ID, "_fingerprint", *_ANSWER)
_FEW_VALUES = frozenset({"_error", "_status", "_batch_id"})
_NAMED = 5  # ids that an error names
_BY_OUTCOME = ("completed", "failed", "cancelled")  # by which other libraries list results
_LANDED_AT = "_enriched_at"
_MOST_TAKEN = 2**31 - 1  # bytes: Arrow takes rows from no larger column of texts
_TRIES = 5  # readings that a part which goes may interrupt
T = TypeVar("T")


class ResultsById(dict[str, JobResult]):
    """Results by the ids of their jobs; an id that is not there is told as a sentence."""

    def get(self, name: object, default: Any = None) -> Any:
        """Return a result, or the default; refuse what habit takes for lists of results."""
        if name in _BY_OUTCOME and name not in self:
            return self.__missing__(name)
        return super().get(cast("str", name), default)

    def __missing__(self, name: object) -> JobResult:
        known = [repr(job_id) for job_id in list(self)[:_NAMED]]
        message = (
            f"no job has the id {name!r:.80}: results are by the ids of their jobs "
            f"({', '.join(known) or 'there are none yet'}{', …' if len(self) > _NAMED else ''}); "
            "ask each one whether it `is_success()`."
        )
        raise KeyError(message)


def landed_results(spec: JobsSpec, *, rehearsal: bool = False) -> dict[str, JobResult]:
    """Return the results that have landed, by job id, in the order of the jobs' destinations.

    A row that answers an older text of a job is not its result; nor is one that an emulator
    answered, but of a `rehearsal`.
    """
    with collector_paused():
        asked = {job_id: (first, terms) for job_id, first, terms in _fingerprints(spec)}
        found = undisturbed(lambda: _newest(spec, asked, rehearsal=rehearsal))
        return {job_id: found[job_id] for job_id in asked if job_id in found}


def _newest(
    spec: JobsSpec, asked: Mapping[str, tuple[bytes, Terms]], *, rehearsal: bool
) -> dict[str, JobResult]:
    """Return the newest result of each job by its id, given its input and its terms."""
    version = REHEARSED_VERSION if rehearsal else FINGERPRINT_VERSION
    found, times = dict[str, JobResult](), dict[str, int]()
    for batch in _rows(spec):
        landed = batch.column(_LANDED_AT).cast(pa.int64()).to_pylist()
        columns = [_values(batch, name) for name in _READ]
        for landed_at, job_id, text, *answer in zip(landed, *columns, strict=True):
            if job_id not in asked or landed_at <= times.get(job_id, -1):
                continue
            first, terms = asked[job_id]
            expected = fingerprint(first.hex(), terms.others, version)
            if text != expected and (changed(text, expected) or is_rehearsed(text) != rehearsal):
                continue
            times[job_id] = landed_at
            found[job_id] = _result(job_id, terms, answer)
    return found


def _values(batch: pa.RecordBatch, name: str) -> list[Any]:
    column = batch.column(name)
    if name in _FEW_VALUES:
        return shared_values(column)
    if name != "_cost_usd":
        return column.to_pylist()
    costs = picodollars(column).tolist()  # from which floats are made in a tenth of the time
    return [math.nan if cost == UNKNOWN_COST else cost / PICO for cost in costs]


def undisturbed(read: Callable[[], T]) -> T:
    """Return what `read` returns; it begins anew if a part goes while it reads.

    Another process may land, and merge, at the same time.
    """
    for _ in range(_TRIES):
        with suppress(FileNotFoundError):
            return read()
    return read()


def held_jobs(spec: JobsSpec, settings: Settings) -> dict[str, str]:
    """Return why jobs are held, and what to do, by job id.

    Their batch brought no results in time, or nobody can tell whether it was accepted.
    """
    folder, reasons = DatasetFolder(spec.output), dict[str, str]()
    with opened_ledger(settings.ledger_url) as ledger:
        dataset_id = find_dataset(folder, ledger)
        chunks = [] if dataset_id is None else ledger.dataset_chunks(dataset_id, SET_ASIDE)
    for chunk in chunks:
        if chunk.state == ChunkState.OVERDUE:
            why = f"{why_overdue(folder, chunk)} It is of chunk {chunk.id}. {remedy(chunk, folder)}"
        else:
            why = (
                "nobody can tell whether its batch was accepted "
                f"(chunk {chunk.id}, {chunk.provider}). "
                f"{answered(create_error(folder, chunk.id))} To decide, {decide(chunk.id)}"
            )
        reason = f"held: {why}."
        if (path := folder.manifest(chunk.id)).exists():
            reasons |= dict.fromkeys(read_chunk_manifest(path)[JOB_ID].to_pylist(), reason)
    return reasons


def _stored(spec: JobsSpec) -> Iterator[list[StoredJob]]:
    """Yield the stored jobs of a batch, block by block."""
    stored = StoredJobs(spec.response_schemas())
    for block in open_source(spec.jobs).batches([JOB_ID, JOB]):
        ids, texts = (block.rows.column(name).to_pylist() for name in (JOB_ID, JOB))
        yield stored.read(ids, texts)


def _fingerprints(spec: JobsSpec) -> Iterator[tuple[str, bytes, Terms]]:
    """Yield the id of each job, the input of its fingerprint, and its terms."""
    stored, source = StoredJobs(spec.response_schemas()), open_source(spec.jobs)
    if INPUT not in source.names():  # an older version stored them
        for jobs in _stored(spec):
            for job, first in zip(jobs, inputs_of_jobs(jobs), strict=True):
                yield job.id, first, job.terms
        return
    for block in source.batches([JOB_ID, INPUT, TERMS]):
        ids, inputs = (block.rows.column(name).to_pylist() for name in (JOB_ID, INPUT))
        yield from zip(ids, inputs, stored.terms_of(block.rows.column(TERMS)), strict=True)


def stored_jobs(spec: JobsSpec) -> list[Job]:
    """Return the jobs of a batch; response models are JSON Schema, since nothing is imported."""
    found = list[Job]()
    for one in chain.from_iterable(_stored(spec)):
        job, digest = one.job(), one.terms.digest
        found.append(job if digest is None else replace(job, response_model=spec.schemas[digest]))
    return found


def _rows(spec: JobsSpec) -> Iterator[pa.RecordBatch]:
    dataset = Dataset(DatasetFolder(spec.output).data, pa.schema([]), [], [])
    for _, batch in dataset.rows([*_READ, _LANDED_AT]):
        yield batch


def _result(job_id: str, terms: Terms, answer: Sequence[Any]) -> JobResult:
    """Return a job's result, made of the values of its row in the columns of `_ANSWER`."""
    response, citations, tokens_in, tokens_out, cost, error, outcome, batch_id = answer
    text: str = response or ""
    parsed = None
    if outcome != Outcome.SUCCEEDED:
        error = error or outcome
    else:
        error = None
        if terms.schema is not None:
            parsed, problem = terms.schema.read(text)
            # it passed when it landed; its class has changed since, or something it looks at
            if parsed is None:
                error, outcome = describe(ErrorCode.RESPONSE, problem), Outcome.INVALID.value
    asked = terms.job.enable_citations
    cited: list[dict[str, Any]] | None = (citations or []) if asked else None
    return JobResult(
        job_id, text, parsed, cited, tokens_in, tokens_out, cost, error, outcome, batch_id
    )


def landed_table(spec: JobsSpec, job_ids: Iterable[str]) -> pa.Table:
    """Return the rows of some jobs as they are in the dataset, in the order of their ids."""
    dataset = Dataset(DatasetFolder(spec.output).data, pa.schema([]), [], [])
    ids = pa.array(job_ids, pa.string())

    def read() -> list[pa.RecordBatch]:
        batches = (batch for _, batch in dataset.rows(dataset.column_names()))
        return [batch.filter(pc.is_in(batch.column(JOB_ID), ids)) for batch in batches]

    rows = undisturbed(read)
    table = pa.Table.from_batches(rows, rows[0].schema if rows else _columns(spec))
    if table.nbytes > _MOST_TAKEN:
        return table
    return table.take(pc.sort_indices(pc.index_in(table.column(JOB_ID), ids)))


def _columns(spec: JobsSpec) -> pa.Schema:
    """Return the columns that the rows of a batch's jobs will have."""
    schemas = spec.response_schemas()
    common = next(iter(schemas.values()), None) if spec.uniform else None
    carried = pa.schema([pa.field(JOB_ID, pa.string())])
    return as_stored(dataset_schema(carried, common))
