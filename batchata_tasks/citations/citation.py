"""Citation: a passage of a document that an answer rests on, as the column `_citations` has it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, TypedDict, cast

Grade = Literal["high", "medium", "low"]
GRADES: tuple[Grade, ...] = ("low", "medium", "high")
_MOST_PAGES, _MOST_CHARS = 2**31, 2**63  # what the columns hold


class Passage(TypedDict):
    """What a provider cites. Pages count from 1, and `page_end` is counted in.

    Characters are `text[char_start:char_end]`.
    """

    cited_text: str | None
    document: str | None
    page_start: int | None
    page_end: int | None
    char_start: int | None
    char_end: int | None


class Citation(Passage):
    """A passage, and the field that it supports.

    `verified` says whether the field's value stands in the text of its pages. `reason` tells people
    what the grade rests on.
    """

    field: str
    grade: Grade
    verified: bool
    reason: str


def passage_of(citation: object) -> Passage | None:
    """Return a copy of what a provider cites; what is odd in it is null."""
    if not isinstance(citation, Mapping):
        return None
    told = cast("Mapping[Any, Any]", citation)
    start = _place(told.get("page_start"), 1, _MOST_PAGES)
    end = _place(told.get("page_end"), 1, _MOST_PAGES)
    return Passage(
        cited_text=_text(told.get("cited_text")),
        document=_text(told.get("document")),
        page_start=start,
        page_end=end if end is None or start is None or end >= start else start,
        char_start=_place(told.get("char_start"), 0, _MOST_CHARS),
        char_end=_place(told.get("char_end"), 0, _MOST_CHARS),
    )


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _place(value: object, least: int, below: int) -> int | None:
    if isinstance(value, int) and not isinstance(value, bool) and least <= value < below:
        return value
    return None
