"""Prices of batches: rates resolved once per model, then exact integer arithmetic per request.

The rates come from the user's own price file, or else from genai-prices in its batch context. That
library returns the list price if it knows no batch rate, so whether it knows one is checked here.
"""

from __future__ import annotations

from dataclasses import fields, replace
from datetime import UTC, datetime
from decimal import ROUND_CEILING, Decimal
from difflib import get_close_matches
from functools import partial
from typing import TYPE_CHECKING, Any

from genai_prices import Usage as _PricedUsage
from genai_prices import calc_price

from batchata_tasks.common.installed import version_of
from batchata_tasks.common.money import PICO
from batchata_tasks.pricing.rates import PriceList, Rate, Rates
from batchata_tasks.providers import is_built_in, is_of_family
from batchata_tasks.providers.model_names import BATCH_CONTEXT, batch_models, did_you_mean

if TYPE_CHECKING:
    from batchata_tasks.pricing.price_file import CustomPrice, CustomPrices
    from batchata_tasks.providers import Adapter

_MILLION = 10**6
_FINE_TUNED = "ft:"

# chat models that search the web with each request: the fee is per search, and no usage counts it
_SEARCHES_UNCOUNTED = "-search-"

# what counts if a price file leaves a rate out: the most that any model of genai-prices costs there
_WRITE = Decimal("1.25")  # times the input rate
_WRITE_1H = Decimal(2)  # times the input rate
_SEARCHES = Decimal(10)  # dollars per thousand


def rates_at(provider: Adapter, model: str, custom: CustomPrices) -> Rates | None:
    """Return a model's batch rates at the address that an adapter sends to; None if unknown."""
    return batch_rates(provider.name, model, custom, surcharge=provider.surcharge(model))


def batch_rates(
    provider: str, model: str, custom: CustomPrices, *, surcharge: int = 0
) -> Rates | None:
    """Return a model's batch rates: the user's own, or else the published ones; None if unknown.

    `surcharge` (per cent) is what an address adds to published prices. The user's own rates are
    what the user pays, wherever requests go: nothing is added to them.
    """
    price = custom.of(provider, model)
    if price is None:
        return published_rates(provider, model, surcharge=surcharge)
    _, listed = _published(provider, model, surcharge)
    return _custom_rates(price, listed, custom.source_of(price))


def published_rates(provider: str, model: str, *, surcharge: int = 0) -> Rates | None:
    """Return a model's batch rates as genai-prices has them, or None if it has no batch rate."""
    batch, listed = _published(provider, model, surcharge)
    if batch is None or listed is None:
        return None
    source = f"genai-prices {version_of('genai-prices')}"
    return _rates(batch, listed, f"{source} + {surcharge} %, regional" if surcharge else source)


def similar_models(provider: str, model: str) -> list[str]:
    """Return up to three names of the provider's models most like `model` with a batch rate."""
    names = [name for name in batch_models([provider]) if name != model]
    close = get_close_matches(model, names, n=6)
    return [name for name in close if _published(provider, name)[0] is not None][:3]


def likely_typo(provider: str, model: str, custom: CustomPrices) -> str | None:
    """Return a sentence about a model without a price whose name is like that of one that has one.

    It may be a new model all the same, so it is no error. Names that are the user's own are no
    typos: models in the price file, fine-tuned ones, those of other providers, and what a server of
    the user's own calls its models.
    """
    if custom.of(provider, model) is not None or not is_built_in(provider):
        return None
    if model.startswith(_FINE_TUNED) or not is_of_family(provider, model):
        return None
    own = [name for of, name in custom.by_model if of == provider]
    hint = did_you_mean(model, [*own, *batch_models([provider])])
    if not hint or published_rates(provider, model) is not None:
        return None
    return (
        f"no batch price is known for {model!r}{hint}. It is sent as it is, and costs read as "
        "unknown; if it is a new model, state its batch rates in prices.toml."
    )


def unpriced(label: str, provider: str, model: str, limit: str) -> str:
    """Return the sentence that refuses a model without a known batch price under a limit."""
    close = similar_models(provider, model)
    hint = f" (did you mean {' or '.join(close)}?)" if close else ""
    return (
        f"{label}: no batch price is known for {model!r}, so {limit} could not hold; "
        f"check its name{hint}, state its batch rates in prices.toml, "
        "or remove the limit (costs will read as unknown)."
    )


def _rates(batch: PriceList, listed: PriceList, source: str) -> Rates:
    prices = {field.name: getattr(batch, field.name) for field in fields(PriceList)}
    return Rates(**prices, listed=listed, source=source)


def _custom_rates(price: CustomPrice, published: PriceList | None, source: str) -> Rates:
    write = _stated(price.cache_write, price.input * _WRITE)
    write_1h = _stated(price.cache_write_1h, max(price.input * _WRITE_1H, write))
    batch = PriceList(
        input=_per_token(price.input),
        output=_per_token(price.output),
        cache_read=_per_token(_stated(price.cache_read, price.input)),
        cache_write=_per_token(write),
        cache_write_1h=_per_token(write_1h),
        search=_pico(_stated(price.searches_per_thousand, _SEARCHES) / 1000),
    )
    listed = published or batch
    if price.list_input is not None and price.list_output is not None:
        listed = replace(
            batch, input=_per_token(price.list_input), output=_per_token(price.list_output)
        )
    return _rates(batch, listed, source)


def _stated(rate: Decimal | None, default: Decimal) -> Decimal:
    """Return a rate of a price file; a stated 0 is not replaced by the default."""
    return default if rate is None else rate


def _published(
    provider: str, model: str, surcharge: int = 0
) -> tuple[PriceList | None, PriceList | None]:
    """Return a model's batch and list prices as genai-prices has them; None if it has none.

    `surcharge` (per cent) is added to both.

    Not cached: prices start on a day, and a process may work for longer than that.
    """
    if _SEARCHES_UNCOUNTED in model:
        return None, None
    now = datetime.now(UTC)
    price = partial(
        calc_price,
        _PricedUsage(input_tokens=1),
        model,
        provider_id=provider,
        genai_request_timestamp=now,
    )
    try:
        batch, listed = price(price_context=BATCH_CONTEXT), price()
    except LookupError:
        return None, None
    has_batch_rate = any(
        variant.when == BATCH_CONTEXT
        and (variant.constraint is None or variant.constraint.active(now))
        for variant in batch.model.price_variants or ()
    )
    batch_prices = _price_list(batch.model_price, surcharge) if has_batch_rate else None
    return batch_prices, _price_list(listed.model_price, surcharge)


def _price_list(price: Any, surcharge: int) -> PriceList | None:
    base, output = _rate(price.input_mtok), _rate(price.output_mtok)
    if base is None or output is None:
        return None
    write = _rate(price.cache_write_mtok) or base
    searches = price.web_searches_kcount
    prices = PriceList(
        input=base,
        output=output,
        cache_read=_rate(price.cache_read_mtok) or base,
        cache_write=write,
        cache_write_1h=_rate(price.cache_write_1h_mtok) or write,
        search=_pico(searches / 1000) if searches is not None else 0,
    )
    return prices.raised(surcharge) if surcharge else prices


def _rate(price: Any) -> Rate | None:
    """Return a rate of genai-prices: None, a price per million tokens, or one with tiers."""
    if price is None:
        return None
    if isinstance(price, Decimal):
        return _per_token(price)
    tiers = tuple((tier.start, _pico(tier.price / _MILLION)) for tier in price.tiers)
    return Rate(_pico(price.base / _MILLION), tiers)


def _per_token(per_million: Decimal) -> Rate:
    return Rate(_pico(per_million / _MILLION))


def _pico(amount: Decimal) -> int:
    """Return dollars in picodollars; what is finer than any published rate is rounded up."""
    return int((amount * PICO).to_integral_value(rounding=ROUND_CEILING))
