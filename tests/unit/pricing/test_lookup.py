"""Prices are genai-prices' own, to the picodollar, in batch context or not at all."""

from __future__ import annotations

from datetime import datetime, tzinfo
from decimal import Decimal
from typing import Any

import pytest
from genai_prices import Usage as Listed
from genai_prices import calc_price, data_snapshot
from hypothesis import given, settings
from hypothesis import strategies as st

from batchata_tasks.common.money import PICO, dollars, pico_from_usd, usd
from batchata_tasks.pricing import lookup
from batchata_tasks.pricing.lookup import published_rates
from batchata_tasks.pricing.rates import PriceList, Rate, Rates
from batchata_tasks.types.answer import Usage
from tests.support.by_day import examples

BATCH = {"processing": "batch"}
MODELS = [
    (p.id, m.id)
    for p in data_snapshot.get_snapshot().providers
    if p.id in ("anthropic", "openai")
    for m in p.models
]
PRICED = [pair for pair in MODELS if published_rates(*pair) is not None]
UNPRICED = [pair for pair in MODELS if pair not in PRICED]
TIERED = [
    pair for pair in PRICED if (found := published_rates(*pair)) is not None and found.input.tiers
]


def rates(model: tuple[str, str]) -> Rates:
    prices = published_rates(*model)
    assert prices is not None
    return prices


def listed(usage: Usage, model: tuple[str, str], context: dict[str, Any] | None) -> Decimal:
    """Return genai-prices' own result; its cache writes include the 1 h ones."""
    facts: dict[str, Any] = {
        "input_tokens": usage.input_tokens,
        "output_tokens": usage.output_tokens,
        "cache_read_tokens": usage.cache_read_tokens,
        "cache_write_tokens": usage.cache_write_tokens + usage.cache_write_1h_tokens,
    }
    if usage.cache_write_1h_tokens:
        facts["cache_write_1h_tokens"] = usage.cache_write_1h_tokens
    if usage.web_searches:
        facts["web_searches"] = usage.web_searches
    return calc_price(
        Listed(**facts), model[1], provider_id=model[0], price_context=context
    ).total_price


@st.composite
def usages(draw: st.DrawFn, provider: str, most: int = 2_000_000) -> Usage:
    """Draw what a provider may report: cached tokens are part of the input.

    Only Anthropic has writes for an hour.
    """
    whole = draw(st.integers(0, min(most, 500)) | st.integers(0, most))
    read = draw(st.integers(0, whole))
    written = draw(st.integers(0, whole - read))
    hour = draw(st.integers(0, whole - read - written)) if provider == "anthropic" else 0
    return Usage(whole, draw(st.integers(0, 200_000)), read, written, hour, draw(st.integers(0, 3)))


CASES = st.sampled_from(PRICED).flatmap(lambda model: st.tuples(st.just(model), usages(model[0])))


@given(CASES)
@settings(deadline=None, max_examples=examples(600), derandomize=True)
def test_a_cost_is_genai_prices_own(case: tuple[tuple[str, str], Usage]) -> None:
    """For every model and usage, the integer arithmetic equals the library's decimals exactly."""
    model, usage = case
    assert usd(rates(model).cost(usage)) == listed(usage, model, BATCH)


@pytest.mark.parametrize("model", PRICED, ids="/".join)
def test_every_models_million_costs_what_is_published(model: tuple[str, str]) -> None:
    """For every model, a plain, a cached and an hour-cached answer get the library's prices."""
    usages = [Usage(1000, 1000), Usage(10_000, 1, 5000, 2000, 0, 1)]
    if model[0] == "anthropic":
        usages.append(Usage(10_000, 1, 1, 2, 3))
    for usage in usages:
        assert usd(rates(model).cost(usage)) == listed(usage, model, BATCH)


def test_tiers_are_tested() -> None:
    """Both providers have models whose price rises with the input."""
    assert {provider for provider, _ in TIERED} == {"anthropic", "openai"}


@pytest.mark.parametrize("model", TIERED, ids="/".join)
def test_a_tier_begins_above_its_start(model: tuple[str, str]) -> None:
    """N tokens cost the lower rate, N+1 the higher one for all of them, as in the library."""
    prices = rates(model)
    for start, price in prices.input.tiers:
        assert prices.cost(Usage(start)) == start * prices.input.at(start)
        assert prices.cost(Usage(start + 1)) == (start + 1) * price
        for tokens in (start - 1, start, start + 1):
            usage = Usage(tokens, 7, tokens // 3)
            assert usd(prices.cost(usage)) == listed(usage, model, BATCH)


@pytest.mark.parametrize("model", PRICED, ids="/".join)
def test_a_batch_never_costs_the_full_price(model: tuple[str, str]) -> None:
    """The batch variant is found, which is below the list price.

    For one old model the two are equal.
    """
    usage = Usage(1000, 1000)
    assert usd(rates(model).cost(usage)) <= listed(usage, model, None)
    if model != ("openai", "gpt-3.5-turbo-1106"):
        assert usd(rates(model).cost(usage)) < listed(usage, model, None)


@pytest.mark.parametrize("model", UNPRICED, ids="/".join)
def test_a_model_without_batch_rates_has_no_price(model: tuple[str, str]) -> None:
    """The library would give the list price; here it is unknown, so a cost limit refuses it."""
    assert published_rates(*model) is None


def test_a_price_counts_from_the_day_on_which_it_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that works for weeks takes a new price from its first day on."""
    starting = (
        (provider.id, model.id)
        for provider in data_snapshot.get_snapshot().providers
        for model in provider.models
        if (provider.id, model.id) in PRICED
        and all(v.constraint is not None for v in model.price_variants or () if v.when == BATCH)
    )
    model = next(starting)
    assert published_rates(*model) is not None

    class Before(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> Before:
            return cls(2020, 1, 1, tzinfo=tz)

    monkeypatch.setattr(lookup, "datetime", Before)
    assert published_rates(*model) is None


def test_some_models_have_no_batch_rates() -> None:
    """There is at least one model for the test above."""
    assert any(provider == "openai" for provider, _ in UNPRICED)


@pytest.mark.parametrize(
    ("provider", "model"),
    [
        ("anthropic", "claude-nonsense-99"),
        ("openai", ""),
        ("nobody", "gpt-6-luna"),
        ("openai", "claude-haiku-5-5"),
    ],
)
def test_an_unknown_model_has_no_price(provider: str, model: str) -> None:
    """An unknown price is None, neither free nor an exception."""
    assert published_rates(provider, model) is None


@given(CASES)
@settings(deadline=None, max_examples=examples(300), derandomize=True)
def test_a_list_price_is_genai_prices_own(case: tuple[tuple[str, str], Usage]) -> None:
    """A receipt's saving is against the published price of the very same answer."""
    model, usage = case
    assert usd(rates(model).list_cost(usage)) == listed(usage, model, None)


@pytest.mark.parametrize("model", ["gpt-4o-mini-search-preview", "gpt-4o-search-preview"])
def test_a_model_that_searches_unasked_has_no_price(model: str) -> None:
    """The library takes it for its plain sibling, and would omit the fee for each search."""
    assert published_rates("openai", model) is None


@pytest.mark.parametrize(
    ("context", "is_batch"),
    [
        (BATCH, True),
        ({"service_tier": "batch"}, False),
        ({"processing": "Batch"}, False),
        ({"processing": "batches"}, False),
        (None, False),
    ],
)
def test_the_context_is_the_one_that_means_batch(
    context: dict[str, str] | None, *, is_batch: bool
) -> None:
    """For any other spelling, the library silently returns the list price."""
    usage, model = Usage(1000, 1000), ("anthropic", "claude-opus-5-5")
    assert (listed(usage, model, context) == usd(rates(model).cost(usage))) is is_batch
    assert (listed(usage, model, context) == usd(rates(model).list_cost(usage))) is not is_batch


def test_cached_input_is_halved_for_some_models_alone() -> None:
    """In batches, cached input costs half with gpt-6-luna and claude-opus-5-5.

    With gpt-4.1 and o4-mini it costs the whole list price.
    """
    cached = Usage(1000, 0, 1000)
    for model, share in (
        ("gpt-6-luna", 2),
        ("gpt-4.1", 1),
        ("gpt-4o-mini", 1),
        ("o3", 1),
        ("o4-mini", 1),
    ):
        prices = rates(("openai", model))
        assert prices.cost(cached) * share == prices.list_cost(cached)
    prices = rates(("anthropic", "claude-opus-5-5"))
    assert prices.cost(cached) * 2 == prices.list_cost(cached)


@pytest.mark.parametrize("model", [pair for pair in PRICED if rates(pair).search], ids="/".join)
def test_searches_are_never_halved(model: tuple[str, str]) -> None:
    """A web search costs ten dollars per thousand, in a batch or not."""
    search = Usage(web_searches=1)
    assert rates(model).cost(search) == rates(model).list_cost(search) == PICO // 100


def test_every_model_whose_searches_are_counted_has_a_price_for_them() -> None:
    """Anthropic's usage counts searches, so none of its models may take them for free."""
    assert all(rates(pair).search for pair in PRICED if pair[0] == "anthropic")


ANY_RATE = st.builds(
    Rate,
    st.integers(0, 10**8),
    st.dictionaries(st.integers(1, 400_000), st.integers(0, 10**8), max_size=3).map(
        lambda d: tuple(sorted(d.items()))
    ),
)
ANY_RATES = st.builds(PriceList, *[ANY_RATE] * 5, search=st.just(0)).map(
    lambda t: Rates(
        t.input, t.output, t.cache_read, t.cache_write, t.cache_write_1h, t.search, t, "made up"
    )
)


@st.composite
def bounded(draw: st.DrawFn) -> tuple[Rates, Usage, int, int, bool]:
    """Draw rates, a usage, and a bound that covers it.

    The rates are published ones or any: higher tiers may be cheaper.
    """
    prices = draw(st.sampled_from(PRICED).map(rates) | ANY_RATES)
    writes = draw(st.booleans())
    usage = draw(usages("anthropic", 400_000))
    if not writes:
        usage = Usage(usage.input_tokens, usage.output_tokens, usage.cache_read_tokens)
    usage = usage._replace(web_searches=0)
    return (
        prices,
        usage,
        usage.input_tokens + draw(st.integers(0, 400_000)),
        usage.output_tokens + draw(st.integers(0, 9)),
        writes,
    )


@given(bounded())
@settings(deadline=None, max_examples=examples(400), derandomize=True)
def test_no_usage_within_the_bound_costs_more(case: tuple[Rates, Usage, int, int, bool]) -> None:
    """What is reserved covers what is billed, however the input is cached.

    That holds for any tiers, even if a higher one is cheaper.
    """
    prices, usage, most_input, most_output, writes = case
    assert prices.cost(usage) <= prices.bound(most_input, most_output, cache_writes=writes)


@given(
    st.sampled_from(PRICED).map(rates) | ANY_RATES,
    st.integers(0, 10**6),
    st.integers(0, 10**6),
    st.integers(0, 10**5),
    st.booleans(),
)
@settings(deadline=None, max_examples=examples(300), derandomize=True)
def test_a_larger_bound_is_never_cheaper(
    found: Rates, low: int, more: int, output: int, writes: bool
) -> None:
    """Bounds grow with tokens and with what may be billed, with tiers or without."""
    bound = found.bound(low, output, cache_writes=writes)
    assert bound <= found.bound(low + more, output, cache_writes=writes)
    assert bound <= found.bound(low, output, cache_writes=True)


@pytest.mark.parametrize("writes", [False, True])
@pytest.mark.parametrize("model", PRICED, ids="/".join)
def test_a_bound_is_no_higher_than_it_must_be(model: tuple[str, str], *, writes: bool) -> None:
    """Some request of just these tokens costs the whole bound: its input is of the dearest kind."""
    prices = rates(model)
    for whole in (1000, 100_000, 100_001, 272_001, 900_000):
        kinds = [
            Usage(whole, 5),
            Usage(whole, 5, whole),
            *([Usage(whole, 5, 0, whole), Usage(whole, 5, 0, 0, whole)] if writes else []),
        ]
        assert prices.bound(whole, 5, cache_writes=writes) == max(
            prices.cost(usage) for usage in kinds
        )


def test_a_cheaper_higher_tier_lowers_no_bound() -> None:
    """A request below its bound falls into a lower tier, which may be dearer."""
    rate = Rate(5, ((100, 9), (200, 1)))
    assert [rate.at(tokens) for tokens in (100, 101, 200, 201)] == [5, 9, 9, 1]
    assert [rate.most(tokens) for tokens in (100, 101, 200, 201)] == [5, 9, 9, 9]


def test_the_source_of_a_price_is_named() -> None:
    """A run's record says which price list it used, with its version."""
    assert rates(("anthropic", "claude-haiku-5-5")).source.startswith("genai-prices 0.")


@pytest.mark.parametrize(
    ("pico", "text"),
    [
        (None, "unknown"),
        (0, "$0.00"),
        (PICO, "$1.00"),
        (1234 * PICO + 5 * PICO // 10, "$1,234.50"),
        (PICO // 2, "$0.5000"),
        (PICO // 100, "$0.0100"),
        (PICO // 1000, "$0.001000"),
        (PICO // 10**6, "$0.000001"),
        (-2 * PICO, "$-2.00"),
    ],
)
def test_dollars_for_people(pico: int | None, text: str) -> None:
    """Cents for dollars, more digits for less, a word for an unknown amount."""
    assert dollars(pico) == text


@pytest.mark.parametrize(
    ("amount", "pico"),
    [
        (0.1, 100_000_000_000),
        ("0.1", 100_000_000_000),
        (Decimal("0.1"), 100_000_000_000),
        (5, 5 * PICO),
        (5.0, 5 * PICO),
        (0, 0),
        (0.000000000001, 1),
        (1e-13, 0),
        (0.29, 290_000_000_000),
        (1e6, 10**18),
        (123456.789012, 123456789012 * 10**6),
    ],
)
def test_a_limit_is_taken_as_written(amount: float | str | Decimal, pico: int) -> None:
    """0.1 is a tenth, not its binary neighbour; less than a picodollar is zero."""
    assert pico_from_usd(amount) == pico


@given(st.integers(-(10**24), 10**24))
@settings(deadline=None, max_examples=examples(100), derandomize=True)
def test_amounts_are_exact_both_ways(pico: int) -> None:
    """Dollars as decimals lose no picodollar."""
    assert pico_from_usd(usd(pico)) == pico


def test_inference_bound_to_the_us_costs_a_tenth_more() -> None:
    """Anthropic's surcharge is on every token, in the batch and at list price.

    It is not on searches.
    """
    rates = published_rates("anthropic", "claude-opus-5-5")
    assert rates is not None
    plain, bound = (Usage(1000, 100, 300, 50, 20, us_only=us_only) for us_only in (False, True))
    assert rates.cost(bound) * 10 == rates.cost(plain) * 11
    assert rates.list_cost(bound) * 10 == rates.list_cost(plain) * 11
    searched = Usage(1000, 100, 300, 50, 20, web_searches=2, us_only=True)
    assert rates.cost(searched) - rates.cost(bound) == 2 * rates.search
