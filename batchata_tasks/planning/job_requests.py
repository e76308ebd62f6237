"""From a stored Job to its request, and to the fingerprint that decides whether it is sent."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson

from batchata_tasks.common.errors import SpecError
from batchata_tasks.planning.builder import BuiltRequest
from batchata_tasks.planning.job_store import StoredJobs
from batchata_tasks.planning.limits import limit_of
from batchata_tasks.planning.route import Route, Shape
from batchata_tasks.pricing.lookup import rates_at, unpriced

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from batchata_tasks.pricing.price_file import CustomPrices
    from batchata_tasks.providers import Adapter
    from batchata_tasks.schema.response import ResponseSchema
    from batchata_tasks.spec.jobs import JobsSpec
    from batchata_tasks.types.destination import Destination


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

    def build(self, row: Mapping[str, Any], where: Callable[[], str]) -> BuiltRequest:
        """Return the job's request; the job was checked before it was stored."""
        del where
        job, digest, schema = self._stored.read(row)
        place = self._places[job.destination()]
        route = self.routes[place]
        document = self._stored.document(row)
        body = route.provider.body(job.request(schema, document))
        route.cap = max(route.cap, job.max_tokens)
        turns = len(body[route.provider.turns_param])
        shape = Shape(
            job.max_tokens,
            turns,
            structured=schema is not None,
            schema=None if self._common else digest,
            attached=0 if document is None else route.attach(document),
        )
        return BuiltRequest(orjson.dumps(body), shape, place)
