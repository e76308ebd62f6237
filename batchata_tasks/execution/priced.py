"""What an answer cost, and whether what its line states can be."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from batchata_tasks.types.answer import Usage

if TYPE_CHECKING:
    from batchata_tasks.pricing.rates import Rates

_TIMES = 1000  # its bound: no rule of thumb is so wrong
MOST_TOKENS = 2**24  # more than any context window, several times over
_SEARCHES = 1000  # in one answer


@dataclass(frozen=True, slots=True)
class Priced:
    """What an answer used and cost in picodollars; costs are None without a price."""

    usage: Usage
    cost: int | None
    list_cost: int | None
    cache_saved: int = 0  # by the cache, against the same answer without one
    believed: bool = True

    @classmethod
    def of(cls, stated: Usage, rates: Rates | None, bound: int | None) -> Priced:
        """Return the cost of what a line states, or its upper `bound` if that cannot be.

        One absurd number must neither fill a ledger's columns nor raise the bounds of a model for
        good. Dear answers that can be (a tokenizer of another kind, a search that adds its results
        to the input) are believed.
        """
        usage = stated
        if stated.web_searches > _SEARCHES:
            usage = stated._replace(web_searches=_SEARCHES)
        if not _can_be(usage, rates, bound):
            usage = Usage()
        if usage != stated:
            cost = None if rates is None else bound
            return cls(usage, cost, cost, believed=False)
        if rates is None:
            return cls(usage, None, None)
        cost = rates.cost(usage)
        cached = usage.cache_read_tokens or usage.cache_write_tokens or usage.cache_write_1h_tokens
        saved = rates.cost(usage.uncached()) - cost if cached else 0
        return cls(usage, cost, rates.list_cost(usage), saved)


def _can_be(usage: Usage, rates: Rates | None, bound: int | None) -> bool:
    most = max(usage.input_tokens, usage.output_tokens)
    if most > MOST_TOKENS:
        return False
    if rates is None or bound is None or usage.web_searches:  # what is found adds to the input
        return True
    return rates.cost(usage) <= _TIMES * bound or usage == Usage()
