"""Batch rates: what the tokens of each kind cost."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter

if TYPE_CHECKING:
    from collections.abc import Callable

    from batchata_tasks.types.answer import Usage

# tenths of the price, for inference that is bound to the US. It is not in genai-prices, but in
# https://platform.claude.com/docs/en/about-claude/pricing (data residency)
_US_ONLY = 11
_ANY_INPUT = 2**63


@dataclass(frozen=True, slots=True)
class Rate:
    """Picodollars per token: `base`, or the price of the highest tier whose start is exceeded."""

    base: int
    tiers: tuple[tuple[int, int], ...] = ()

    def raised(self, percent: int) -> Rate:
        """Return a rate that is higher by so many per cent, rounded up."""
        tiers = tuple((start, _more(price, percent)) for start, price in self.tiers)
        return Rate(_more(self.base, percent), tiers)

    def at(self, input_tokens: int) -> int:
        """Return the rate of a request with that many input tokens."""
        price = self.base
        for start, tier_price in self.tiers:
            if input_tokens > start:
                price = tier_price
        return price

    def most(self, input_tokens: int) -> int:
        """Return the highest rate of any request with at most that many input tokens.

        It need not be the last one reached: a higher tier may be cheaper.
        """
        return max([self.base, *(price for start, price in self.tiers if input_tokens > start)])


def _more(price: int, percent: int) -> int:
    return -(-price * (100 + percent) // 100)


@dataclass(frozen=True, slots=True)
class PriceList:
    """What one model costs; a request's tier depends on its own input, all of it."""

    input: Rate
    output: Rate
    cache_read: Rate
    cache_write: Rate
    cache_write_1h: Rate
    search: int  # picodollars per web search

    def raised(self, percent: int) -> PriceList:
        """Return prices whose tokens cost so many per cent more; searches cost the same."""
        return PriceList(
            input=self.input.raised(percent),
            output=self.output.raised(percent),
            cache_read=self.cache_read.raised(percent),
            cache_write=self.cache_write.raised(percent),
            cache_write_1h=self.cache_write_1h.raised(percent),
            search=self.search,
        )

    def cost(self, usage: Usage, requests: int = 1) -> int:
        """Return the cost in picodollars of that many equal requests that used `usage` together.

        Each of several iterations is in the tier of its own input.
        """
        if usage.iterations:
            return sum(map(self.cost, usage.iterations)) + usage.web_searches * self.search
        size = usage.input_tokens // requests
        cached = usage.cache_read_tokens + usage.cache_write_tokens + usage.cache_write_1h_tokens
        tokens = (
            max(usage.input_tokens - cached, 0) * self.input.at(size)
            + usage.cache_read_tokens * self.cache_read.at(size)
            + usage.cache_write_tokens * self.cache_write.at(size)
            + usage.cache_write_1h_tokens * self.cache_write_1h.at(size)
            + usage.output_tokens * self.output.at(size)
        )
        if usage.us_only:
            tokens = -(-tokens * _US_ONLY // 10)
        return tokens + usage.web_searches * self.search

    @property
    def flat_input(self) -> int:
        """The most input tokens that reach no tier of any price."""
        kinds = (self.input, self.output, self.cache_read, self.cache_write, self.cache_write_1h)
        return min((start for kind in kinds for start, _ in kind.tiers), default=_ANY_INPUT)

    def flat_cost(self) -> Callable[[Usage], int]:
        """Return a function that tells as `cost` does what a usual answer costs, in less time.

        Its input is at most `flat_input` and includes all cached tokens; it has one iteration, no
        web searches, and ran wherever it may.
        """
        sent, received, read = self.input.base, self.output.base, self.cache_read.base
        written, written_1h = self.cache_write.base, self.cache_write_1h.base

        def cost(usage: Usage) -> int:
            reads, writes, writes_1h = usage[2:5]
            if not (reads or writes or writes_1h):
                return usage.input_tokens * sent + usage.output_tokens * received
            fresh = usage.input_tokens - reads - writes - writes_1h
            cached = reads * read + writes * written + writes_1h * written_1h
            return fresh * sent + usage.output_tokens * received + cached

        return cost


@dataclass(frozen=True, slots=True)
class Rates(PriceList):
    """The batch rates of one model, and its list price (outside of batches) for comparison."""

    listed: PriceList
    source: str  # where the rates are from, with its version or date

    def list_cost(self, usage: Usage, requests: int = 1) -> int:
        """Return what the same answers would cost outside of a batch, in picodollars.

        List prices that a price file leaves out count at the batch rate, so no saving is claimed.
        """
        return self.listed.cost(usage, requests)

    def bound(self, input_tokens: int, output_tokens: int, *, cache_writes: bool) -> int:
        """Return the most that a request with at most that many tokens can cost, in picodollars.

        Each token counts at the highest rate that it can be billed at, in any tier up to its own.
        `cache_writes` says whether input may be billed as written to a cache, which costs up to
        twice the plain rate. Web searches are left out: a cost limit forbids what can cause them.
        """
        kinds = [self.input, self.cache_read]
        if cache_writes:
            kinds += [self.cache_write, self.cache_write_1h]
        input_rate = max(kind.most(input_tokens) for kind in kinds)
        return input_tokens * input_rate + output_tokens * self.output.most(input_tokens)


_STORED: TypeAdapter[Rates | None] = TypeAdapter(Rates | None)


def rates_json(rates: Rates | None) -> dict[str, Any] | None:
    """Return rates as plain JSON values, for a run to store."""
    data: dict[str, Any] | None = _STORED.dump_python(rates, mode="json")
    return data


def stored_rates(data: dict[str, Any] | None) -> Rates | None:
    """Return the rates that `rates_json` was given."""
    return _STORED.validate_python(data)
