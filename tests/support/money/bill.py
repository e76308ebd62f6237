"""The provider's bill, line by line from its own books.

It uses nothing of this project's pricing.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from decimal import Decimal
from functools import cache
from typing import Any

from genai_prices import Usage, calc_price

from batchata_tasks.types.ids import TOKEN_CHARS


@cache
def price(provider: str, model: str, input_tokens: int, output_tokens: int) -> Decimal:
    """Return what one answer costs in a batch, in US dollars, exactly."""
    usage = Usage(input_tokens=input_tokens, output_tokens=output_tokens)
    return calc_price(
        usage, model, provider_id=provider, price_context={"processing": "batch"}
    ).total_price


@dataclass
class Bill:
    """Accepted requests and their cost."""

    by_chunk: dict[str, Decimal] = field(default_factory=lambda: defaultdict(Decimal))
    # the content of each custom_id
    accepted: dict[str, str] = field(default_factory=dict[str, str])
    again: set[str] = field(default_factory=set[str])  # contents that were billed more than once
    batches: dict[str, str] = field(default_factory=dict[str, str])  # of each chunk
    # custom_ids that were accepted more than once
    twice: list[str] = field(default_factory=list[str])

    @property
    def total(self) -> Decimal:
        return sum(self.by_chunk.values(), Decimal(0))


def bill_of(provider: str, model: str, book: dict[str, Any]) -> Bill:
    """Price the provider's books (with their contents) line by line."""
    bill = Bill()
    for content, entry in book["contents"].items():
        if entry["billed"] > 1:
            bill.again.add(content)
        for custom_id, (input_tokens, output_tokens) in zip(
            entry["custom_ids"], entry["usage"], strict=True
        ):
            if custom_id in bill.accepted:
                bill.twice.append(custom_id)
            bill.accepted[custom_id] = content
            cost = (
                price(provider, model, input_tokens, output_tokens) if output_tokens else Decimal(0)
            )
            bill.by_chunk[custom_id[:TOKEN_CHARS]] += cost
        for custom_id, batch_id in zip(entry["custom_ids"], entry["batches"], strict=True):
            bill.batches[custom_id[:TOKEN_CHARS]] = batch_id
    return bill
