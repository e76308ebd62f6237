"""One line of a provider's results, classified.

There is one of each value for every row, so they are tuples: these are made in a third of the time
that frozen dataclasses take.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable

    from batchata_tasks.types.outcome import Outcome


class Usage(NamedTuple):
    """Tokens of one answer, in one convention for all providers.

    `input_tokens` is the whole input, including what was read from or written to a cache. If the
    answer took several `iterations`, they are priced one by one, and the counts are their sums;
    searches are no iteration's.
    """

    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0
    cache_write_1h_tokens: int = 0
    web_searches: int = 0
    us_only: bool = False  # Anthropic: inference bound to the US, at a tenth more for each token
    iterations: tuple[Usage, ...] = ()

    def uncached(self) -> Usage:
        """Return the same tokens without any cache."""
        plain = self._replace(cache_read_tokens=0, cache_write_tokens=0, cache_write_1h_tokens=0)
        return plain._replace(iterations=tuple(part.uncached() for part in self.iterations))


def summed(parts: Iterable[Usage]) -> Usage:
    """Return the tokens of several usages together."""
    total = Usage()
    for part in parts:
        total = Usage(
            total.input_tokens + part.input_tokens,
            total.output_tokens + part.output_tokens,
            total.cache_read_tokens + part.cache_read_tokens,
            total.cache_write_tokens + part.cache_write_tokens,
            total.cache_write_1h_tokens + part.cache_write_1h_tokens,
        )
    return total


class Answer(NamedTuple):
    """One line of a provider's results, classified.

    `text` is the raw answer, if any; if it came in several parts, `last` is that of the last one
    that says something. `error` starts with an `ErrorCode`. `citations` are rows of
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
    last: str | None = None

    @property
    def blank(self) -> bool:
        """Whether there is nothing in the text that can be seen."""
        first = (self.text or "").lstrip()[:1]
        if first and first.isprintable():  # nearly always
            return False
        return not any(char.isprintable() and char != " " for char in self.text or "")
