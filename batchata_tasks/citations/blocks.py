"""An answer in blocks: its texts, and the citations that hang on them."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING, cast

from batchata_tasks.citations.citation import Passage, passage_of
from batchata_tasks.citations.folding import BREAK, JOINT
from batchata_tasks.citations.items import Spot
from batchata_tasks.citations.reading import Reading

if TYPE_CHECKING:
    from batchata_tasks.citations.place import Place

_PAIR = 2
_MOST_LINES = 10**7  # of one quote


@dataclass(frozen=True, slots=True)
class Cited:
    """A citation: the block that it hangs on, and its quote's index, if it has one."""

    passage: Passage
    block: int
    quote: int | None


class Answer:
    """The blocks of an answer as one text, and the quotes as another."""

    def __init__(
        self, blocks: Sequence[tuple[str, Sequence[Passage]]], figures: frozenset[str]
    ) -> None:
        """Join blocks; of their numbers, those with other `figures` are not sought."""
        quotes: dict[str, int] = {}
        self.cited: list[Cited] = []
        self.of_block: list[list[int]] = []
        for block, (_, passages) in enumerate(blocks):
            self.of_block.append(list(range(len(self.cited), len(self.cited) + len(passages))))
            for passage in passages:
                text = passage["cited_text"]
                quote = quotes.setdefault(text, len(quotes)) if text else None
                self.cited.append(Cited(passage, block, quote))
        self.reading = Reading([text for text, _ in blocks], list(_joints(blocks)), figures)
        self.quotes = Reading(quotes, [BREAK] * len(quotes), figures)
        self.of_quote: list[list[int]] = [[] for _ in quotes]
        for index, cited in enumerate(self.cited):
            if cited.quote is not None:
                self.of_quote[cited.quote].append(index)

    @cached_property
    def _bases(self) -> tuple[list[int], list[int]]:
        """Where each block and each citation's quote begins, counted through all of them."""
        of_blocks: list[int] = []
        of_cited: list[int] = []
        at = 0
        for block, cited in enumerate(self.of_block):
            of_blocks.append(at)
            at += self.reading.size(block)
            for index in cited:
                of_cited.append(at)
                quote = self.cited[index].quote
                at += self.quotes.size(quote) if quote is not None else 1
        return of_blocks, of_cited

    def block_spot(self, place: Place, level: int) -> Spot:
        """Return a place in a block, as places of the whole answer are counted."""
        block = self.reading.piece(place.start)
        start = self._bases[0][block] + place.start - self.reading.starts[block]
        line = bisect_left(self.reading.line_ends, place.start)
        cited = bool(self.of_block[block])
        return Spot(start, start + place.end - place.start, line, block, level, cited, place)

    def quote_spot(self, place: Place, index: int, level: int) -> Spot:
        """Return a place in a citation's quote, as places of the whole answer are counted."""
        quote = self.cited[index].quote or 0
        start = self._bases[1][index] + place.start - self.quotes.starts[quote]
        line = bisect_left(self.quotes.line_ends, place.start) + 1
        end = start + place.end - place.start
        return Spot(
            start, end, -line - index * _MOST_LINES, -1 - index, level, cited=True, place=place
        )


def answer_of(blocks: object, figures: frozenset[str]) -> Answer:
    """Return the answer that blocks are; what is odd in them counts as empty."""
    pairs = cast("Iterable[object]", blocks) if isinstance(blocks, Iterable) else ()
    return Answer([_block(pair) for pair in pairs], figures)


def _block(pair: object) -> tuple[str, list[Passage]]:
    if not isinstance(pair, Sequence) or isinstance(pair, str | bytes):
        return "", []
    parts = list(cast("Sequence[object]", pair))
    if len(parts) < _PAIR:
        return "", []
    text, citations = parts[:_PAIR]
    listed = isinstance(citations, Iterable) and not isinstance(citations, str | bytes | dict)
    told = cast("Iterable[object]", citations) if listed else ()
    passages = [passage for one in told if (passage := passage_of(one)) is not None]
    return text if isinstance(text, str) else "", passages


def _joints(blocks: Sequence[tuple[str, Sequence[Passage]]]) -> Iterable[str]:
    """Yield what stands between blocks: text that is read on, or a break.

    Where blocks are a text, its own blanks part them. Where there are none, two cited blocks have
    nothing to do with each other, unless the first one asks for more: "Total:".
    """
    for (text, cited), (following, next_cited) in pairwise(blocks):
        glued = bool(text and following) and not (text[-1].isspace() or following[0].isspace())
        ends = text[-1:].isalnum() or text[-1:] in '.!?)]%"”'
        apart = glued and ends and following[:1].isalpha() and bool(next_cited)
        if glued and cited and next_cited and ends:
            apart = True
        yield BREAK if apart else JOINT
    yield BREAK
