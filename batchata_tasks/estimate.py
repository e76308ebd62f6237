"""Estimates: what requests are likely to use and cost. Limits never rest on them, only on upper bounds.

Input follows the bytes of a request, output the number of requests, both as in the spec's newest
finished batches. Before one has finished it is a guess, and said to be one.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any, cast

import orjson

from batchata_tasks.jobs import Usage, as_dict
from batchata_tasks.ledger import Usual
from batchata_tasks.manifest import sampled_bodies

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

    from batchata_tasks.chunk import Span
    from batchata_tasks.ledger import Ledger
    from batchata_tasks.prepared import PlanSummary
    from batchata_tasks.pricing import Rates
    from batchata_tasks.spec import EnrichmentSpec

# bytes in so many tokens, by the rules of thumb that the providers' documentation has for English text
_BYTES_IN_TOKENS = {"anthropic": (7, 2), "openai": (4, 1)}
_SHARE_OF_CAP, _SHORT = 4, 200
_SAMPLE = 200  # requests; counting the tokens of all of them would take longer than planning
_MESSAGE_TOKENS, _REQUEST_TOKENS = 4, 3  # that OpenAI adds around each message, and around all of them


@dataclass(frozen=True, slots=True)
class Estimate:
    """Tokens and picodollars; the amounts are None without a known price."""

    input_tokens: int = 0
    output_tokens: int = 0
    cost: int | None = None
    list_cost: int | None = None


def estimate(usual: Usual, requests: int, size: int, cap: int, rates: Rates | None, *, further_rounds: bool = False) -> Estimate:
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
    read, written = (tokens_in * n // max(usual.input_tokens, 1) for n in (usual.cache_read_tokens, usual.cache_write_tokens))
    usage = Usage(tokens_in, tokens_out, read, written)
    return Estimate(tokens_in, tokens_out, rates.cost(usage, requests), rates.list_cost(usage, requests))


def usual_use(ledger: Ledger | None, provider: str, spec: EnrichmentSpec, plan: Path | None = None, rows: int = 0) -> Usual:
    """Return what requests of a spec use: as its finished batches did, or a guess where none has finished.

    The guess: input by the providers' rules of thumb, or counted on a sample of the first `rows` requests
    of a plan where a tokenizer is installed (`batchata-flows[tokens]`, OpenAI); output a quarter of
    the cap, at most 200 tokens.
    """
    found = ledger.usual(provider, spec.model, spec.name) if ledger is not None else None
    if found is not None:
        return found
    size, tokens = _BYTES_IN_TOKENS[provider]
    count = _tokenizer() if provider == "openai" and plan is not None and rows else None
    if count is not None and plan is not None:
        sample = sampled_bodies(plan, rows, _SAMPLE)
        size, tokens = sum(bytes_ for bytes_, _ in sample), sum(_tokens_of(body, count) for _, body in sample)
    return Usual(requests=1, bytes=size, input_tokens=tokens, output_tokens=max(min(spec.max_tokens // _SHARE_OF_CAP, _SHORT), 1))


def foresee(summary: PlanSummary, spans: Sequence[Span], usual: Usual, cap: int, rates: Rates | None) -> list[int | None]:
    """Write into a plan's summary what it is likely to use and cost, and return the cost of each span's first round."""
    requests, size = sum(span.stop - span.start for span in spans), sum(span.bytes for span in spans)
    found = estimate(usual, requests, size, cap, rates, further_rounds=True)
    summary.expected, summary.expected_list = found.cost, found.list_cost
    summary.input_tokens, summary.output_tokens = found.input_tokens, found.output_tokens
    summary.calibrated_by = usual.batches
    return costs_of(spans, usual, cap, rates)


def costs_of(spans: Iterable[Span], usual: Usual, cap: int, rates: Rates | None) -> list[int | None]:
    """Return what each span is likely to cost, in picodollars; None without a known price."""
    return [estimate(usual, span.stop - span.start, span.bytes, cap, rates).cost for span in spans]


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
    messages = [as_dict(message) for message in cast("list[Any]", request.get("messages") or [])]
    schema = as_dict(as_dict(request.get("response_format")).get("json_schema")).get("schema")
    texts = sum(count(str(message.get("content", ""))) + _MESSAGE_TOKENS for message in messages)
    return texts + _REQUEST_TOKENS + (count(orjson.dumps(schema).decode()) if schema is not None else 0)
