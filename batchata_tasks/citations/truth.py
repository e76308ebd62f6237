"""Whether a document's pages bear a citation out, and which page it is of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from batchata_tasks.citations.grading import LABELLED, NEARBY, VALUE
from batchata_tasks.citations.pages import named_pages

if TYPE_CHECKING:
    from batchata_tasks.citations.citation import Passage
    from batchata_tasks.citations.grading import Grader
    from batchata_tasks.citations.leaves import Leaf
    from batchata_tasks.citations.pages import Pages


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a citation stands in its document.

    `passage` is the citation with the page on which its quote stands. `pages` are those that it
    names then; none if its quote stands nowhere. `moved` tells people what was corrected.
    """

    passage: Passage
    pages: range
    moved: str = ""


@dataclass(frozen=True, slots=True)
class Borne:
    """What the pages say of a value: whether it stands there, and how high a grade may be."""

    verified: bool
    most: int = LABELLED
    unsure: bool = False


class Truth:
    """What the pages of a document say of citations."""

    def __init__(self, pages: Pages, grader: Grader) -> None:
        self._pages = pages
        self._grader = grader

    def standing(self, passage: Passage) -> Standing:
        """Return where a citation stands, with a wrong page or place corrected."""
        quote, named = passage["cited_text"], named_pages(passage, len(self._pages))
        if not (quote and quote.strip()):
            return Standing(passage, named)
        found = self._pages.quoting(quote)
        here = [page for page in found if page in named]
        if here:
            return Standing(self._placed(passage, here[0]), named)
        if not found:
            return Standing(passage, named if self._pages.spans(quote, named) else range(0))
        near = named.start if named else (passage["page_start"] or 1) - 1
        page = min(found, key=lambda one: (abs(one - near), one))
        return self._moved(passage, page)

    def _moved(self, passage: Passage, page: int) -> Standing:
        """Return a citation as one of the page on which its quote stands."""
        corrected = passage.copy()
        corrected["page_start"] = corrected["page_end"] = page + 1
        named = passage["page_start"]
        moved = f"page {page + 1}, not {named}" if named is not None else f"page {page + 1}"
        return Standing(self._placed(corrected, page), range(page, page + 1), moved)

    def _placed(self, passage: Passage, page: int) -> Passage:
        """Return a citation with its place in the text of a file, if it named a wrong one."""
        start, end, quote = passage["char_start"], passage["char_end"], passage["cited_text"]
        if start is None or end is None or not quote or len(self._pages) > 1:
            return passage
        text = self._pages.text(page)
        if text[start:end] == quote:
            return passage
        placed, at = passage.copy(), text.find(quote)
        placed["char_start"], placed["char_end"] = (
            (at, at + len(quote)) if at >= 0 else (None, None)
        )
        return placed

    def borne(self, leaf: Leaf, standing: Standing, *, quoted: bool) -> Borne:
        """Return what the pages that a citation names say of a field's value.

        `quoted`: the value stands in the quote. Where it does not, while there is a quote, only
        words of the field's name beside it on the page tell it from another one that is the same;
        and if the quote has other figures, they are what the page says of the field.
        """
        if leaf.sought is None:
            return Borne(verified=False, most=VALUE)
        holding = self._pages.holding(leaf.sought, leaf.powers)
        pages = [page for page in standing.pages if page in holding]
        if not pages:
            return Borne(verified=False, most=VALUE)
        has_quote = bool(standing.passage["cited_text"])
        if quoted or not (has_quote or leaf.sought.days):
            return Borne(verified=True)
        return self._by_page(leaf, pages, standing)

    def _by_page(self, leaf: Leaf, pages: list[int], standing: Standing) -> Borne:
        """Return what the pages say by themselves, of a value that a quote lacks."""
        places = self._pages.on(leaf, pages)
        unsure = bool(places) and all(place.unsure for place in places)
        best, quote = self._grader.best(leaf, places), standing.passage["cited_text"]
        if not quote or (best is not None and best.rank == LABELLED):
            return Borne(verified=True, unsure=unsure)
        counted = leaf.sought is not None and bool(leaf.sought.amounts or leaf.sought.days)
        contradicted = counted and any(char.isdigit() for char in quote)
        if best is None or best.foreign or best.other or contradicted:
            return Borne(verified=True, most=VALUE, unsure=unsure)
        most = LABELLED if best.rank == NEARBY else NEARBY
        return Borne(verified=True, most=most, unsure=unsure)
