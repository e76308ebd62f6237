"""From a stored Job to its request, and to the fingerprint that decides whether it is sent."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Literal, NamedTuple

import orjson

from batchata_tasks.common.errors import SpecError
from batchata_tasks.planning.body_form import BodyForm
from batchata_tasks.planning.builder import BuiltRequest, Fingerprints
from batchata_tasks.planning.job_store import INPUT, JOB, TERMS
from batchata_tasks.planning.limits import limit_of
from batchata_tasks.planning.route import Route, Shape
from batchata_tasks.planning.stored_jobs import StoredJobs, inputs_of_jobs
from batchata_tasks.pricing.lookup import rates_at, unpriced
from batchata_tasks.spec.jobs import JOB_ID
from batchata_tasks.types.request import Message

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from batchata_tasks.planning.row_block import RowBlock
    from batchata_tasks.planning.stored_jobs import StoredJob, Terms
    from batchata_tasks.pricing.price_file import CustomPrices
    from batchata_tasks.providers import Adapter
    from batchata_tasks.schema.response import ResponseSchema
    from batchata_tasks.spec.jobs import JobsSpec
    from batchata_tasks.types.destination import Destination
    from batchata_tasks.types.document import Document
    from batchata_tasks.types.request import Request


_FORMS_KEPT = 256
_Role = Literal["system", "user", "assistant"]


class _Form(NamedTuple):
    """What the requests of jobs share that differ in their texts alone."""

    body: BodyForm
    shape: Shape
    place: int


class JobBuilder:
    """Turns stored jobs into fingerprints and request bodies."""

    def __init__(
        self,
        spec: JobsSpec,
        providers: Mapping[Destination, Adapter],
        schemas: Mapping[str, ResponseSchema],
        prices: CustomPrices,
        *,
        common: bool,
    ) -> None:
        self._stored, self._common = StoredJobs(schemas), common
        self._forms: dict[tuple[Terms, tuple[_Role, ...]], _Form | None] = {}
        self.routes = [
            Route(providers[to], to.model, to.endpoint, rates_at(providers[to], to.model, prices))
            for to in spec.to
        ]
        self._places = {route.destination: place for place, route in enumerate(self.routes)}
        self.constant: tuple[str, ...] = ()
        limit = limit_of(spec)
        for route in self.routes:
            if route.rates is None and limit is not None:
                raise SpecError(unpriced("model", route.provider.name, route.model, limit))

    def columns_needed(self, all_columns: list[str]) -> list[str]:
        """Return the columns that must be read: all."""
        return all_columns

    def columns_used(self) -> list[str]:
        """Return none: stored jobs have types of their own, which no source changes."""
        return []

    def kept(self, rows: RowBlock) -> Sequence[int]:
        """Every job counts."""
        return range(len(rows))

    def nulls(self, rows: RowBlock) -> dict[int, str]:
        """Jobs have no nulls."""
        del rows
        return {}

    def fingerprints(self, rows: RowBlock) -> Fingerprints:
        """Return the fingerprints of the jobs' base requests."""
        if INPUT in rows.batch.schema.names:
            others = [terms.others for terms in self._stored.terms_of(rows.batch.column(TERMS))]
            return Fingerprints(list(rows.values(INPUT)), others)
        jobs = self._jobs(rows, range(len(rows)))  # they were stored by an older version
        return Fingerprints(inputs_of_jobs(jobs), [job.terms.others for job in jobs])

    def inputs_v1(self, rows: RowBlock) -> list[bytes]:
        """Return the inputs of the jobs' fingerprints, which are the same in all versions."""
        return self.fingerprints(rows).inputs

    def requests(self, rows: RowBlock, places: Sequence[int]) -> Iterator[BuiltRequest]:
        """Yield the jobs' requests; the jobs were checked before they were stored."""
        return map(self._request, self._jobs(rows, places))

    def _jobs(self, rows: RowBlock, places: Sequence[int]) -> list[StoredJob]:
        """Return the jobs at some places of a block."""
        columns = [rows.values(JOB_ID), rows.values(JOB)]
        if TERMS in rows.batch.schema.names:
            columns.append(self._stored.terms_of(rows.batch.column(TERMS)))
        return self._stored.read(*[[column[place] for place in places] for column in columns])

    def _request(self, job: StoredJob) -> BuiltRequest:
        if job.texts is not None:
            roles, contents = zip(*job.texts, strict=True)
            if (form := self._form(job.terms, roles)) is not None:
                return BuiltRequest(form.body.with_texts(contents), form.shape, form.place)
        document = job.document()
        return self._exact(job.terms, job.job().request(job.terms.schema, document), document)

    def _form(self, terms: Terms, roles: tuple[_Role, ...]) -> _Form | None:
        """Return what requests share that have these terms, and texts alone in these turns."""
        if (terms, roles) not in self._forms:
            if len(self._forms) >= _FORMS_KEPT:
                self._forms.clear()
            turns = tuple(Message(role, "a text") for role in roles)
            request = replace(terms.job.request(terms.schema), messages=turns)
            _, shape, place = self._exact(terms, request, None)
            body = BodyForm.of(self.routes[place].provider, request)
            self._forms[terms, roles] = None if body is None else _Form(body, shape, place)
        return self._forms[terms, roles]

    def _exact(self, terms: Terms, request: Request, document: Document | None) -> BuiltRequest:
        place = self._places[terms.job.destination()]
        route = self.routes[place]
        body = route.provider.body(request)
        route.cap = max(route.cap, request.max_tokens)
        shape = Shape(
            request.max_tokens,
            len(body[route.provider.turns_param]),
            structured=terms.schema is not None,
            schema=None if self._common else terms.digest,
            attached=0 if document is None else route.attach(document),
        )
        return BuiltRequest(orjson.dumps(body), shape, place)
