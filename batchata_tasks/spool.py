"""Spooling: the jobs of a batch written to a file, from which a run reads them as often as it has to."""

from __future__ import annotations

import hashlib
import re
from copy import deepcopy
from typing import TYPE_CHECKING, Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel

from batchata_tasks.documents import digest_of
from batchata_tasks.errors import SpecError
from batchata_tasks.fingerprint import base32, canonical, digest
from batchata_tasks.job_builder import JOB
from batchata_tasks.jobs_spec import JOB_ID, JobsSpec
from batchata_tasks.plain import not_json
from batchata_tasks.schema import ResponseSchema
from batchata_tasks.source import BATCH_ROWS
from batchata_tasks.storage import DatasetFolder, durable

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from batchata_tasks.job import Job
    from batchata_tasks.run_spec import Destination

_COLUMNS = pa.schema([pa.field(JOB_ID, pa.string()), pa.field(JOB, pa.string())])
_DIGEST_BYTES = 10


class Schemas:
    """The response models of jobs, each read once."""

    def __init__(self) -> None:
        self._known: dict[int | str, tuple[object, str, ResponseSchema]] = {}
        self._contents: dict[str, str] = {}
        self._copies: dict[str, dict[str, Any]] = {}
        self._own: set[int] = set()  # ids of the copies, which need no comparing

    def of(self, job: Job) -> tuple[str | None, ResponseSchema | None]:
        """Return the digest and the schema of a job's response model.

        Raises:
            SpecError: a batch cannot ask for it; the field is named.
        """
        model = job.response_model
        if model is None:
            return None, None
        place = id(model) if isinstance(model, type) or id(model) in self._own else repr(model)
        if place not in self._known:
            schema = _read(job, model)
            name = self._name(schema, f"{model.__module__}.{model.__qualname__}" if isinstance(model, type) else "")
            self._known[place] = model, name, schema  # the class is kept, so that its id stays its own
        _, name, schema = self._known[place]
        return name, schema

    def _name(self, schema: ResponseSchema, model: str) -> str:
        """Name a response model by its schema and class, since classes that ask for the same may check it otherwise.

        Those that have one name, too, as a function makes them, are numbered.
        """
        taken, number = {name for _, name, _ in self._known.values()}, 1
        asked, kind = canonical(schema.kept), model.encode()
        name = base32(digest("response model", asked, kind)[:_DIGEST_BYTES])
        while kind and name in taken:
            number += 1
            name = base32(digest("response model", asked, kind, b"%d" % number)[:_DIGEST_BYTES])
        self._contents[name] = base32(digest("response model", asked)[:_DIGEST_BYTES])
        return name

    def adopt(self, named: Mapping[str, dict[str, Any]]) -> None:
        """Keep the names that an earlier run had for response models, so that its jobs are the same jobs still."""
        for name, model in named.items():
            self._known[repr(model)] = model, name, ResponseSchema.from_json_schema(model, "response_model")

    def content(self, name: str | None) -> str | None:
        """Return what two response models share that ask for the same, given a name of `of`."""
        return None if name is None else self._contents.get(name, name)

    def own(self, model: dict[str, Any]) -> dict[str, Any]:
        """Return a copy of a JSON Schema that its giver cannot change, one for all that are alike."""
        if (name := repr(model)) not in self._copies:
            self._copies[name] = deepcopy(model)
            self._own.add(id(self._copies[name]))
        return self._copies[name]

    def by_digest(self) -> dict[str, ResponseSchema]:
        """Return all that were read."""
        return {name: schema for _, name, schema in self._known.values()}


def _read(job: Job, model: type[BaseModel] | dict[str, Any]) -> ResponseSchema:
    label = f"job {job.id!r:.80}: response_model"
    if isinstance(model, type):
        if not issubclass(model, BaseModel):  # pyright: ignore[reportUnnecessaryIsInstance]
            message = f"{label}: {model.__name__} is no Pydantic model; derive it from pydantic.BaseModel."
            raise SpecError(message)
        return ResponseSchema.from_model(model, label)
    if (wrong := not_json(model)) is not None:
        message = f"{label}: {wrong} is no JSON; write names with texts, numbers, lists."
        raise SpecError(message)
    return ResponseSchema.from_json_schema(model, label)


def spooled(folder: DatasetFolder, jobs: Sequence[Job], schemas: Schemas, **values: Any) -> JobsSpec:
    """Write jobs where a dataset's runs find them; return the spec of a run of them, with these other values.

    The file is named by its content, so that the same jobs are the same run.
    """
    by_place, places = sorted_by_destination(jobs)
    kinds = {schemas.of(job)[0] for job in jobs}
    digests = {file: digest_of(file) for file in {job.file for job in jobs} if file is not None}
    content = hashlib.sha256()
    for rows in _blocks(by_place, schemas, digests):
        content.update(orjson.dumps(rows))
    folder.create()
    folder.jobs.mkdir(exist_ok=True)
    path = folder.jobs / f"{content.hexdigest()[:32]}.parquet"
    if path.exists():
        path.touch()  # the oldest are deleted
    else:
        # aside in the folder above: a run of another process sweeps half-written files out of this one
        with durable(path, folder.root) as stream, pq.ParquetWriter(stream, _COLUMNS, compression="zstd") as writer:
            for rows in _blocks(by_place, schemas, digests):
                columns = [pa.array(column, pa.string()) for column in zip(*rows, strict=True)]
                writer.write_batch(pa.RecordBatch.from_arrays(columns, schema=_COLUMNS))
    models = {name: schema for name, schema in schemas.by_digest().items() if name in kinds}
    spec = JobsSpec(
        jobs=str(path), count=len(jobs), to=list(places), uniform=len(kinds) == 1,
        schemas={name: schema.kept for name, schema in models.items()}, output=str(folder.root), **values,
    )
    return spec.with_models(models)


def sorted_by_destination(jobs: Iterable[Job]) -> tuple[list[Job], list[Destination]]:
    """Return jobs with those together that may share a batch, and the destinations in that order."""
    groups: dict[Destination, list[Job]] = {}
    for job in jobs:
        groups.setdefault(job.destination(), []).append(job)
    return [job for group in groups.values() for job in group], list(groups)


def _blocks(jobs: Sequence[Job], schemas: Schemas, digests: Mapping[Path, str]) -> Iterator[list[tuple[str, str]]]:
    for start in range(0, len(jobs), BATCH_ROWS):
        yield [(job.id, _stored(job, schemas.of(job)[0], digests)) for job in jobs[start : start + BATCH_ROWS]]


def _stored(job: Job, schema: str | None, digests: Mapping[Path, str]) -> str:
    fields = {
        "model": job.model, "messages": job.messages, "prompt": job.prompt, "temperature": job.temperature, "max_tokens": job.max_tokens,
        "provider": job.provider, "params": job.params,
    }
    if job.file is not None:
        fields |= {"file": str(job.file.absolute()), "sha256": digests[job.file], "enable_citations": job.enable_citations or None}
    kept = {name: value for name, value in fields.items() if value not in (None, {})}
    return orjson.dumps({**kept, "endpoint": job.endpoint, "schema": schema}, option=orjson.OPT_SORT_KEYS).decode()


def dataset_name(folder: DatasetFolder) -> str:
    """Return a name for the runs of a folder."""
    name = re.sub(r"[^A-Za-z0-9_.-]+", "-", folder.root.name).strip("-.")[:100]
    return name if name[:1].isalnum() else f"batch-{name}"[:100].rstrip("-")
