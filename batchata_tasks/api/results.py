"""Results of jobs, read from the dataset that their runs landed in."""

from __future__ import annotations

import math
from contextlib import suppress
from dataclasses import replace
from itertools import chain
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar, cast

import numpy as np
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
    from collections.abc import Callable, Iterable, Iterator

    from numpy.typing import NDArray

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
_READ = (JOB_ID, "_fingerprint", "_enriched_at", *_ANSWER)
_FEW_VALUES = frozenset({"_error", "_status", "_batch_id"})
_NAMED = 5  # ids that an error names
_BY_OUTCOME = ("completed", "failed", "cancelled")  # by which other libraries list results
_SUCCEEDED = Outcome.SUCCEEDED.value
_LOOKED_UP = 32_000_000  # bytes of rows at a time: Arrow hashes the ids of all jobs each time
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
        asked = asked_of(spec, rehearsal=rehearsal)
        return undisturbed(lambda: _newest(spec, asked))


class Asked(NamedTuple):
    """The jobs of a batch: the fingerprints with which their results land, and their terms."""

    ids: pa.Array
    prints: pa.Array
    terms: list[Terms]
    rehearsal: bool

    def is_of(self, text: str, place: int) -> bool:
        """Whether a row with this fingerprint answers a job, although it is not the job's own."""
        is_same = not changed(text, self.prints[place].as_py())
        return is_same and is_rehearsed(text) == self.rehearsal


def asked_of(spec: JobsSpec, *, rehearsal: bool) -> Asked:
    """Return what results of a batch are found by; `rehearsal`: an emulator answers."""
    version = REHEARSED_VERSION if rehearsal else FINGERPRINT_VERSION
    none = pa.array([], pa.string())  # Arrow joins no empty list of columns
    ids, prints, terms = [none], [none], list[Terms]()
    for block_ids, inputs, own in _fingerprints(spec):
        texts = [fingerprint(a.hex(), b.others, version) for a, b in zip(inputs, own, strict=True)]
        ids.append(block_ids)
        prints.append(pa.array(texts, pa.string()))
        terms += own
    return Asked(pa.concat_arrays(ids), pa.concat_arrays(prints), terms, rehearsal)


def _newest(spec: JobsSpec, asked: Asked) -> dict[str, JobResult]:
    """Return the newest result of each job by its id, in the order of the jobs."""
    found: list[JobResult | None] = [None] * len(asked.terms)
    times = np.full(len(found), -1)
    for batches in _rows(spec):
        for job, result in _newer(batches, asked, times):
            found[job] = result
    return {one.job_id: one for one in found if one is not None}


def results_in_part(spec: JobsSpec, asked: Asked, part: str) -> list[JobResult]:
    """Return the results of a batch that a part of the dataset has; none if it is gone."""

    def read() -> list[JobResult]:
        dataset = Dataset(DatasetFolder(spec.output).data, pa.schema([]), [], [])
        batches = list(dataset.part_rows(part, [*_READ]))
        times = np.full(len(asked.terms), -1)
        return [result for _, result in _newer(batches, asked, times)] if batches else []

    with collector_paused():
        return undisturbed(read)


def _newer(
    batches: list[pa.RecordBatch], asked: Asked, times: NDArray[np.int64]
) -> Iterator[tuple[int, JobResult]]:
    """Yield results that landed later than those before, with the places of their jobs."""
    ids = pa.concat_arrays([batch.column(JOB_ID) for batch in batches])
    places, first = pc.index_in(ids, asked.ids), 0
    for batch in batches:
        at = places.slice(first, batch.num_rows)
        first += batch.num_rows
        rows = _newer_rows(batch, at, asked, times)
        jobs: list[int] = at.take(rows).to_pylist()
        answers, terms = batch.take(rows), [asked.terms[job] for job in jobs]
        columns = [_values(answers, name) for name in (JOB_ID, *_ANSWER)]
        yield from zip(jobs, map(_result, terms, *columns), strict=True)


def _newer_rows(
    batch: pa.RecordBatch, at: pa.Array, asked: Asked, times: NDArray[np.int64]
) -> pa.Array:
    """Return which rows answer jobs, at these places, and landed later than those before.

    Of several rows of a job, the newest comes last. `times` are those of the newest rows so far.
    """
    landed = batch.column("_enriched_at").cast(pa.int64()).to_numpy()
    texts, places = batch.column("_fingerprint"), at.fill_null(-1).to_numpy()
    is_same = pc.equal(asked.prints.take(at), texts).fill_null(False)  # noqa: FBT003 - its form
    wanted = is_same.to_numpy(zero_copy_only=False).copy()
    for row in np.flatnonzero(~wanted & (places >= 0)).tolist():
        wanted[row] = asked.is_of(texts[row].as_py(), places[row])
    rows = np.flatnonzero(wanted & (landed > times[places]))[::-1]  # of equal times, the first
    rows = rows[np.argsort(landed[rows], kind="stable")]
    times[places[rows]] = landed[rows]
    return pa.array(rows)


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


def _fingerprints(spec: JobsSpec) -> Iterator[tuple[pa.Array, list[bytes], list[Terms]]]:
    """Yield the ids of jobs, the inputs of their fingerprints, and their terms, by blocks."""
    stored, source = StoredJobs(spec.response_schemas()), open_source(spec.jobs)
    if INPUT not in source.names():  # an older version stored them
        for jobs in _stored(spec):
            ids = pa.array([job.id for job in jobs], pa.string())
            yield ids, inputs_of_jobs(jobs), [job.terms for job in jobs]
        return
    for block in source.batches([JOB_ID, INPUT, TERMS]):
        ids, inputs, terms = (block.rows.column(name) for name in (JOB_ID, INPUT, TERMS))
        yield ids, inputs.to_pylist(), stored.terms_of(terms)


def stored_jobs(spec: JobsSpec) -> list[Job]:
    """Return the jobs of a batch; response models are JSON Schema, since nothing is imported."""
    found = list[Job]()
    for one in chain.from_iterable(_stored(spec)):
        job, digest = one.job(), one.terms.digest
        found.append(job if digest is None else replace(job, response_model=spec.schemas[digest]))
    return found


def _rows(spec: JobsSpec) -> Iterator[list[pa.RecordBatch]]:
    """Yield the rows of the dataset, about `_LOOKED_UP` bytes at a time."""
    dataset = Dataset(DatasetFolder(spec.output).data, pa.schema([]), [], [])
    batches, size = list[pa.RecordBatch](), 0
    for _, batch in dataset.rows([*_READ]):
        batches.append(batch)
        size += batch.nbytes
        if size >= _LOOKED_UP:
            yield batches
            batches, size = [], 0
    if batches:
        yield batches


def _result(terms: Terms, job_id: str, *answer: Any) -> JobResult:
    """Return a job's result, made of the values of its row in the columns of `_ANSWER`."""
    response, citations, tokens_in, tokens_out, cost, error, outcome, batch_id = answer
    text: str = response or ""
    parsed = None
    if outcome != _SUCCEEDED:
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
