"""Prices of batches: rates resolved once per model, then exact integer arithmetic per request.

The rates come from the user's own price file, or else from genai-prices in its batch context; whether
a batch rate exists is checked, since that library returns the list price where it knows none.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from datetime import UTC, datetime
from decimal import ROUND_CEILING, Decimal
from difflib import get_close_matches
from functools import cache
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from genai_prices import Usage as _PricedUsage
from genai_prices import calc_price
from genai_prices.data_snapshot import get_snapshot
from pydantic import TypeAdapter

from batchata_tasks.money import PICO
from batchata_tasks.prices_file import own_price

if TYPE_CHECKING:
    from batchata_tasks.jobs import Usage
    from batchata_tasks.prices_file import OwnPrice

_CONTEXT = {"processing": "batch"}
_PER = 10**6
_US_ONLY = 11  # tenths: https://platform.claude.com/docs/en/about-claude/pricing (data residency), not in genai-prices
# chat models that search the web with each request: the fee is billed per search, and no usage counts it
_SEARCHES_UNCOUNTED = "-search-"
# what is taken where a price file leaves a rate out: the most that any model of genai-prices costs there
_WRITE, _WRITE_1H, _SEARCHES = Decimal("1.25"), Decimal(2), Decimal(10)  # times input, times input, dollars per thousand


@dataclass(frozen=True, slots=True)
class Rate:
    """Picodollars per token: `base`, or the price of the highest tier whose start is exceeded."""

    base: int
    tiers: tuple[tuple[int, int], ...] = ()

    def at(self, input_tokens: int) -> int:
        """Return the rate of a request with so many input tokens."""
        price = self.base
        for start, tier_price in self.tiers:
            if input_tokens > start:
                price = tier_price
        return price

    def most(self, input_tokens: int) -> int:
        """Return the dearest rate of all requests with at most so many input tokens; a higher tier may be cheaper."""
        return max([self.base, *(price for start, price in self.tiers if input_tokens > start)])


@dataclass(frozen=True, slots=True)
class Tariff:
    """What one model costs; tiers apply to each request by its own whole input."""

    input: Rate
    output: Rate
    cache_read: Rate
    cache_write: Rate
    cache_write_1h: Rate
    search: int  # picodollars per web search

    def cost(self, usage: Usage, requests: int = 1) -> int:
        """Return what one answer costs, in picodollars; or that many, all alike, which used `usage` together."""
        whole = usage.input_tokens // requests
        plain = usage.input_tokens - usage.cache_read_tokens - usage.cache_write_tokens - usage.cache_write_1h_tokens
        tokens = (
            max(plain, 0) * self.input.at(whole)
            + usage.cache_read_tokens * self.cache_read.at(whole)
            + usage.cache_write_tokens * self.cache_write.at(whole)
            + usage.cache_write_1h_tokens * self.cache_write_1h.at(whole)
            + usage.output_tokens * self.output.at(whole)
        )
        if usage.us_only:
            tokens = -(-tokens * _US_ONLY // 10)
        return tokens + usage.web_searches * self.search


@dataclass(frozen=True, slots=True)
class Rates(Tariff):
    """The batch rates of one model, and for comparison what it costs outside of batches."""

    listed: Tariff
    source: str  # what the rates are from, with its version or date

    def list_cost(self, usage: Usage, requests: int = 1) -> int:
        """Return what the same answers would cost outside of a batch, in picodollars.

        What a price file does not tell of the list price counts at the batch rate: no saving is claimed on it.
        """
        return self.listed.cost(usage, requests)

    def bound(self, input_tokens: int, output_tokens: int, *, cache_writes: bool) -> int:
        """Return the most that a request with at most so many tokens can cost, in picodollars.

        Each token counts at the dearest rate that it can be billed at, in any tier up to its own.
        `cache_writes` says whether input may be billed as written to a cache, which costs up to
        twice the plain rate. Web searches are not in it: a cost limit forbids what can cause them.
        """
        kinds = [self.input, self.cache_read]
        if cache_writes:
            kinds += [self.cache_write, self.cache_write_1h]
        return input_tokens * max(kind.most(input_tokens) for kind in kinds) + output_tokens * self.output.most(input_tokens)


_KEPT: TypeAdapter[Rates | None] = TypeAdapter(Rates | None)


def rates_json(rates: Rates | None) -> dict[str, Any] | None:
    """Return rates as plain JSON values, for a run to keep."""
    kept: dict[str, Any] | None = _KEPT.dump_python(rates, mode="json")
    return kept


def kept_rates(data: dict[str, Any] | None) -> Rates | None:
    """Return the rates that `rates_json` was given."""
    return _KEPT.validate_python(data)


def batch_rates(provider: str, model: str) -> Rates | None:
    """Return the batch rates of a model, or None where no batch rate is known.

    The user's price file is looked at anew each time: keep what is returned for as long as one run lasts.

    Raises:
        SpecError: the user's price file is wrong.
    """
    batch, listed = _published(provider, model)
    if (own := own_price(provider, model)) is not None:
        return _own_rates(own, listed)
    if batch is None or listed is None:
        return None
    return _rates(batch, listed, f"genai-prices {version('genai-prices')}")


def similar_models(provider: str, model: str) -> list[str]:
    """Return the names most like `model` of the provider's models that have a published batch rate."""
    known = (entry for entry in get_snapshot().providers if entry.id == provider)
    names = [priced.id for entry in known for priced in entry.models if priced.id != model]
    return [name for name in get_close_matches(model, names, n=6) if _published(provider, name)[0] is not None][:3]


def _rates(batch: Tariff, listed: Tariff, source: str) -> Rates:
    return Rates(**{field.name: getattr(batch, field.name) for field in fields(Tariff)}, listed=listed, source=source)


def _own_rates(own: OwnPrice, published: Tariff | None) -> Rates:
    write = own.input * _WRITE if own.cache_write is None else own.cache_write
    hour = max(own.input * _WRITE_1H, write) if own.cache_write_1h is None else own.cache_write_1h
    searches = _SEARCHES if own.searches_per_thousand is None else own.searches_per_thousand
    read = own.input if own.cache_read is None else own.cache_read
    kinds = [Rate(_exact(amount / _PER)) for amount in (own.input, own.output, read, write, hour)]
    batch = Tariff(*kinds, search=_exact(searches / 1000))
    listed = published or batch
    if own.list_input is not None and own.list_output is not None:
        listed = replace(batch, input=Rate(_exact(own.list_input / _PER)), output=Rate(_exact(own.list_output / _PER)))
    return _rates(batch, listed, own.described())


@cache
def _published(provider: str, model: str) -> tuple[Tariff | None, Tariff | None]:
    """Return a model's batch and list prices as genai-prices has them; None for what it does not know."""
    usage = _PricedUsage(input_tokens=1)
    if _SEARCHES_UNCOUNTED in model:
        return None, None
    try:
        found = calc_price(usage, model, provider_id=provider, price_context=_CONTEXT)
        listed = calc_price(usage, model, provider_id=provider)
    except LookupError:
        return None, None
    now = datetime.now(UTC)
    variants = [variant for variant in found.model.price_variants or () if variant.when == _CONTEXT]
    known = any(variant.constraint is None or variant.constraint.active(now) for variant in variants)
    return _tariff(found.model_price) if known else None, _tariff(listed.model_price)


def _tariff(price: Any) -> Tariff | None:
    base, output = _rate(price.input_mtok), _rate(price.output_mtok)
    if base is None or output is None:
        return None
    write, searches = _rate(price.cache_write_mtok) or base, price.web_searches_kcount
    return Tariff(
        input=base,
        output=output,
        cache_read=_rate(price.cache_read_mtok) or base,
        cache_write=write,
        cache_write_1h=_rate(price.cache_write_1h_mtok) or write,
        search=_exact(searches / 1000) if searches is not None else 0,
    )


def _rate(price: Any) -> Rate | None:
    if price is None:
        return None
    if isinstance(price, Decimal):
        return Rate(_exact(price / _PER))
    return Rate(_exact(price.base / _PER), tuple((tier.start, _exact(tier.price / _PER)) for tier in price.tiers))


def _exact(amount: Decimal) -> int:
    """Picodollars of an amount in dollars; a finer rate than any published one is rounded up."""
    return int((amount * PICO).to_integral_value(rounding=ROUND_CEILING))
