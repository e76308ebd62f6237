"""Results of jobs, read from the dataset that their runs landed in."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from batchata_tasks.api.job_result import JobResult
from batchata_tasks.common.arrow_types import as_stored
from batchata_tasks.dataset.columns import dataset_schema
from batchata_tasks.dataset.folder import DatasetFolder
from batchata_tasks.dataset.manifest import read_chunk_manifest
from batchata_tasks.dataset.parts import Dataset
from batchata_tasks.execution.held import answered, create_error, decide
from batchata_tasks.execution.held_dataset import find_dataset
from batchata_tasks.execution.overdue import remedy, why_overdue
from batchata_tasks.ledger import SET_ASIDE, ChunkState, opened_ledger
from batchata_tasks.planning.fingerprint import changed, fingerprint
from batchata_tasks.planning.job_store import JOB, StoredJobs
from batchata_tasks.sources.opening import open_source
from batchata_tasks.spec.job import Job
from batchata_tasks.spec.jobs import JOB_ID
from batchata_tasks.types.outcome import ErrorCode, Outcome, describe

if TYPE_CHECKING:
    from collections.abc import Iterator

    from batchata_tasks.common.settings import Settings
    from batchata_tasks.schema.response import ResponseSchema
    from batchata_tasks.spec.jobs import JobsSpec

_READ = (
    JOB_ID,
    "_fingerprint",
    "_status",
    "_error",
    "_response",
    "_citations",
    "_input_tokens",
    "_output_tokens",
    "_cost_usd",
    "_enriched_at",
)


def landed_results(spec: JobsSpec) -> dict[str, JobResult]:
    """Return the results that have landed, by job id, in the order of the jobs' destinations.

    A row that answers an older text of a job is not its result.
    """
    wanted = {job_id: (text, cited, schema) for job_id, text, cited, schema in _fingerprints(spec)}
    rows = dict[str, dict[str, Any]]()
    for batch in _rows(spec):
        for row in batch.to_pylist():
            job_id = row[JOB_ID]
            if job_id not in wanted or changed(row["_fingerprint"], wanted[job_id][0]):
                continue
            if job_id not in rows or rows[job_id]["_enriched_at"] < row["_enriched_at"]:
                rows[job_id] = row
    return {
        job_id: _result(rows[job_id], schema, cited=cited)
        for job_id, (_, cited, schema) in wanted.items()
        if job_id in rows
    }


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


def _fingerprints(spec: JobsSpec) -> Iterator[tuple[str, str, bool, ResponseSchema | None]]:
    """Yield (job id, fingerprint, whether citations are wanted, response model) of each job."""
    stored = StoredJobs(spec.response_schemas())
    for block in open_source(spec.jobs).batches([JOB_ID, JOB]):
        for row in block.rows.to_pylist():
            job, _, schema = stored.read(row)
            first, others = stored.fingerprint(row)
            yield job.id, fingerprint(first.hex(), others), job.enable_citations, schema


def stored_jobs(spec: JobsSpec) -> list[Job]:
    """Return the jobs of a batch; response models are JSON Schema, since nothing is imported."""
    stored, schemas = StoredJobs(spec.response_schemas()), spec.schemas
    jobs = list[Job]()
    for block in open_source(spec.jobs).batches([JOB_ID, JOB]):
        for row in block.rows.to_pylist():
            job, digest, _ = stored.read(row)
            jobs.append(job if digest is None else replace(job, response_model=schemas[digest]))
    return jobs


def _rows(spec: JobsSpec) -> Iterator[pa.RecordBatch]:
    dataset = Dataset(DatasetFolder(spec.output).data, pa.schema([]), [], [])
    for _, batch in dataset.rows(list(_READ)):
        yield batch


def _result(row: dict[str, Any], schema: ResponseSchema | None, *, cited: bool) -> JobResult:
    text, cost = row["_response"] or "", row["_cost_usd"]
    parsed = error = None
    if row["_status"] != Outcome.SUCCEEDED:
        error = row["_error"] or row["_status"]
    elif schema is not None:
        parsed, problem = schema.read(text)
        # it passed when it landed; its class has changed since, or something that it looks at
        if parsed is None:
            error = describe(ErrorCode.RESPONSE, problem)
    return JobResult(
        row[JOB_ID],
        response=text,
        parsed_response=parsed,
        citations=(row["_citations"] or []) if cited else None,
        input_tokens=row["_input_tokens"],
        output_tokens=row["_output_tokens"],
        cost_usd=float("nan") if cost is None else float(cost),
        error=error,
    )


def landed_table(spec: JobsSpec) -> pa.Table:
    """Return the rows of a batch's jobs as they are in the dataset."""
    dataset = Dataset(DatasetFolder(spec.output).data, pa.schema([]), [], [])
    stored = open_source(spec.jobs).batches([JOB_ID])
    ids = pa.concat_arrays([block.rows.column(JOB_ID) for block in stored])
    batches = (batch for _, batch in dataset.rows(dataset.column_names()))
    rows = [batch.filter(pc.is_in(batch.column(JOB_ID), ids)) for batch in batches]
    return pa.Table.from_batches(rows, rows[0].schema if rows else _columns(spec))


def _columns(spec: JobsSpec) -> pa.Schema:
    """Return the columns that the rows of a batch's jobs will have."""
    schemas = spec.response_schemas()
    common = next(iter(schemas.values()), None) if spec.uniform else None
    carried = pa.schema([pa.field(JOB_ID, pa.string())])
    return as_stored(dataset_schema(carried, common))
