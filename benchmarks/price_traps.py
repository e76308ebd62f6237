"""Price traps: ways to get the price of a batch wrong, with the right figure worked out by hand.

The rates are stated here as published (US dollars per million tokens, in batches), and the
arithmetic is done in the open; none of it uses the code that is checked. The package's figure and
that of somebody in the trap are shown beside it.

    python benchmarks/price_traps.py            # writes price_traps.md beside this file
"""

from __future__ import annotations

import sys
import warnings
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

from genai_prices import Usage as ListedUsage
from genai_prices import calc_price

from batchata_tasks.common.money import usd
from batchata_tasks.pricing.lookup import published_rates
from batchata_tasks.providers.anthropic import results as anthropic_lines
from batchata_tasks.providers.openai import results as openai_lines

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

TABLE = Path(__file__).with_suffix(".md")
USAGE_OF = {"anthropic": anthropic_lines.usage_of, "openai": openai_lines.usage_of}
COLUMNS = (
    "trap",
    "model",
    "usage, as the provider reports it",
    "by hand, from published rates",
    "right $",
    "ours $",
    "in the trap $",
)
UNKNOWN = "unknown"
HEAD = """# Price traps

Ways to get the price of a batch wrong. Written by `python benchmarks/price_traps.py`, which states
the published rates (US dollars per million tokens, in batches; searches per thousand) and does the
arithmetic by hand; *ours* is the figure of `batchata_tasks/pricing/` for the same usage. *In the
trap* is the figure of somebody who falls into it.

Rates: <https://platform.claude.com/docs/en/about-claude/pricing> and
<https://developers.openai.com/api/docs/pricing>, as in genai-prices 0.2.3.
"""

# Published batch rates: input, output, cache read and write, and the higher tier if there is one.
# claude-opus-5-5; list prices: 4, 20, 0.2, 5, and 8 for cache writes that last an hour
OPUS_IN = "2"
OPUS_OUT = "10"
OPUS_READ = "0.1"
OPUS_WRITE = "2.5"
OPUS_HOUR = "4"
# claude-haiku-5-5; the higher tier is for requests of over 100,000 tokens
HAIKU_IN = "0.05"
HAIKU_READ = "0.005"
HAIKU_OVER_IN = "0.25"
HAIKU_OVER_READ = "0.025"
# gpt-6-luna; the higher tier is for requests of over 272,000 tokens
LUNA_IN = "0.05"
LUNA_OUT = "0.25"
LUNA_READ = "0.005"
LUNA_WRITE = "0.0625"
LUNA_OVER_IN = "0.1"
LUNA_OVER_OUT = "0.375"
# gpt-4.1; list prices: 2 and 0.5
GPT41_IN = "1"
GPT41_READ = "0.5"
SEARCH = "10000"  # 10 dollars per thousand searches, as a rate per million


@dataclass(frozen=True)
class Trap:
    """One way to get a price wrong; `right` and `wrong` add up (count, dollars per million)."""

    what: str
    provider: str
    model: str
    block: dict[str, Any]  # the usage, as the provider reports it
    right: tuple[tuple[int, str], ...] | None  # None: no price may be given
    wrong: tuple[tuple[int, str], ...] = ()
    wrong_call: Callable[[], Decimal | str] | None = None  # asks genai-prices in the wrong way
    times: int = 1  # how many requests have this usage
    how: str = ""

    def ours(self) -> Decimal | None:
        """Return the package's figure, in dollars."""
        rates = published_rates(self.provider, self.model)
        usage = USAGE_OF[self.provider](self.block)
        return None if rates is None else usd(sum(rates.cost(usage) for _ in range(self.times)))

    def by_hand(self) -> Decimal | None:
        """Return the right figure in dollars, from the rates stated here."""
        return None if self.right is None else _sum(self.right) * self.times

    def trapped(self) -> Decimal | str:
        """Return the figure of somebody in the trap."""
        return self.wrong_call() if self.wrong_call is not None else _sum(self.wrong)

    def cells(self) -> list[str]:
        """Return the line of the table."""
        times = f"{self.times:,} x " if self.times > 1 else ""
        flat = ", ".join(f"{name} {value:,}" for name, value in _flat(self.block))
        return [
            self.what,
            self.model,
            times + flat,
            times + self._worked(),
            *map(_plain, (self.by_hand(), self.ours())),
            f"{_plain(self.trapped())} ({self.how})",
        ]

    def _worked(self) -> str:
        if self.right is None:
            return "no batch rate is published"
        terms = " + ".join(
            f"{count} x 10/1,000" if rate == SEARCH else f"{count:,} x {rate}/M"
            for count, rate in self.right
        )
        return f"({terms})" if self.times > 1 else terms


def _sum(terms: tuple[tuple[int, str], ...]) -> Decimal:
    return sum((count * Decimal(rate) for count, rate in terms), Decimal()) / 10**6


def _flat(block: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, value in block.items():
        if isinstance(value, dict):
            yield from _flat(value)
        else:
            yield name, value


def _plain(amount: Decimal | str | None) -> str:
    if amount is None or isinstance(amount, str):
        return amount or UNKNOWN
    return f"{amount.normalize():f}"


def _library(
    provider: str, model: str, context: dict[str, str] | None = None, **usage: int
) -> Decimal | str:
    """Ask genai-prices as somebody in the trap would."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # an unknown usage key only causes a warning
        try:
            return calc_price(
                ListedUsage(**usage), model, provider_id=provider, price_context=context
            ).total_price
        except LookupError as error:
            return type(error).__name__


def _chat(prompt: int, completion: int = 0, **details: int) -> dict[str, Any]:
    block: dict[str, Any] = {"prompt_tokens": prompt, "completion_tokens": completion}
    return {**block, "prompt_tokens_details": details} if details else block


_BATCH = {"processing": "batch"}
_MILLION = 10**6
TRAPS = (
    Trap(
        "a context that is spelt otherwise gets the list price, silently",
        "anthropic",
        "claude-opus-5-5",
        {"input_tokens": _MILLION, "output_tokens": 100_000},
        ((_MILLION, OPUS_IN), (100_000, OPUS_OUT)),
        wrong_call=lambda: _library(
            "anthropic",
            "claude-opus-5-5",
            {"service_tier": "batch"},
            input_tokens=_MILLION,
            output_tokens=100_000,
        ),
        how="service_tier: batch",
    ),
    Trap(
        "so does a value of another case",
        "openai",
        "gpt-6-luna",
        _chat(100_000, 10_000),
        ((100_000, LUNA_IN), (10_000, LUNA_OUT)),
        wrong_call=lambda: _library(
            "openai",
            "gpt-6-luna",
            {"processing": "Batch"},
            input_tokens=100_000,
            output_tokens=10_000,
        ),
        how="processing: Batch",
    ),
    Trap(
        "a model without a batch rate gets the list price, silently",
        "openai",
        "gpt-5.5-cyber",
        _chat(_MILLION),
        None,
        wrong_call=lambda: _library("openai", "gpt-5.5-cyber", _BATCH, input_tokens=_MILLION),
        how="the right context",
    ),
    Trap(
        "the newest models are not known at all",
        "openai",
        "gpt-6.2-astra",
        _chat(_MILLION),
        None,
        wrong_call=lambda: _library("openai", "gpt-6.2-astra", _BATCH, input_tokens=_MILLION),
        how="the right context",
    ),
    Trap(
        "a model that searches with each request counts as its plain sibling",
        "openai",
        "gpt-4o-mini-search-preview",
        _chat(1000),
        None,
        wrong_call=lambda: _library(
            "openai", "gpt-4o-mini-search-preview", _BATCH, input_tokens=1000
        ),
        how="without the searches",
    ),
    Trap(
        "a batch is not half price for every model",
        "openai",
        "gpt-3.5-turbo-1106",
        _chat(_MILLION),
        ((_MILLION, "1"),),
        ((_MILLION, "0.5"),),
        how="half of the list price",
    ),
    Trap(
        "cached input is not halved for some models",
        "openai",
        "gpt-4.1",
        _chat(_MILLION, cached_tokens=900_000),
        ((100_000, GPT41_IN), (900_000, GPT41_READ)),
        ((100_000, "1"), (900_000, "0.25")),
        how="half of the list price",
    ),
    Trap(
        "and is halved for others",
        "openai",
        "gpt-6-luna",
        _chat(200_000, cached_tokens=150_000),
        ((50_000, LUNA_IN), (150_000, LUNA_READ)),
        ((50_000, LUNA_IN), (150_000, "0.01")),
        how="cached at the list price",
    ),
    Trap(
        "searches are never halved",
        "anthropic",
        "claude-opus-5-5",
        {"input_tokens": 1000, "output_tokens": 100, "server_tool_use": {"web_search_requests": 3}},
        ((1000, OPUS_IN), (100, OPUS_OUT), (3, SEARCH)),
        ((1000, OPUS_IN), (100, OPUS_OUT), (3, "5000")),
        how="half of the list price",
    ),
    Trap(
        "tiers go by each request, never by the sum",
        "anthropic",
        "claude-haiku-5-5",
        {"input_tokens": 1000, "output_tokens": 0},
        ((1000, HAIKU_IN),),
        ((_MILLION, HAIKU_OVER_IN),),
        times=1000,
        how="the sum priced as one request",
    ),
    Trap(
        "a tier begins above its start",
        "anthropic",
        "claude-haiku-5-5",
        {"input_tokens": 100_000, "output_tokens": 0},
        ((100_000, HAIKU_IN),),
        ((100_000, HAIKU_OVER_IN),),
        how="from 100,000 on",
    ),
    Trap(
        "one token more, and all of them cost the higher rate",
        "anthropic",
        "claude-haiku-5-5",
        {"input_tokens": 100_001, "output_tokens": 0},
        ((100_001, HAIKU_OVER_IN),),
        ((100_000, HAIKU_IN), (1, HAIKU_OVER_IN)),
        how="only the token beyond",
    ),
    Trap(
        "cached tokens count for the tier",
        "anthropic",
        "claude-haiku-5-5",
        {"input_tokens": 1000, "cache_read_input_tokens": 150_000, "output_tokens": 0},
        ((1000, HAIKU_OVER_IN), (150_000, HAIKU_OVER_READ)),
        ((1000, HAIKU_IN), (150_000, HAIKU_READ)),
        how="tier of input_tokens",
    ),
    Trap(
        "the input's size sets the output's tier",
        "openai",
        "gpt-6-luna",
        _chat(300_000, 1000),
        ((300_000, LUNA_OVER_IN), (1000, LUNA_OVER_OUT)),
        ((300_000, LUNA_OVER_IN), (1000, LUNA_OUT)),
        how="tier of the output",
    ),
    Trap(
        "Anthropic's input_tokens leave out what was cached",
        "anthropic",
        "claude-opus-5-5",
        {
            "input_tokens": 100,
            "cache_read_input_tokens": 200,
            "cache_creation_input_tokens": 50,
            "output_tokens": 30,
        },
        ((100, OPUS_IN), (200, OPUS_READ), (50, OPUS_WRITE), (30, OPUS_OUT)),
        ((200, OPUS_READ), (50, OPUS_WRITE), (30, OPUS_OUT)),
        how="taken to be in it: nothing is left at the plain rate",
    ),
    Trap(
        "OpenAI's prompt_tokens hold it",
        "openai",
        "gpt-6-luna",
        _chat(350, 30, cached_tokens=200),
        ((150, LUNA_IN), (200, LUNA_READ), (30, LUNA_OUT)),
        ((350, LUNA_IN), (200, LUNA_READ), (30, LUNA_OUT)),
        how="counted twice",
    ),
    Trap(
        "reasoning is part of the output already",
        "openai",
        "gpt-6-luna",
        {**_chat(22, 900), "completion_tokens_details": {"reasoning_tokens": 890}},
        ((22, LUNA_IN), (900, LUNA_OUT)),
        ((22, LUNA_IN), (1790, LUNA_OUT)),
        how="counted twice",
    ),
    Trap(
        "OpenAI bills cache writes, which nobody asked for",
        "openai",
        "gpt-6-luna",
        _chat(100_000, cache_write_tokens=80_000),
        ((20_000, LUNA_IN), (80_000, LUNA_WRITE)),
        ((100_000, LUNA_IN),),
        how="as plain input",
    ),
    Trap(
        "cache writes for an hour cost 2 times the input, not 1.25 times",
        "anthropic",
        "claude-opus-5-5",
        {
            "input_tokens": 10,
            "cache_creation_input_tokens": 100_000,
            "output_tokens": 0,
            "cache_creation": {
                "ephemeral_5m_input_tokens": 40_000,
                "ephemeral_1h_input_tokens": 60_000,
            },
        },
        ((10, OPUS_IN), (40_000, OPUS_WRITE), (60_000, OPUS_HOUR)),
        ((10, OPUS_IN), (100_000, OPUS_WRITE)),
        how="all at the 5-minute rate",
    ),
    Trap(
        "an unknown usage key is a warning and costs nothing",
        "anthropic",
        "claude-opus-5-5",
        {"input_tokens": 0, "output_tokens": 0, "server_tool_use": {"web_search_requests": 3}},
        ((3, SEARCH),),
        wrong_call=lambda: _library(
            "anthropic", "claude-opus-5-5", _BATCH, input_tokens=0, web_search_requests=3
        ),
        how="the provider's name, where the library says web_searches",
    ),
)


def page() -> str:
    """Return the whole page."""
    lines = [COLUMNS, ["---"] * 4 + ["---:"] * 2 + ["---"], *(trap.cells() for trap in TRAPS)]
    return "\n".join([HEAD, *(f"| {' | '.join(cells)} |" for cells in lines)]) + "\n"


def main() -> None:
    """Write the page."""
    TABLE.write_text(page(), encoding="utf-8")
    sys.stdout.write(f"wrote {TABLE.name}: {len(TRAPS)} traps\n")


if __name__ == "__main__":
    main()
