"""`batchata plan --sample`: the first requests of a plan, as they would be sent."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import orjson

from batchata_tasks.common.money import dollars, exact
from batchata_tasks.common.text import pluralize
from batchata_tasks.dataset.manifest import first_requests
from batchata_tasks.planning.estimate import estimate
from batchata_tasks.pricing.token_bounds import input_bound
from batchata_tasks.reports.requests import RequestParts, differing, pretty

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from batchata_tasks.planning.estimate import Estimate, UsageForecast
    from batchata_tasks.planning.packing import PlannedChunk
    from batchata_tasks.planning.table import PreparedTable


@dataclass(frozen=True, slots=True)
class SampledRequest:
    """One request of a plan: its row's key, its parts, what it is likely to use, and at most.

    `bound` is the most that it can cost, in picodollars; None without a known price.
    """

    key: dict[str, Any]
    parts: RequestParts
    expected: Estimate
    most_input_tokens: int
    most_output_tokens: int
    bound: int | None

    def costs(self) -> str:
        """Return tokens and cost for people."""
        tokens = (
            f"about {self.expected.input_tokens:,} tokens in (at most {self.most_input_tokens:,}), "
            f"{self.expected.output_tokens:,} out (at most {self.most_output_tokens:,})"
        )
        if self.bound is None:
            return f"{tokens}; cost unknown"
        return f"{tokens}; about {dollars(self.expected.cost)}, at most {dollars(self.bound)}"


@dataclass(frozen=True, slots=True)
class Sample:
    """The first requests of a plan, and what all of its requests have in common."""

    requests: tuple[SampledRequest, ...] = ()
    planned: int = 0
    parameters: dict[str, Any] = field(default_factory=dict[str, Any])
    schema: dict[str, Any] | None = None

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values; money is exact decimal text in US dollars."""
        return {
            "parameters": self.parameters,
            "schema": self.schema,
            "requests": [
                {
                    "key": _plain(one.key),
                    "turns": one.parts.to_json(),
                    "other_parameters": differing(one.parts.parameters, self.parameters),
                    "input_tokens": one.expected.input_tokens,
                    "output_tokens": one.expected.output_tokens,
                    "most_input_tokens": one.most_input_tokens,
                    "most_output_tokens": one.most_output_tokens,
                    "expected_usd": exact(one.expected.cost),
                    "upper_bound_usd": exact(one.bound),
                }
                for one in self.requests
            ],
        }

    def text(self) -> str:
        """Return the requests for people, with what they have in common once."""
        if not self.requests:
            return "No request to show: nothing would be sent."
        lines = list[str]()
        for number, one in enumerate(self.requests, 1):
            key = ", ".join(f"{name}={value!r}" for name, value in one.key.items())
            lines += [f"Request {number} of {self.planned:,}, of the row with {key}:"]
            lines += [f"  {one.costs()}", *one.parts.lines()]
            if other := differing(one.parts.parameters, self.parameters):
                lines += ["  in this one:", *pretty(other)]
            lines.append("")
        lines += [f"Sent with {_all(self.planned)}:", *pretty(self.parameters)]
        if self.schema is not None:
            lines += ["", "The schema of the answers:", *pretty(self.schema)]
        return "\n".join(lines)


def _all(requests: int) -> str:
    return "it" if requests == 1 else f"each of the {pluralize(requests, 'request')}"


def _plain(key: dict[str, Any]) -> dict[str, Any]:
    """Return a key with values that JSON has; others become text."""
    plain: dict[str, Any] = orjson.loads(orjson.dumps(key, default=str))
    return plain


def sample_of(
    plan: Path,
    rows: int,
    table: PreparedTable,
    chunks: Sequence[PlannedChunk],
    usage: Sequence[UsageForecast],
) -> Sample:
    """Return the first `rows` requests of a plan.

    `usage` is what requests of each route are likely to use.
    """
    planned = chunks[-1].stop if chunks else 0
    requests = list[SampledRequest]()
    for place, (row, body) in enumerate(first_requests(plan, min(rows, planned))):
        route = next(chunk.route for chunk in chunks if place < chunk.stop)
        requests.append(_sampled(table, row, body, route, usage[route]))
    if not requests:
        return Sample()
    first = requests[0].parts
    # another attempt may have a larger cap, or one more turn: what is common is the base request's
    common = {
        name: value
        for name, value in first.parameters.items()
        if all(one.parts.parameters.get(name) == value for one in requests)
    }
    return Sample(tuple(requests), planned, common, first.schema)


def _sampled(
    table: PreparedTable, row: dict[str, Any], body: bytes, place: int, usage: UsageForecast
) -> SampledRequest:
    route = table.builder.routes[place]
    parts = RequestParts.of(body, route.provider)
    whole: dict[str, Any] = orjson.loads(body)
    cap: int = whole[route.provider.cap_in(whole)]
    turns = len(whole[route.provider.turns_param])
    structured = table.answers.common is not None or row["_schema"] is not None
    return SampledRequest(
        {name: row[name] for name in table.spec.key},
        parts,
        estimate(usage.usual, 1, row["_bytes"], cap, usage.rates),
        input_bound(len(body), turns, schema=structured) + (row["_attached"] or 0),
        cap,
        row["_bound"] if route.rates is not None else None,
    )
