"""Estimates: what requests are likely to use and cost.

Input follows the bytes of a request, output the number of requests, both as in the spec's newest
finished batches. Before one has finished, an estimate is a guess, and is called one. Limits never
rest on estimates, only on upper bounds.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache, partial
from importlib.machinery import PathFinder
from importlib.util import find_spec, module_from_spec
from typing import TYPE_CHECKING, Any, cast

import orjson

from batchata_tasks.common.json import as_dict
from batchata_tasks.common.money import total
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
    from batchata_tasks.planning.table import PreparedTable
    from batchata_tasks.pricing.rates import Rates

# (bytes, tokens): the rules of thumb for English text in the providers' documentation
_BYTES_AND_TOKENS = {"anthropic": (7, 2), "openai": (4, 1)}
_CAUTIOUS = (7, 2)
_SHARE_OF_CAP = 4
_SHORT = 200  # tokens of an answer
_SAMPLE = 200  # requests; counting the tokens of all of them would take longer than planning
_MESSAGE_TOKENS = 4  # that OpenAI adds around each message
_REQUEST_TOKENS = 3  # that OpenAI adds around all of them


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
    """Return what requests are likely to use and cost if each of them runs once.

    `size` is the number of their bytes together, `cap` the most output tokens of one. With
    `further_rounds`, what failed rows use in later rounds of the run is included.
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
    read = tokens_in * usual.cache_read_tokens // max(usual.input_tokens, 1)
    written = tokens_in * usual.cache_write_tokens // max(usual.input_tokens, 1)
    usage = Usage(tokens_in, tokens_out, read, written)
    cost, list_cost = rates.cost(usage, requests), rates.list_cost(usage, requests)
    return Estimate(tokens_in, tokens_out, cost, list_cost)


@dataclass(frozen=True, slots=True)
class UsageForecast:
    """What requests of one route use, the cap on their answers, and what tokens cost there."""

    usual: UsageHistory
    cap: int
    rates: Rates | None


def measures(
    ledger: Ledger | None,
    table: PreparedTable,
    spans: Sequence[PlannedChunk],
    plan: Path | None = None,
) -> list[UsageForecast]:
    """Return what requests of each route of a run use: as its finished batches did, or a guess.

    What those batches read from a cache, or wrote to one, counts only if the route's requests still
    do so.

    The guess: input by the providers' rules of thumb, or counted on a sample of a `plan` if a
    tokenizer is installed (`batchata-flows[tokens]`, OpenAI); output a quarter of the cap, at most
    200 tokens.
    """
    forecasts = list[UsageForecast]()
    for place, route in enumerate(table.builder.routes):
        chunks = [span for span in spans if span.route == place]
        usual = None
        if ledger is not None:
            usual = ledger.usage_history(
                route.provider.name, route.model, table.spec.name, rehearsal=table.rehearsal
            )
        if usual is None:
            sample = None
            if plan is not None and chunks:
                start, stop = chunks[0].start, chunks[-1].stop
                sample = partial(sampled_bodies, plan, start, stop, _SAMPLE)
            size = sum(span.bytes for span in chunks)
            usual = _with_documents(_guess(route, sample), route, size)
        elif not route.caches:
            usual = replace(usual, cache_read_tokens=0, cache_write_tokens=0)
        forecasts.append(UsageForecast(usual, route.cap, route.rates))
    return forecasts


def guessed(route: Route, bodies: Sequence[bytes]) -> Estimate:
    """Return what requests are likely to use, as a plan guesses before a batch has finished."""
    sizes = [route.provider.framing.size(CUSTOM_ID_CHARS, body) for body in bodies]
    step = -(-len(bodies) // _SAMPLE)
    guess = _guess(route, lambda: list(zip(sizes[::step], bodies[::step], strict=True)))
    usual = _with_documents(guess, route, sum(sizes))
    return estimate(usual, len(bodies), sum(sizes), route.cap, route.rates)


def _guess(route: Route, sample: Callable[[], list[tuple[int, bytes]]] | None) -> UsageHistory:
    """Guess by the providers' rules of thumb, or by a sample of (bytes of a request, its body)."""
    size, tokens = _BYTES_AND_TOKENS.get(route.provider.name, _CAUTIOUS)
    # documents are counted by rule
    countable = route.provider.name == "openai" and not route.attached[0]
    if countable and sample is not None and (count := _tokenizer()) is not None:
        requests = sample()
        size = sum(request_bytes for request_bytes, _ in requests)
        tokens = sum(_tokens_of(body, count) for _, body in requests)
    answer = max(min(route.cap // _SHARE_OF_CAP, _SHORT), 1)
    return UsageHistory(requests=1, bytes=size, input_tokens=tokens, output_tokens=answer)


def _with_documents(text: UsageHistory, route: Route, size: int) -> UsageHistory:
    """Return a guess for requests that have documents, given the guess for text alone.

    `size` is the number of the requests' bytes together, documents included.
    """
    attached, tokens = route.attached
    if not attached or attached > size:
        return text
    of_text = (size - attached) * text.input_tokens // text.bytes
    return replace(text, bytes=size, input_tokens=of_text + tokens)


def forecast_costs(
    summary: PlanSummary, spans: Sequence[PlannedChunk], forecasts: Sequence[UsageForecast]
) -> list[Estimate]:
    """Write into a plan's summary what it is likely to use and cost.

    Return what the first round of each chunk is likely to use and cost, as `estimates_of` does.
    """
    estimates = list[Estimate]()
    for place, one in enumerate(forecasts):
        chunks = [span for span in spans if span.route == place]
        requests = sum(span.stop - span.start for span in chunks)
        size = sum(span.bytes for span in chunks)
        if requests or len(forecasts) == 1:
            estimates.append(
                estimate(one.usual, requests, size, one.cap, one.rates, further_rounds=True)
            )
    summary.expected = total(one.cost for one in estimates)
    summary.expected_list = total(one.list_cost for one in estimates)
    summary.input_tokens = sum(one.input_tokens for one in estimates)
    summary.output_tokens = sum(one.output_tokens for one in estimates)
    summary.calibrated_by = min(one.usual.batches for one in forecasts)
    return estimates_of(spans, forecasts)


def estimates_of(
    spans: Iterable[PlannedChunk], forecasts: Sequence[UsageForecast]
) -> list[Estimate]:
    """Return what each chunk is likely to use and cost if it runs once."""
    estimates = list[Estimate]()
    for span in spans:
        one, rows = forecasts[span.route], span.stop - span.start
        estimates.append(estimate(one.usual, rows, span.bytes, one.cap, one.rates))
    return estimates


def based_on(batches: int) -> str:
    """Return the words for what an estimate rests on, given the number of finished batches."""
    if not batches:
        return "a guess: no batch of this spec has finished yet"
    return f"from the last {batches:,} batches" if batches > 1 else "from the last batch"


@cache  # it takes a tenth of a second to make one
def _tokenizer() -> Callable[[str], int] | None:
    """Return a function that counts tokens as OpenAI's models do; None if it is not installed."""
    if (package := find_spec("bpe_openai")) is None:
        return None
    # its binding has tables of its own; the package around it reads others of 70 MB, for decoding
    binding = PathFinder.find_spec("_bindings", package.submodule_search_locations)
    if binding is None or binding.loader is None:
        return None
    bindings: Any = module_from_spec(binding)
    binding.loader.exec_module(bindings)
    return bindings.tokenizer_for_encoding("o200k_base").count


def _tokens_of(body: bytes, count: Callable[[str], int]) -> int:
    request = as_dict(orjson.loads(body))
    turns = cast("list[Any]", request.get("messages") or request.get("input") or [])
    texts = [str(as_dict(turn).get("content", "")) for turn in turns]
    tokens = sum(count(text) + _MESSAGE_TOKENS for text in texts) + _REQUEST_TOKENS
    of_chat = as_dict(request.get("response_format")).get("json_schema")
    of_responses = as_dict(request.get("text")).get("format")
    schema = as_dict(of_chat or of_responses).get("schema")
    return tokens if schema is None else tokens + count(orjson.dumps(schema).decode())
