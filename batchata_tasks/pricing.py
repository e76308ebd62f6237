"""Prices of batches: rates resolved once per model, then exact integer arithmetic per request.

The rates come from genai-prices, dated and sourced there, in its batch context; whether a batch
rate exists is checked, since the library returns the list price where it knows none.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import ROUND_CEILING, Decimal
from functools import cache
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from genai_prices import Usage as _PricedUsage
from genai_prices import calc_price

from batchata_tasks.money import PICO

if TYPE_CHECKING:
    from batchata_tasks.jobs import Usage

_CONTEXT = {"processing": "batch"}
_PER = 10**6


@dataclass(frozen=True, slots=True)
class _Rate:
    """Picodollars per token: `base`, or the price of the highest tier whose start is exceeded."""

    base: int
    tiers: tuple[tuple[int, int], ...] = ()

    def at(self, input_tokens: int) -> int:
        price = self.base
        for start, tier_price in self.tiers:
            if input_tokens > start:
                price = tier_price
        return price


@dataclass(frozen=True, slots=True)
class Rates:
    """The batch rates of one model; tiers apply to each request by its own whole input."""

    input: _Rate
    output: _Rate
    cache_read: _Rate
    cache_write: _Rate
    cache_write_1h: _Rate
    search: int  # picodollars per web search
    source: str  # what the rates are from, with its version

    def cost(self, usage: Usage) -> int:
        """Return what one answer costs, in picodollars."""
        whole = usage.input_tokens
        plain = whole - usage.cache_read_tokens - usage.cache_write_tokens - usage.cache_write_1h_tokens
        return (
            max(plain, 0) * self.input.at(whole)
            + usage.cache_read_tokens * self.cache_read.at(whole)
            + usage.cache_write_tokens * self.cache_write.at(whole)
            + usage.cache_write_1h_tokens * self.cache_write_1h.at(whole)
            + usage.output_tokens * self.output.at(whole)
            + usage.web_searches * self.search
        )

    def bound(self, input_tokens: int, output_tokens: int) -> int:
        """Return the most that a request with at most so many tokens can cost, in picodollars.

        Input counts at the dearest rate it can be billed at, cache writes included; the tier is
        the one of the bound, and never a cheaper one.
        """
        kinds = (self.input, self.cache_read, self.cache_write, self.cache_write_1h)
        dearest_input = max(max(rate.at(input_tokens), rate.base) for rate in kinds)
        dearest_output = max(self.output.at(input_tokens), self.output.base)
        return input_tokens * dearest_input + output_tokens * dearest_output


@cache
def batch_rates(provider: str, model: str) -> Rates | None:
    """Return the batch rates of a model, or None where no batch rate is known."""
    try:
        found = calc_price(_PricedUsage(input_tokens=1), model, provider_id=provider, price_context=_CONTEXT)
    except LookupError:
        return None
    variants = found.model.price_variants or ()
    if not any(variant.when == _CONTEXT for variant in variants):
        return None
    price = found.model_price
    base_input = _rate(price.input_mtok)
    output = _rate(price.output_mtok)
    if base_input is None or output is None:
        return None
    searches: Any = price.web_searches_kcount
    return Rates(
        input=base_input,
        output=output,
        cache_read=_rate(price.cache_read_mtok) or base_input,
        cache_write=_rate(price.cache_write_mtok) or base_input,
        cache_write_1h=_rate(price.cache_write_1h_mtok) or _rate(price.cache_write_mtok) or base_input,
        search=_exact(Decimal(searches) / 1000) if searches is not None else 0,
        source=f"genai-prices {version('genai-prices')}",
    )


def _rate(price: Any) -> _Rate | None:
    if price is None:
        return None
    if isinstance(price, Decimal):
        return _Rate(_exact(price / _PER))
    return _Rate(_exact(price.base / _PER), tuple((tier.start, _exact(tier.price / _PER)) for tier in price.tiers))


def _exact(amount: Decimal) -> int:
    """Picodollars of an amount in dollars; a finer rate than any published one is rounded up."""
    return int((amount * PICO).to_integral_value(rounding=ROUND_CEILING))
