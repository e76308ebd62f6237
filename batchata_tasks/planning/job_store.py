"""Writes the jobs of a batch to a file, from which a run reads them as often as it needs them."""

from __future__ import annotations

import hashlib
import os
import re
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from batchata_tasks.common.errors import SourceError, SpecError
from batchata_tasks.common.files import durable, storage_errors
from batchata_tasks.planning.fingerprint import FINGERPRINT_VERSION, inputs_of_texts
from batchata_tasks.planning.job_list import JobForm, JobList, PlainJob, stored_json
from batchata_tasks.planning.stored_jobs import StoredJobs
from batchata_tasks.sources.opening import open_source
from batchata_tasks.sources.source import BATCH_ROWS, errors_of
from batchata_tasks.spec.job import Job
from batchata_tasks.spec.jobs import JOB_ID, JobsSpec

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

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
# in the footer of a file that a job was taken out of: the digest of the jobs that it has
_CONTENT = "content"
# in the footer of each file: how its digest is made; without it, as by `_content_as_before`
_DIGEST, _DIGEST_VERSION = "digest", "v2"
_COMPARED = 1 << 20  # bytes at a time
_SPELLED = 256  # jobs at a time: their bytes stay in the processor's cache


def write_jobs(
    folder: DatasetFolder,
    jobs: Sequence[Job],
    schemas: ResponseModels,
    digest_of: Callable[[Job], str | None],
    **values: Any,
) -> JobsSpec:
    """Write jobs to a file in a dataset's folder; return the spec of a run of them.

    The file is named by its content, so that the same jobs are the same run. `digest_of` returns
    the `sha256` of a job's document, if it has one; `values` are the other keys of the spec.
    """
    jobs = jobs if isinstance(jobs, JobList) else JobList(jobs)
    by_place, places = _sorted_by_destination(jobs)
    kinds = {form.schema for form in jobs.forms}
    kinds |= {schemas.of(job)[0] for job in by_place if isinstance(job, Job)}
    content, file = _file_of(_Rows(jobs.forms, schemas, digest_of), by_place)
    folder.create()
    folder.jobs.mkdir(exist_ok=True)
    path = folder.jobs / f"{content[:32]}.parquet"
    if _is_in(path, file):
        path.touch()  # the files that are oldest are deleted
    else:  # also if it is damaged, or another version of the library wrote it
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


def _is_in(path: Path, content: memoryview) -> bool:
    """Whether a file has just this content."""
    with storage_errors(f"reading {path.name}"):
        if not path.exists() or path.stat().st_size != len(content):
            return False
        with path.open("rb") as stream:
            return all(
                stream.read(_COMPARED) == bytes(content[start : start + _COMPARED])
                for start in range(0, len(content), _COMPARED)
            )


def require_whole(path: Path) -> None:
    """Refuse a file of jobs that is damaged, if nobody has added the jobs that it is to hold.

    Raises:
        SpecError: it cannot be read, or has other jobs than those that it is named by.
    """
    try:
        source = open_source(str(path))
        with errors_of(str(path)):
            footer = pq.read_metadata(path).metadata or {}
        spelled = _content_of if _DIGEST.encode() in footer else _content_as_before
        content = hashlib.sha256()
        for block in source.batches([JOB_ID, JOB]):
            for one in spelled(block.rows):
                content.update(one)
        # older versions may have named a file otherwise
        noted = footer.get(_CONTENT.encode(), path.stem.encode()).decode()
        is_whole = INPUT not in source.names() or content.hexdigest().startswith(noted)
        problem = "" if is_whole else ": it has other jobs than it had"
    except SourceError as error:
        problem = f" ({error})"
    if problem:
        message = (
            f"jobs: {path} is damaged{problem}. Run the program that adds these jobs with add_job, "
            "which writes the file anew and sends none of them again, or restore it from a copy."
        )
        raise SpecError(message)


def drop_jobs(folder: DatasetFolder, job_id: str) -> int:
    """Take a job out of the files of jobs in a dataset's folder; return how many had it.

    They keep their names, by which runs and state files go.

    Raises:
        SourceError: a file cannot be read, so that nobody knows whether it has the job.
    """
    changed = 0
    for path in sorted(folder.jobs.glob("*.parquet")):
        with errors_of(str(path)), pq.ParquetFile(path) as file:
            jobs = pa.Table.from_batches(list(file.iter_batches(BATCH_ROWS)), file.schema_arrow)
        others = jobs.filter(pc.not_equal(jobs[JOB_ID], job_id))
        if others.num_rows < jobs.num_rows:
            _write_anew(path, others, folder.root)
            changed += 1
    return changed


def _write_anew(path: Path, jobs: pa.Table, aside: Path) -> None:
    """Write a file of jobs anew, as old as it is: of these files the oldest are deleted."""
    content, times = hashlib.sha256(), path.stat()
    with (
        durable(path, aside) as stream,
        pq.ParquetWriter(stream, jobs.schema, compression="zstd") as writer,
    ):
        for block in jobs.combine_chunks().to_batches(BATCH_ROWS):
            for one in _content_of(block):
                content.update(one)
            writer.write_batch(block)
        noted = {_CONTENT: content.hexdigest(), _DIGEST: _DIGEST_VERSION}
        writer.add_key_value_metadata(noted)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


def _file_of(rows: _Rows, jobs: Sequence[Job | PlainJob]) -> tuple[str, memoryview]:
    """Return the digest of jobs, and their file, which is small beside the jobs in memory.

    What fingerprints are made of stands beside the jobs, so that those that need nothing are not
    read again. It follows from the jobs as they are stored, and is no part of the digest.
    """
    content, file = hashlib.sha256(), BytesIO()
    # no two jobs are alike, so that a dictionary of them would only take time
    with pq.ParquetWriter(file, _COLUMNS, compression="zstd", use_dictionary=[TERMS]) as writer:
        for start in range(0, len(jobs), BATCH_ROWS):
            columns = rows.columns_of(jobs[start : start + BATCH_ROWS])
            for one in _content(columns[JOB_ID], columns[JOB]):
                content.update(one)
            arrays = [pa.array(columns[field.name], field.type) for field in _COLUMNS]
            writer.write_batch(pa.RecordBatch.from_arrays(arrays, schema=_COLUMNS))
        writer.add_key_value_metadata({_DIGEST: _DIGEST_VERSION})
    return content.hexdigest(), file.getbuffer()


def _content(ids: list[str], texts: Iterable[bytes]) -> Iterator[bytes]:
    """Yield what the digest of a file is made of; an object in JSON tells itself where it ends."""
    yield orjson.dumps(ids)
    yield from texts


def _content_of(jobs: pa.RecordBatch) -> Iterator[bytes]:
    """Yield what the digest of a file is made of, of some of its jobs."""
    texts = jobs.column(JOB).cast(pa.binary())
    return _content(jobs.column(JOB_ID).to_pylist(), texts.to_pylist())


def _content_as_before(jobs: pa.RecordBatch) -> Iterator[bytes]:
    """Yield what older versions made the digest of."""
    columns = (jobs.column(name).to_pylist() for name in (JOB_ID, JOB))
    yield orjson.dumps(list(zip(*columns, strict=True)))


class _Rows:
    """Makes the rows of the file of jobs."""

    def __init__(
        self,
        forms: Sequence[JobForm],
        schemas: ResponseModels,
        digest_of: Callable[[Job], str | None],
    ) -> None:
        self._forms, self._schemas = forms, schemas
        self._digest_of = digest_of
        self._reader = StoredJobs(schemas.by_digest())

    def columns_of(self, jobs: Sequence[Job | PlainJob]) -> dict[str, list[Any]]:
        """Return the columns of some jobs."""
        columns: dict[str, list[Any]] = {name: [] for name in _COLUMNS.names}
        for start in range(0, len(jobs), _SPELLED):
            rows = map(self._of, jobs[start : start + _SPELLED])
            ids, texts, turns, terms = zip(*rows, strict=True)
            values = ids, texts, inputs_of_texts(turns), terms
            for column, more in zip(columns.values(), values, strict=True):
                column.extend(more)
        return columns

    def _of(self, job: Job | PlainJob) -> tuple[str, bytes, bytes, str]:
        """Return a job's id, the job as JSON, and what its fingerprint is made of."""
        if isinstance(job, tuple):
            job_id, place, texts = job
            form = self._forms[place]
            return job_id, *form.spelled(texts), form.terms
        text = stored_json(job, self._schemas.of(job)[0], self._digest_of(job))
        (stored,) = self._reader.read([job.id], [text])
        return job.id, text, stored.canonical_turns(), stored.terms.spelled


def _sorted_by_destination(jobs: JobList) -> tuple[list[Job | PlainJob], list[Destination]]:
    """Return jobs in the order of their destinations, and the destinations.

    Jobs of the same destination may share a batch.
    """
    groups: dict[Destination, list[Job | PlainJob]] = {}
    forms = [form.destination for form in jobs.forms]
    known: dict[tuple[str, str | None, str], Destination] = {}
    for job in jobs.kept():
        if isinstance(job, tuple):
            to = forms[job[1]]
        else:
            names = job.model, job.provider, job.endpoint
            if (to := known.get(names)) is None:
                to = known[names] = job.destination()
        groups.setdefault(to, []).append(job)
    return [job for group in groups.values() for job in group], list(groups)


def moved_to(folder: DatasetFolder, spec: JobsSpec) -> JobsSpec:
    """Return the spec of a run in a folder that may have been moved or copied since."""
    jobs = folder.jobs / Path(spec.jobs).name
    return spec.model_copy(update={"jobs": str(jobs), "output": str(folder.root)})


def dataset_name(folder: DatasetFolder) -> str:
    """Return a name for the runs of a folder."""
    name = re.sub(r"[^A-Za-z0-9_.-]+", "-", folder.root.name).strip("-.")[:100]
    return name if name[:1].isalnum() else f"batch-{name}"[:100].rstrip("-")
