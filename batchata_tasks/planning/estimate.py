"""Estimates: what requests are likely to use and cost. Limits never rest on them, only on upper bounds.

Input follows the bytes of a request, output the number of requests, both as in the spec's newest
finished batches. Before one has finished it is a guess, and said to be one.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Any, cast

import orjson

from batchata_tasks.common.json import as_dict
from batchata_tasks.dataset.manifest import sampled_bodies
from batchata_tasks.ledger import UsageHistory
from batchata_tasks.types.answer import Usage
from batchata_tasks.types.ids import CUSTOM_ID_CHARS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

    from batchata_tasks.ledger import Ledger
    from batchata_tasks.planning.packing import PlannedChunk
    from batchata_tasks.planning.route import Route
    from batchata_tasks.planning.summary import PlanSummary
    from batchata_tasks.planning.table import Table
    from batchata_tasks.pricing.rates import Rates

# bytes in so many tokens, by the rules of thumb that the providers' documentation has for English text
_BYTES_IN_TOKENS = {"anthropic": (7, 2), "openai": (4, 1)}
_CAUTIOUS = (7, 2)
_SHARE_OF_CAP, _SHORT = 4, 200
_SAMPLE = 200  # requests; counting the tokens of all of them would take longer than planning
_MESSAGE_TOKENS, _REQUEST_TOKENS = (
    4,
    3,
)  # that OpenAI adds around each message, and around all of them


@dataclass(frozen=True, slots=True)
class Estimate:
    """Tokens and picodollars; the amounts are None without a known price."""

    input_tokens: int = 0
    output_tokens: int = 0
    cost: int | None = None
    list_cost: int | None = None


def estimate(
    usual: UsageHistory,
    requests: int,
    size: int,
    cap: int,
    rates: Rates | None,
    *,
    further_rounds: bool = False,
) -> Estimate:
    """Return what `requests` requests of `size` bytes together are likely to use, each of them running once.

    `cap` is the most output tokens of one. With `further_rounds`, what failed rows use in later
    rounds of the run is in it.
    """
    if not requests:
        return Estimate(cost=0 if rates else None, list_cost=0 if rates else None)
    inputs = usual.input_tokens + (usual.again_input_tokens if further_rounds else 0)
    tokens_in = size * inputs // max(usual.bytes, 1)
    tokens_out = min(usual.output_tokens * requests // max(usual.requests, 1), cap * requests)
    if further_rounds:
        tokens_out += tokens_out * usual.again_output_tokens // max(usual.output_tokens, 1)
    if rates is None:
        return Estimate(tokens_in, tokens_out)
    read, written = (
        tokens_in * n // max(usual.input_tokens, 1)
        for n in (usual.cache_read_tokens, usual.cache_write_tokens)
    )
    usage = Usage(tokens_in, tokens_out, read, written)
    return Estimate(
        tokens_in, tokens_out, rates.cost(usage, requests), rates.list_cost(usage, requests)
    )


@dataclass(frozen=True, slots=True)
class UsageForecast:
    """What requests of one route use, the cap on their answers and what tokens cost there."""

    usual: UsageHistory
    cap: int
    rates: Rates | None


def measures(
    ledger: Ledger | None, table: Table, spans: Sequence[PlannedChunk], plan: Path | None = None
) -> list[UsageForecast]:
    """Return what requests of each route of a run use: as its finished batches did, or a guess where none has finished.

    What those read from a cache or wrote to one counts only where the route's requests still do.

    The guess: input by the providers' rules of thumb, or counted on a sample of a `plan` where a
    tokenizer is installed (`batchata-flows[tokens]`, OpenAI); output a quarter of the cap, at most
    200 tokens.
    """
    found = list[UsageForecast]()
    for place, route in enumerate(table.builder.routes):
        mine = [span for span in spans if span.route == place]
        usual = (
            ledger.usual(route.provider.name, route.model, table.spec.name)
            if ledger is not None
            else None
        )
        if usual is not None and not route.caches:
            usual = replace(usual, cache_read_tokens=0, cache_write_tokens=0)
        sample = (
            partial(sampled_bodies, plan, mine[0].start, mine[-1].stop, _SAMPLE)
            if plan is not None and mine
            else None
        )
        guess = usual or _with_documents(
            _guess(route, sample), route, sum(span.bytes for span in mine)
        )
        found.append(UsageForecast(guess, route.cap, route.rates))
    return found


def guessed(route: Route, bodies: Sequence[bytes]) -> Estimate:
    """Return what requests of these bodies are likely to use, as a plan guesses it before a batch has finished."""
    sizes = [route.provider.framing.size(CUSTOM_ID_CHARS, body) for body in bodies]
    step = -(-len(bodies) // _SAMPLE)
    usual = _with_documents(
        _guess(route, lambda: list(zip(sizes[::step], bodies[::step], strict=True))),
        route,
        sum(sizes),
    )
    return estimate(usual, len(bodies), sum(sizes), route.cap, route.rates)


def _guess(route: Route, sample: Callable[[], list[tuple[int, bytes]]] | None) -> UsageHistory:
    """Guess by the providers' rules of thumb, or by a sample: (bytes of the request, its body) each."""
    size, tokens = _BYTES_IN_TOKENS.get(route.provider.name, _CAUTIOUS)
    counted = (
        route.provider.name == "openai" and not route.attached[0]
    )  # documents are counted by rule
    count = _tokenizer() if counted and sample is not None else None
    if count is not None and sample is not None:
        bodies = sample()
        size, tokens = (
            sum(bytes_ for bytes_, _ in bodies),
            sum(_tokens_of(body, count) for _, body in bodies),
        )
    return UsageHistory(
        requests=1,
        bytes=size,
        input_tokens=tokens,
        output_tokens=max(min(route.cap // _SHARE_OF_CAP, _SHORT), 1),
    )


def _with_documents(text: UsageHistory, route: Route, size: int) -> UsageHistory:
    """Return a guess for requests of `size` bytes together, part of which are documents, given the one for text alone."""
    attached, tokens = route.attached
    if not attached or attached > size:
        return text
    return replace(
        text, bytes=size, input_tokens=(size - attached) * text.input_tokens // text.bytes + tokens
    )


def forecast_costs(
    summary: PlanSummary, spans: Sequence[PlannedChunk], measured: Sequence[UsageForecast]
) -> list[int | None]:
    """Write into a plan's summary what it is likely to use and cost, and return the cost of each span's first round."""
    found = list[Estimate]()
    for place, one in enumerate(measured):
        mine = [span for span in spans if span.route == place]
        requests, size = (
            sum(span.stop - span.start for span in mine),
            sum(span.bytes for span in mine),
        )
        if requests or len(measured) == 1:
            found.append(
                estimate(one.usual, requests, size, one.cap, one.rates, further_rounds=True)
            )
    summary.expected, summary.expected_list = (
        _sum(one.cost for one in found),
        _sum(one.list_cost for one in found),
    )
    summary.input_tokens = sum(one.input_tokens for one in found)
    summary.output_tokens = sum(one.output_tokens for one in found)
    summary.calibrated_by = min(one.usual.batches for one in measured)
    return costs_of(spans, measured)


def _sum(amounts: Iterable[int | None]) -> int | None:
    known = list(amounts)
    return None if None in known else sum(amount or 0 for amount in known)


def costs_of(spans: Iterable[PlannedChunk], measured: Sequence[UsageForecast]) -> list[int | None]:
    """Return what each span is likely to cost, in picodollars; None without a known price."""
    costs = list[int | None]()
    for span in spans:
        one = measured[span.route]
        costs.append(
            estimate(one.usual, span.stop - span.start, span.bytes, one.cap, one.rates).cost
        )
    return costs


def based_on(batches: int) -> str:
    """Say what an estimate rests on."""
    if not batches:
        return "a guess: no batch of this spec has finished yet"
    return f"from the last {batches:,} batches" if batches > 1 else "from the last batch"


def _tokenizer() -> Callable[[str], int] | None:
    """Return what counts tokens as OpenAI's models do; None where it is not installed."""
    try:
        found: Any = import_module("bpe_openai")
    except ModuleNotFoundError:
        return None
    encoding = found.get_encoding("o200k_base")
    return lambda text: len(encoding.encode_ordinary(text))


def _tokens_of(body: bytes, count: Callable[[str], int]) -> int:
    request = as_dict(orjson.loads(body))
    messages = [
        as_dict(message)
        for message in cast("list[Any]", request.get("messages") or request.get("input") or [])
    ]
    form = as_dict(request.get("response_format")).get("json_schema") or as_dict(
        request.get("text")
    ).get("format")
    schema = as_dict(form).get("schema")
    texts = sum(count(str(message.get("content", ""))) + _MESSAGE_TOKENS for message in messages)
    return (
        texts
        + _REQUEST_TOKENS
        + (count(orjson.dumps(schema).decode()) if schema is not None else 0)
    )
