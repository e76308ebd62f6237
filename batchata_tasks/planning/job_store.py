"""Writes the jobs of a batch to a file, from which a run reads them as often as it needs them."""

from __future__ import annotations

import hashlib
import re
from dataclasses import fields
from io import BytesIO
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from batchata_tasks.common.files import durable
from batchata_tasks.planning.fingerprint import FINGERPRINT_VERSION
from batchata_tasks.planning.stored_jobs import StoredJobs, inputs_of_jobs
from batchata_tasks.sources.source import BATCH_ROWS
from batchata_tasks.spec.job import Job
from batchata_tasks.spec.jobs import JOB_ID, JobsSpec

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from batchata_tasks.dataset.folder import DatasetFolder
    from batchata_tasks.spec.job_schemas import ResponseModels
    from batchata_tasks.types.destination import Destination

JOB = "job"  # the column of the jobs as JSON, each with the digest of its response model
# what its fingerprint is made of: the digest of its input, and its other fields as JSON
INPUT, TERMS = f"input_{FINGERPRINT_VERSION}", "terms"
_COLUMNS = pa.schema(
    [
        pa.field(JOB_ID, pa.string()),
        pa.field(JOB, pa.string()),
        pa.field(INPUT, pa.binary()),
        pa.field(TERMS, pa.string()),
    ]
)
_FIELDS = [one.name for one in fields(Job) if one.name not in ("id", "response_model")]
_fields_of = attrgetter(*_FIELDS)


def write_jobs(
    folder: DatasetFolder,
    jobs: Sequence[Job],
    schemas: ResponseModels,
    digest_of: Callable[[Path], str],
    **values: Any,
) -> JobsSpec:
    """Write jobs to a file in a dataset's folder; return the spec of a run of them.

    The file is named by its content, so that the same jobs are the same run. `digest_of` returns
    the `sha256` of a job's document; `values` are the other keys of the spec.
    """
    by_place, places = _sorted_by_destination(jobs)
    kinds = {schemas.of(job)[0] for job in jobs}
    digests = {file: digest_of(file) for file in {job.file for job in jobs} if file is not None}
    reader = StoredJobs(schemas.by_digest())
    content, file = _file_of(_blocks(by_place, schemas, digests), reader)
    folder.create()
    folder.jobs.mkdir(exist_ok=True)
    path = folder.jobs / f"{content[:32]}.parquet"
    if path.exists():
        path.touch()  # the files that are oldest are deleted
    else:
        # in the folder above: a run of another process deletes unfinished files from this one
        with durable(path, folder.root) as stream:
            stream.write(file)
    models = {name: schema for name, schema in schemas.by_digest().items() if name in kinds}
    spec = JobsSpec(
        jobs=str(path),
        count=len(jobs),
        to=list(places),
        uniform=len(kinds) == 1,
        schemas={name: schema.stored for name, schema in models.items()},
        output=str(folder.root),
        **values,
    )
    return spec.with_models(models)


def _file_of(blocks: Iterable[list[tuple[str, str]]], reader: StoredJobs) -> tuple[str, memoryview]:
    """Return the digest of jobs, and their file, which is small beside the jobs in memory.

    What fingerprints are made of stands beside the jobs, so that those that need nothing are not
    read again. It follows from the jobs as they are stored, and is no part of the digest.
    """
    content, file = hashlib.sha256(), BytesIO()
    with pq.ParquetWriter(file, _COLUMNS, compression="zstd") as writer:
        for rows in blocks:
            content.update(orjson.dumps(rows))
            ids, texts = zip(*rows, strict=True)
            jobs = reader.read(ids, texts)
            columns = (ids, texts, inputs_of_jobs(jobs), [job.terms.spelled for job in jobs])
            arrays = [
                pa.array(values, field.type)
                for values, field in zip(columns, _COLUMNS, strict=True)
            ]
            writer.write_batch(pa.RecordBatch.from_arrays(arrays, schema=_COLUMNS))
    return content.hexdigest(), file.getbuffer()


def _sorted_by_destination(jobs: Iterable[Job]) -> tuple[list[Job], list[Destination]]:
    """Return jobs in the order of their destinations, and the destinations.

    Jobs of the same destination may share a batch.
    """
    groups: dict[Destination, list[Job]] = {}
    known: dict[tuple[str, str | None, str], Destination] = {}
    for job in jobs:
        names = job.model, job.provider, job.endpoint
        if (to := known.get(names)) is None:
            to = known[names] = job.destination()
        groups.setdefault(to, []).append(job)
    return [job for group in groups.values() for job in group], list(groups)


def _blocks(
    jobs: Sequence[Job], schemas: ResponseModels, digests: Mapping[Path, str]
) -> Iterator[list[tuple[str, str]]]:
    for start in range(0, len(jobs), BATCH_ROWS):
        yield [
            (job.id, _stored(job, schemas.of(job)[0], digests))
            for job in jobs[start : start + BATCH_ROWS]
        ]


def _stored(job: Job, schema: str | None, digests: Mapping[Path, str]) -> str:
    """Return a job as JSON: without its id, and with the digest of its response model."""
    values: dict[str, Any] = dict(zip(_FIELDS, _fields_of(job), strict=True))
    values["enable_citations"] = job.enable_citations or None
    if job.file is not None:
        values |= {"file": str(job.file.absolute()), "sha256": digests[job.file]}
    stored = {name: value for name, value in values.items() if value not in (None, {})}
    return orjson.dumps({**stored, "schema": schema}, option=orjson.OPT_SORT_KEYS).decode()


def moved_to(folder: DatasetFolder, spec: JobsSpec) -> JobsSpec:
    """Return the spec of a run in a folder that may have been moved or copied since."""
    jobs = folder.jobs / Path(spec.jobs).name
    return spec.model_copy(update={"jobs": str(jobs), "output": str(folder.root)})


def dataset_name(folder: DatasetFolder) -> str:
    """Return a name for the runs of a folder."""
    name = re.sub(r"[^A-Za-z0-9_.-]+", "-", folder.root.name).strip("-.")[:100]
    return name if name[:1].isalnum() else f"batch-{name}"[:100].rstrip("-")
