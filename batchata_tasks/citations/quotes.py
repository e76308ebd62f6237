"""Citations of an answer's fields, by what a model quotes and by what the documents say."""

from __future__ import annotations

from bisect import bisect_right
from datetime import date, time
from enum import Enum
from itertools import accumulate
from typing import TYPE_CHECKING, Any, NamedTuple

from batchata_tasks.citations.citation import Citation, Passage
from batchata_tasks.citations.folding import folded, words
from batchata_tasks.citations.leaves import leaves
from batchata_tasks.citations.mapping import mapped_leaves

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from pydantic import BaseModel

    from batchata_tasks.citations.leaves import Leaf

_FOUND = "found in the text, and not quoted"


class Text(NamedTuple):
    """The text of a document, by pages; without pages, it is a single text."""

    title: str
    pages: tuple[str, ...]
    paged: bool = True


class _Texts:
    """The pages of several documents, counted through all of them."""

    def __init__(self, texts: Sequence[Text]) -> None:
        self._texts = texts
        self.pages = [page for text in texts for page in text.pages]
        self._starts = list(accumulate((len(text.pages) for text in texts), initial=0))

    def page(self, page: int | None) -> int | None:
        """Return a page that a model names, which knows nothing of other documents."""
        return page if len(self._texts) == 1 else None

    def placed(self, citation: Citation) -> Citation:
        """Return a citation by its own document: its pages, or its characters without pages."""
        first = citation["page_start"]
        if first is None or not 0 < first <= len(self.pages):
            title = self._texts[0].title if len(self._texts) == 1 else None
            return {**citation, "document": title, "page_start": None, "page_end": None}
        number = bisect_right(self._starts, first - 1) - 1
        text, before = self._texts[number], self._starts[number]
        placed: Citation = {**citation, "document": text.title}
        if text.paged:
            last = citation["page_end"] or first
            return {**placed, "page_start": first - before, "page_end": last - before}
        quote = citation["cited_text"] or ""
        at = text.pages[0].find(quote)
        start, end = (at, at + len(quote)) if quote and at >= 0 else (None, None)
        return {
            **placed,
            "page_start": None,
            "page_end": None,
            "char_start": start,
            "char_end": end,
        }


def cite_fields(
    fields: BaseModel | Mapping[str, Any],
    quotes: Iterable[tuple[str, str, int | None]],
    texts: Sequence[Text],
) -> list[Citation]:
    """Return the citations of an answer's fields, in their order.

    `quotes` are (field, quote, page) as a model gives them; `texts` those of the documents that can
    be read. What a quote says is judged as `map_citations` does, with the field that it is given
    for as its label. A field that no quote bears out is sought in the text itself.
    """
    all_pages = _Texts(texts)
    by_field = dict[str, list[Passage]]()
    for field, quote, page in quotes:
        by_field.setdefault(field, []).append(_passage(quote, all_pages.page(page)))
    answer = list[tuple[str, list[Passage]]]()
    found = leaves(fields)
    told = [leaf for leaf in found if leaf.sought is not None]
    for leaf in told:
        label = leaf.names[0].shown if leaf.names else ""
        answer += [(f"\n- {label}: ", []), (_spelled(leaf.value), by_field.get(leaf.path, []))]
    source = all_pages.pages  # without any, nothing is verified, nor graded more than low
    mapped = mapped_leaves(found, answer, source) or {}
    _lower_contradicted(found, mapped, source)
    lacking = [
        leaf.path for leaf in told if not any(one["verified"] for one in mapped.get(leaf.path, []))
    ]
    if lacking and source:
        in_text = _in_text(found, source)
        mapped |= {path: in_text[path] for path in lacking if path in in_text}
    return [all_pages.placed(one) for leaf in told for one in mapped.get(leaf.path, [])]


def _lower_contradicted(
    found: list[Leaf], mapped: dict[str, list[Citation]], source: list[str]
) -> None:
    """Grade quotes low that have a field's name, and not as the label of its value.

    Of "Total amount: 100.00 (net 80.00)", 80.00 is no total amount, whatever the model says.
    """
    names = {leaf.path: leaf.names for leaf in found}
    alone = [(one["cited_text"] or "", [one]) for told in mapped.values() for one in told]
    own = mapped_leaves(found, alone, source) or {}
    labelled = {
        (path, one["cited_text"])
        for path, told in own.items()
        for one in told
        if one["grade"] != "low"
    }
    for path, told in mapped.items():
        for one in told:
            quoted = set(words(folded(one["cited_text"] or "")))
            is_named = any(name.words and quoted.issuperset(name.words) for name in names[path])
            if is_named and one["grade"] != "low" and (path, one["cited_text"]) not in labelled:
                one["grade"] = "low"
                one["reason"] += ", but its quote labels another value so"


def _in_text(found: list[Leaf], pages: list[str]) -> dict[str, list[Citation]]:
    """Return the lines of pages that say values, by field, and are graded no more than medium."""
    lines = [
        (line, [_passage(line.strip(), number)])
        for number, page in enumerate(pages, 1)
        for line in page.splitlines()
        if line.strip()
    ]
    mapped = mapped_leaves(found, lines, pages) or {}
    return {
        path: [_modest(one) for one in citations if one["verified"]]
        for path, citations in mapped.items()
    }


def _modest(citation: Citation) -> Citation:
    grade = "medium" if citation["grade"] == "high" else citation["grade"]
    return {**citation, "grade": grade, "reason": f"{citation['reason']}; {_FOUND}"}


def _spelled(value: object) -> str:
    if isinstance(value, Enum):
        value = value.value
    if isinstance(value, bool):
        return "yes" if value else "no"
    return value.isoformat() if isinstance(value, date | time) else str(value)


def _passage(quote: str, page: int | None) -> Passage:
    return Passage(
        cited_text=quote,
        document=None,
        page_start=page,
        page_end=page,
        char_start=None,
        char_end=None,
    )
