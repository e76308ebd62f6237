"""From a stored Job to the request that is sent for it, and to the fingerprint that decides whether."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson
import pyarrow as pa

from batchata_tasks.answer_schemas import AnswerSchemas
from batchata_tasks.columns import dataset_schema
from batchata_tasks.dataset import Dataset
from batchata_tasks.errors import SpecError
from batchata_tasks.fingerprint import fingerprint, part
from batchata_tasks.job import Job
from batchata_tasks.jobs_spec import JOB_ID
from batchata_tasks.prepared import Table
from batchata_tasks.pricing import batch_rates
from batchata_tasks.request import Made, limit_of, unpriced
from batchata_tasks.route import Route, Shape
from batchata_tasks.sources import open_source

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from batchata_tasks.documents import Document
    from batchata_tasks.jobs_spec import JobsSpec
    from batchata_tasks.providers import Provider
    from batchata_tasks.run_spec import Destination
    from batchata_tasks.schema import ResponseSchema

JOB = "job"  # the column of the stored jobs: JSON, with the digest of the response model for the model


class StoredJobs:
    """Reads stored jobs, with the response models that they name."""

    def __init__(self, schemas: Mapping[str, ResponseSchema]) -> None:
        self._schemas = schemas
        self._text, self._job, self._digest, self._sha256 = "", Job("", ""), None, None

    def read(self, row: Mapping[str, Any]) -> tuple[Job, str | None, ResponseSchema | None]:
        """Return a job, and its response model with the digest."""
        if (text := row[JOB]) is not self._text:
            stored: dict[str, Any] = orjson.loads(text)
            self._digest, self._sha256 = stored.pop("schema"), stored.pop("sha256", None)
            if (file := stored.pop("file", None)) is not None:
                stored["file"] = Path(file)
            self._text, self._job = text, Job(row[JOB_ID], **stored)
        return self._job, self._digest, None if self._digest is None else self._schemas[self._digest]

    def document(self, row: Mapping[str, Any]) -> Document | None:
        """Read the document of a job.

        Raises:
            SpecError: it is another one by now.
        """
        job, _, _ = self.read(row)
        document = job.document()
        if document is not None and document.sha256 != self._sha256:
            message = f"job {job.id!r:.80}: file: {job.file} has changed since the run began; run again."
            raise SpecError(message)
        return document

    def fingerprint(self, row: Mapping[str, Any]) -> str:
        """Return the fingerprint of a job's base request."""
        job, _, schema = self.read(row)
        asked, to = job.request(schema), job.destination()
        facts = {"provider": to.provider, "endpoint": to.endpoint, "model": to.model}
        facts |= {"max_tokens": asked.max_tokens, "params": dict(asked.params)}
        turns: list[Any] = [[turn.role, turn.content] for turn in asked.messages]
        if job.enable_citations:
            facts["citations"] = True
        if self._sha256 is not None:
            turns.append(["document", self._sha256])
        canonical = schema.canonical if schema is not None else None
        return fingerprint(part("input", turns), part("prompt", "job"), part("model", facts), part("schema", canonical))


class JobBuilder:
    """Turns stored jobs into fingerprints and request bodies."""

    def __init__(
        self, spec: JobsSpec, providers: Mapping[Destination, Provider], schemas: Mapping[str, ResponseSchema], *, common: bool
    ) -> None:
        self._spec, self._stored, self._common = spec, StoredJobs(schemas), common
        self.routes = [Route(providers[to], to.model, to.endpoint, batch_rates(to.provider, to.model)) for to in spec.to]
        self._places = {route.destination: place for place, route in enumerate(self.routes)}
        self.constant: tuple[str, ...] = ()
        limit = limit_of(spec)
        for route in self.routes:
            if route.rates is None and limit is not None:
                raise SpecError(unpriced("model", route.provider.name, route.model, limit))

    def columns_needed(self, all_columns: list[str]) -> list[str]:
        """Return the columns that must be read: all."""
        return all_columns

    def keeps(self, row: Mapping[str, Any], where: Callable[[], str]) -> bool:
        """Every job counts."""
        del row, where
        return True

    def null_column(self, row: Mapping[str, Any]) -> str | None:
        """Jobs have no nulls."""
        del row

    def fingerprint(self, row: Mapping[str, Any]) -> str:
        """Return the fingerprint of the job's base request."""
        return self._stored.fingerprint(row)

    def made(self, row: Mapping[str, Any], where: Callable[[], str]) -> Made:
        """Return the job's request."""
        del where
        job, digest, schema = self._stored.read(row)
        place = self._places[job.destination()]
        route = self.routes[place]
        route.provider.check_model(job.model, job.max_tokens)
        route.provider.check_params(job.model, job.request(None).params, limited=self._spec.limited)
        document = self._stored.document(row)
        body = route.provider.body(job.request(schema, document))
        route.cap = max(route.cap, job.max_tokens)
        attached, own = 0 if document is None else route.attach(document), None if self._common else digest
        shape = Shape(job.max_tokens, len(body[route.provider.turns_param]), schema is not None, own, attached)
        return Made(orjson.dumps(body), shape, place)


def prepare_jobs(spec: JobsSpec, providers: Mapping[Destination, Provider], data: Path) -> Table:
    """Make a batch of jobs ready to be planned.

    Raises:
        SpecError: a job's model has no known price under a limit.
        SourceError: the stored jobs are gone.
    """
    schemas = spec.response_schemas()
    carried = pa.schema([pa.field(JOB_ID, pa.string())])
    common = spec.uniform
    answers = AnswerSchemas(next(iter(schemas.values()), None)) if common else AnswerSchemas(None, schemas)
    builder = JobBuilder(spec, providers, schemas, common=common)
    dataset = Dataset(data, dataset_schema(carried, answers.common), spec.key, spec.carried)
    return Table(spec, open_source(spec.jobs, {}), builder, answers, dataset)
