"""Batch rates: what a million tokens of each kind cost."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter

if TYPE_CHECKING:
    from batchata_tasks.types.answer import Usage

_US_ONLY = 11  # tenths: https://platform.claude.com/docs/en/about-claude/pricing (data residency), not in genai-prices


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
class PriceList:
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
        plain = (
            usage.input_tokens
            - usage.cache_read_tokens
            - usage.cache_write_tokens
            - usage.cache_write_1h_tokens
        )
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
class Rates(PriceList):
    """The batch rates of one model, and for comparison what it costs outside of batches."""

    listed: PriceList
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
        return input_tokens * max(
            kind.most(input_tokens) for kind in kinds
        ) + output_tokens * self.output.most(input_tokens)


_KEPT: TypeAdapter[Rates | None] = TypeAdapter(Rates | None)


def rates_json(rates: Rates | None) -> dict[str, Any] | None:
    """Return rates as plain JSON values, for a run to keep."""
    kept: dict[str, Any] | None = _KEPT.dump_python(rates, mode="json")
    return kept


def kept_rates(data: dict[str, Any] | None) -> Rates | None:
    """Return the rates that `rates_json` was given."""
    return _KEPT.validate_python(data)
