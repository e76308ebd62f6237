"""From a stored Job to its request, and to the fingerprint that decides whether it is sent."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import orjson
import pyarrow as pa

from batchata_tasks.common.errors import SpecError
from batchata_tasks.planning.body_form import BodyForm
from batchata_tasks.planning.builder import BuiltRequest, Fingerprints, without_text
from batchata_tasks.planning.job_list import stored_form
from batchata_tasks.planning.job_store import INPUT, JOB, TERMS
from batchata_tasks.planning.limits import limit_of
from batchata_tasks.planning.route import Route, Shape
from batchata_tasks.planning.stored_jobs import StoredJobs, inputs_of_jobs
from batchata_tasks.planning.text_form import spelled
from batchata_tasks.pricing.lookup import rates_at, unpriced
from batchata_tasks.spec.jobs import JOB_ID
from batchata_tasks.types.request import Message

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from batchata_tasks.planning.row_block import RowBlock
    from batchata_tasks.planning.stored_jobs import StoredJob, Terms
    from batchata_tasks.planning.text_form import TextForm
    from batchata_tasks.pricing.price_file import CustomPrices
    from batchata_tasks.providers import Adapter
    from batchata_tasks.schema.response import ResponseSchema
    from batchata_tasks.spec.job import Roles
    from batchata_tasks.spec.jobs import JobsSpec
    from batchata_tasks.types.destination import Destination
    from batchata_tasks.types.document import Document
    from batchata_tasks.types.request import Request


_FORMS_KEPT = 256


class _Form(NamedTuple):
    """What jobs that differ in their texts alone, as they are `stored`, share with others."""

    stored: TextForm
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
        self._forms: dict[tuple[Terms, Roles, bool], _Form | None] = {}
        self._latest: dict[Terms, _Form] = {}
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

    def columns_of_files(self) -> list[str]:
        """Return none: jobs name their documents themselves."""
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
        jobs = self._jobs(rows)
        return Fingerprints(inputs_of_jobs(jobs), [job.terms.others for job in jobs])

    def inputs_v1(self, rows: RowBlock) -> list[bytes]:
        """Return the inputs of the jobs' fingerprints, which are the same in all versions."""
        return self.fingerprints(rows).inputs

    def requests(self, rows: RowBlock, places: Sequence[int]) -> Iterator[BuiltRequest]:
        """Yield the jobs' requests; the jobs were checked before they were stored."""
        rows = rows.take(places)
        if TERMS not in rows.batch.schema.names:  # they were stored by an older version
            yield from map(self._request, self._jobs(rows))
            return
        terms = self._stored.terms_of(rows.batch.column(TERMS))
        stored = rows.batch.column(JOB).cast(pa.binary()).to_pylist()
        for job_id, text, own in zip(rows.values(JOB_ID), stored, terms, strict=True):
            # most jobs have the form of the one before, so that their JSON need not be parsed
            if (request := self._like_latest(text, own)) is None:
                (job,) = self._stored.read([job_id], [text], [own])
                request = self._request(job)
            yield request

    def _jobs(self, rows: RowBlock) -> list[StoredJob]:
        """Return jobs that were stored by an older version."""
        return self._stored.read(rows.values(JOB_ID), rows.values(JOB))

    def _like_latest(self, stored: bytes, terms: Terms) -> BuiltRequest | None:
        """Return the request of a job that differs from one before in its texts alone."""
        form = self._latest.get(terms)
        if form is None or (texts := form.stored.texts_of(stored)) is None:
            return None
        return BuiltRequest(form.body.with_texts(texts), form.shape, form.place)

    def _request(self, job: StoredJob) -> BuiltRequest:
        if job.texts is not None:
            roles, texts = zip(*job.texts, strict=True)
            form = self._form(job.terms, roles, is_prompt=job.messages is None)
            if form is not None:
                self._latest[job.terms] = form
                body = form.body.with_texts(list(map(spelled, texts)))
                return BuiltRequest(body, form.shape, form.place)
        try:
            document = job.document()
        except SpecError as error:
            return BuiltRequest(b"{}", Shape(0, 0, structured=False), refused=error)
        return self._exact(job.terms, job.job().request(job.terms.schema, document), document)

    def _form(self, terms: Terms, roles: Roles, *, is_prompt: bool) -> _Form | None:
        """Return what jobs share that have these terms, and texts alone in these turns."""
        kind = terms, roles, is_prompt
        if kind not in self._forms:
            if len(self._forms) >= _FORMS_KEPT:
                self._forms.clear()
                self._latest.clear()
            turns = tuple(Message(role, "a text") for role in roles)
            request = replace(terms.job.request(terms.schema), messages=turns)
            _, shape, place, *_ = self._exact(terms, request, None)
            body = BodyForm.of(self.routes[place].provider, request)
            stored = stored_form(terms.spelled, roles, is_prompt=is_prompt)
            self._forms[kind] = None if body is None else _Form(stored, body, shape, place)
        return self._forms[kind]

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
            attached=0 if document is None else route.attach(document.beside(terms.schema)),
        )
        textless = without_text([document])
        return BuiltRequest(orjson.dumps(body), shape, place, without_text=textless)
