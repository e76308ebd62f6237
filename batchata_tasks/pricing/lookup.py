"""Prices of batches: rates resolved once per model, then exact integer arithmetic per request.

The rates come from the user's own price file, or else from genai-prices in its batch context; whether
a batch rate exists is checked, since that library returns the list price where it knows none.
"""

from __future__ import annotations

from dataclasses import fields, replace
from datetime import UTC, datetime
from decimal import ROUND_CEILING, Decimal
from difflib import get_close_matches
from functools import cache
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from genai_prices import Usage as _PricedUsage
from genai_prices import calc_price
from genai_prices.data_snapshot import get_snapshot

from batchata_tasks.common.money import PICO
from batchata_tasks.pricing.price_file import own_price
from batchata_tasks.pricing.rates import PriceList, Rate, Rates

if TYPE_CHECKING:
    from batchata_tasks.pricing.price_file import CustomPrice

_CONTEXT = {"processing": "batch"}
_PER = 10**6

# chat models that search the web with each request: the fee is billed per search, and no usage counts it
_SEARCHES_UNCOUNTED = "-search-"

# what is taken where a price file leaves a rate out: the most that any model of genai-prices costs there
_WRITE, _WRITE_1H, _SEARCHES = (
    Decimal("1.25"),
    Decimal(2),
    Decimal(10),
)  # times input, times input, dollars per thousand


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
    return [
        name
        for name in get_close_matches(model, names, n=6)
        if _published(provider, name)[0] is not None
    ][:3]


def _rates(batch: PriceList, listed: PriceList, source: str) -> Rates:
    return Rates(
        **{field.name: getattr(batch, field.name) for field in fields(PriceList)},
        listed=listed,
        source=source,
    )


def _own_rates(own: CustomPrice, published: PriceList | None) -> Rates:
    write = own.input * _WRITE if own.cache_write is None else own.cache_write
    hour = max(own.input * _WRITE_1H, write) if own.cache_write_1h is None else own.cache_write_1h
    searches = _SEARCHES if own.searches_per_thousand is None else own.searches_per_thousand
    read = own.input if own.cache_read is None else own.cache_read
    kinds = [Rate(_exact(amount / _PER)) for amount in (own.input, own.output, read, write, hour)]
    batch = PriceList(*kinds, search=_exact(searches / 1000))
    listed = published or batch
    if own.list_input is not None and own.list_output is not None:
        listed = replace(
            batch,
            input=Rate(_exact(own.list_input / _PER)),
            output=Rate(_exact(own.list_output / _PER)),
        )
    return _rates(batch, listed, own.described())


@cache
def _published(provider: str, model: str) -> tuple[PriceList | None, PriceList | None]:
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
    known = any(
        variant.constraint is None or variant.constraint.active(now) for variant in variants
    )
    return _tariff(found.model_price) if known else None, _tariff(listed.model_price)


def _tariff(price: Any) -> PriceList | None:
    base, output = _rate(price.input_mtok), _rate(price.output_mtok)
    if base is None or output is None:
        return None
    write, searches = _rate(price.cache_write_mtok) or base, price.web_searches_kcount
    return PriceList(
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
    return Rate(
        _exact(price.base / _PER),
        tuple((tier.start, _exact(tier.price / _PER)) for tier in price.tiers),
    )


def _exact(amount: Decimal) -> int:
    """Picodollars of an amount in dollars; a finer rate than any published one is rounded up."""
    return int((amount * PICO).to_integral_value(rounding=ROUND_CEILING))


def unpriced(label: str, provider: str, model: str, limit: str) -> str:
    """Return the sentence that refuses a model without a known batch price under a limit."""
    close = similar_models(provider, model)
    meant = f" (did you mean {' or '.join(close)}?)" if close else ""
    return (
        f"{label}: no batch price is known for {model!r}, so {limit} could not hold; check its name{meant}, "
        "state its batch rates in prices.toml, or remove the limit (costs will read as unknown)."
    )
