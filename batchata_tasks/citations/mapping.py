"""map_citations: which citations speak for which fields of an answer."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING, cast

from batchata_tasks.citations.blocks import Answer, answer_of
from batchata_tasks.citations.candidates import Candidate, Candidates
from batchata_tasks.citations.citation import GRADES, Citation
from batchata_tasks.citations.grading import LABELLED, VALUE, Grader
from batchata_tasks.citations.items import Places
from batchata_tasks.citations.leaves import Leaf, leaves, without_indices
from batchata_tasks.citations.names import Vocabulary
from batchata_tasks.citations.pages import Pages
from batchata_tasks.citations.style import agreed
from batchata_tasks.citations.truth import Truth

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pydantic import BaseModel

_LOG = logging.getLogger(__name__)
_MANY = 5  # citations of one field; a value that stands in more places says little there
_MOST_NAMED = 50  # fields in a warning


def map_citations(
    fields: BaseModel | Mapping[str, object],
    blocks: Iterable[tuple[str, Iterable[Mapping[str, object]] | None]],
    source: Iterable[str] | str | None = None,
) -> dict[str, list[Citation]]:
    """Return the citations that support the fields of an answer, by field.

    `fields` is the parsed answer. `blocks` are the answer in order: each text with the citations
    that hang on it, dicts with the keys of the column `_citations`. `source` has the text of the
    document's pages, the first first; a text file is one page.

    Fields are named by paths: `address.city`, `items[2].price`. Those that nothing supports are
    left out. Without `source`, nothing is verified; with it, nothing is graded high that is not.
    What is odd in an argument counts as empty, so that this raises nothing.
    """
    found = leaves(fields)
    mapped = mapped_leaves(found, blocks, source)
    if mapped is None:
        return {}
    _warn(found, mapped)
    return mapped


def mapped_leaves(
    found: list[Leaf], blocks: object, source: object
) -> dict[str, list[Citation]] | None:
    """Return the citations that support the leaves of an answer; None if it has no blocks."""
    figures = frozenset(
        amount.figures
        for leaf in found
        if leaf.sought is not None
        for amount in leaf.sought.amounts
    )
    answer = answer_of(blocks, figures)
    if not answer.of_block:
        return None
    vocabulary = Vocabulary(name for leaf in found for name in leaf.names)
    pages = _pages(source, figures)
    _set_styles(answer, pages)
    truth = None
    if pages is not None:
        truth = Truth(pages, Grader(pages.reading, vocabulary))
    candidates = Candidates(answer, vocabulary, truth)
    told = _of_leaves(found, candidates)
    return {leaf.path: _best(leaf.path, its) for leaf in found if (its := told.get(leaf.path, []))}


def _pages(source: object, figures: frozenset[str]) -> Pages | None:
    if source is None:
        return None
    texts = [source] if isinstance(source, str) else source
    if isinstance(texts, bytes) or not isinstance(texts, Iterable):
        return Pages([], figures)
    told = cast("Iterable[object]", texts)
    return Pages([text if isinstance(text, str) else "" for text in told], figures)


def _set_styles(answer: Answer, pages: Pages | None) -> None:
    """Let each text be read as it writes: document and quotes alike, the answer as itself first."""
    marks, orders = answer.quotes.shown()
    if pages is not None:
        more_marks, more_orders = pages.reading.shown()
        marks, orders = marks | more_marks, orders | more_orders
    document = agreed(marks, orders)
    answer.quotes.style = document
    answer.reading.style = agreed(*answer.reading.shown()).over(document)
    if pages is not None:
        pages.reading.style = document


def _of_leaves(found: list[Leaf], candidates: Candidates) -> dict[str, list[Candidate]]:
    """Return the candidates by field; those of an item are sought together, item by item."""
    items: dict[str, list[Leaf]] = {}
    told: dict[str, list[Candidate]] = {}
    often = Counter((leaf.column, leaf.sought) for leaf in found)
    for leaf in found:
        alone = leaf.path == leaf.item and often[leaf.column, leaf.sought] == 1
        if leaf.sought is not None and (leaf.item is None or alone):
            told[leaf.path] = candidates.of(leaf)
        elif leaf.sought is not None and leaf.item is not None:
            items.setdefault(leaf.item, []).append(leaf)
    lists: dict[str, Places] = {}
    for item, together in items.items():
        places = lists.setdefault(without_indices(item), Places())
        spots = places.settle(
            (leaf.column, candidates.spots(leaf), often[leaf.column, leaf.sought])
            for leaf in together
        )
        for leaf, spot in zip(together, spots, strict=True):
            told[leaf.path] = [] if spot is None else candidates.of(leaf, spot, together)
    return told


def _best(path: str, candidates: list[Candidate]) -> list[Citation]:
    """Return the citations of the best grade, in order; few of a value that stands everywhere."""
    level = max(candidate.level for candidate in candidates)
    distinct = {
        tuple(one.passage.values()): one for one in reversed(candidates) if one.level == level
    }
    kept = list(reversed(distinct.values()))
    notes = ""
    if len(kept) > _MANY and level < LABELLED:
        kept, level, notes = kept[:_MANY], VALUE, "; stands in many places"
    return [
        Citation(
            field=path,
            **one.passage,
            grade=GRADES[level],
            verified=one.verified,
            reason=one.reason + notes,
        )
        for one in kept
    ]


def _warn(found: list[Leaf], mapped: Mapping[str, object]) -> None:
    """Tell which fields have no citation, if these are most of those that could have one."""
    could = [leaf.path for leaf in found if leaf.sought is not None and leaf.sought.truth is None]
    lacking = [path for path in could if path not in mapped]
    if 2 * len(lacking) > len(could):
        named = ", ".join(lacking[:_MOST_NAMED]) + (", …" if len(lacking) > _MOST_NAMED else "")
        _LOG.warning("no citation supports %s of %s fields: %s", len(lacking), len(could), named)
