"""The document's own text: on which of its pages a quote and a value stand."""

from __future__ import annotations

import re
from functools import cached_property
from typing import TYPE_CHECKING

from batchata_tasks.citations.folding import BREAK, even, folded, squashed, whole_places, words
from batchata_tasks.citations.reading import Reading

if TYPE_CHECKING:
    from collections.abc import Sequence

    from batchata_tasks.citations.citation import Passage
    from batchata_tasks.citations.leaves import Leaf
    from batchata_tasks.citations.place import Place
    from batchata_tasks.citations.values import Sought

_ELLIPSIS = re.compile(r"\s*(?:\[\.\.\.\]|\.\.\.)\s*")
_LEAST_SQUASHED = 12  # characters of a quote that is found whatever its blanks are
_MOST_TRIES = 100


class Pages:
    """The pages of a document; a text file is one page."""

    def __init__(self, texts: Sequence[str], figures: frozenset[str]) -> None:
        """Join pages; of their numbers, those with other `figures` are not sought."""
        self.reading = Reading(texts, [BREAK] * len(texts), figures)
        self._texts = texts
        self._quoted: dict[str, list[int]] = {}
        self._held: dict[tuple[Sought, frozenset[int]], frozenset[int]] = {}

    def __len__(self) -> int:
        return len(self._texts)

    @cached_property
    def _squashed(self) -> list[str]:
        return [squashed(folded(text)) for text in self._texts]

    @cached_property
    def _by_word(self) -> dict[str, set[int]]:
        index: dict[str, set[int]] = {}
        for page, text in enumerate(self._texts):
            for word in words(folded(text)):
                index.setdefault(word, set()).add(page)
        return index

    def holding(self, what: Sought, powers: frozenset[int]) -> frozenset[int]:
        """Return the pages, from 0, on which a value stands."""
        key = (what, powers)
        if key not in self._held:
            reading = self.reading
            found = {reading.piece(place.start) for place in reading.places(what, powers)}
            self._held[key] = frozenset(found)
        return self._held[key]

    def text(self, page: int) -> str:
        """Return a page's text as it is."""
        return self._texts[page]

    def on(self, leaf: Leaf, pages: list[int]) -> list[Place]:
        """Return the places of a field's value on some pages."""
        if leaf.sought is None:
            return []
        places = self.reading.places(leaf.sought, leaf.powers)
        return [place for place in places if self.reading.piece(place.start) in pages]

    def quoting(self, quote: str) -> list[int]:
        """Return the pages, from 0, on which a quote stands, whatever its blanks and marks."""
        if quote not in self._quoted:
            parts = [part for part in _ELLIPSIS.split(folded(quote)) if squashed(part)]
            pages = [set(self._with(part)) for part in parts]
            self._quoted[quote] = sorted(set[int].intersection(*pages)) if pages else []
        return self._quoted[quote]

    def spans(self, quote: str, pages: range) -> bool:
        """Whether a quote begins on one of these pages and ends on the next."""
        joined = "".join(self._squashed[page] for page in pages)
        return len(pages) > 1 and _stands_in(joined, squashed(folded(quote)))

    def _with(self, part: str) -> list[int]:
        sought = squashed(part)
        if len(sought) >= _LEAST_SQUASHED:
            return [page for page in self._likely(part) if _stands_in(self._squashed[page], sought)]
        bare = even(part).strip(" .,;:'\"")
        at = whole_places(self.reading.even, bare) if bare else ()
        return [self.reading.piece(place) for place, _ in at]

    def _likely(self, part: str) -> list[int]:
        """Return the pages that have a quote's words; all of them where words are broken."""
        inner = words(part)[1:-1]
        known = [self._by_word[word] for word in inner[:8] if word in self._by_word]
        if len(known) < len(inner[:8]) or not known:
            return list(range(len(self)))
        return sorted(set[int].intersection(*known)) or list(range(len(self)))


def _stands_in(text: str, sought: str) -> bool:
    """Whether letters and figures stand in others, where no number goes on at their ends."""
    at = text.find(sought)
    for _ in range(_MOST_TRIES):
        if at < 0:
            return False
        end = at + len(sought)
        before, after = text[at - 1 : at] if at else "", text[end : end + 1]
        begins = not (before.isdigit() and sought[:1].isdigit())
        if begins and not (after.isdigit() and sought[-1:].isdigit()):
            return True
        at = text.find(sought, at + 1)
    return False


def named_pages(passage: Passage, count: int) -> range:
    """Return the pages that a citation names, from 0; of a text file the one that there is."""
    start, end = passage["page_start"], passage["page_end"]
    if start is None:
        start = end
    if start is None:
        return range(1) if count == 1 else range(0)
    last = min(count, end if end is not None else start)
    return range(start - 1, last)
