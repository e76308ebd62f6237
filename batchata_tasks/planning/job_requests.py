"""From a stored Job to its request, and to the fingerprint that decides whether it is sent."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson

from batchata_tasks.common.errors import SpecError
from batchata_tasks.planning.builder import BuiltRequest, Fingerprints
from batchata_tasks.planning.job_store import StoredJobs
from batchata_tasks.planning.limits import limit_of
from batchata_tasks.planning.route import Route, Shape
from batchata_tasks.pricing.lookup import rates_at, unpriced

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from batchata_tasks.planning.row_block import RowBlock
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

    def kept(self, rows: RowBlock) -> Sequence[int]:
        """Every job counts."""
        return range(len(rows))

    def nulls(self, rows: RowBlock) -> dict[int, str]:
        """Jobs have no nulls."""
        del rows
        return {}

    def fingerprints(self, rows: RowBlock) -> Fingerprints:
        """Return the fingerprints of the jobs' base requests."""
        prints = [self._stored.fingerprint(rows.row(i)) for i in range(len(rows))]
        return Fingerprints([one for one, _ in prints], [others for _, others in prints])

    def inputs_v1(self, rows: RowBlock) -> list[bytes]:
        """Return the inputs of the jobs' fingerprints, which are the same in all versions."""
        return self.fingerprints(rows).inputs

    def requests(self, rows: RowBlock, places: Sequence[int]) -> Iterator[BuiltRequest]:
        """Yield the jobs' requests; the jobs were checked before they were stored."""
        return (self._request(rows.row(place)) for place in places)

    def _request(self, row: Mapping[str, Any]) -> BuiltRequest:
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
