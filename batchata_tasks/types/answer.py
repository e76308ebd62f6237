"""One line of a provider's results, classified."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from batchata_tasks.types.outcome import Outcome


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of one answer, in one convention for all providers.

    `input_tokens` is the whole input, including what was read from or written to a cache.
    """

    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0
    cache_write_1h_tokens: int = 0
    web_searches: int = 0
    us_only: bool = False  # Anthropic: inference bound to the US, at a tenth more for each token


@dataclass(frozen=True, slots=True)
class Answer:
    """One line of a provider's results, classified.

    `text` is the raw answer, if any. `error` starts with an `ErrorCode`. `citations` are rows of
    the column `_citations`.
    """

    custom_id: str
    outcome: Outcome
    text: str | None = None
    error: str | None = None
    usage: Usage = Usage()
    model: str | None = None
    readable: bool = True  # whether the line states its usage; if not, its cost is unknown
    citations: tuple[dict[str, Any], ...] = ()
