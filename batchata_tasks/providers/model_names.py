"""Names of models that are known to have a batch price, for what to write instead of a typo."""

from __future__ import annotations

from difflib import get_close_matches
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

BATCH_CONTEXT = {"processing": "batch"}
"""The context in which genai-prices has the prices of batches."""
_CLOSE = 0.8  # how alike two names are, of 1
_MOST = 3


def batch_models(providers: Iterable[str]) -> list[str]:
    """Return the names of these providers' models that genai-prices has a batch price of."""
    from genai_prices.data_snapshot import get_snapshot  # noqa: PLC0415 - few need it, and slow

    wanted = set(providers)
    entries = [entry for entry in get_snapshot().providers if entry.id in wanted]
    return [
        model.id
        for entry in entries
        for model in entry.models
        if any(variant.when == BATCH_CONTEXT for variant in model.price_variants or ())
    ]


def did_you_mean(model: str, names: Sequence[str]) -> str:
    """Return, in parentheses, which of some names are like a model's; empty if none is."""
    close = get_close_matches(model, [name for name in names if name != model], _MOST, _CLOSE)
    return f" (did you mean {' or '.join(close)}?)" if close else ""
