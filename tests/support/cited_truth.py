"""Documents with answers and the right citations of their fields, and how near a mapping comes."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import yaml

from batchata_tasks import map_citations
from tests.support.paths import ROOT

if TYPE_CHECKING:
    from collections.abc import Mapping

    from batchata_tasks import Citation

FILE = ROOT / "tests/unit/citations/truth.yaml"
DOCUMENTS: list[dict[str, Any]] = yaml.safe_load(FILE.read_text(encoding="utf-8"))
GRADES = ("high", "medium", "low", "unverified")


def blocks_of(document: dict[str, Any]) -> list[tuple[str, list[dict[str, Any]]]]:
    """Return the blocks of an answer as `map_citations` takes them."""
    blocks: list[tuple[str, list[dict[str, Any]]]] = []
    for block in document["blocks"]:
        if isinstance(block, str):
            blocks.append((block, []))
            continue
        text, cited = block
        quotes = cited if isinstance(cited, dict) else {cited: text.strip()}
        blocks.append((text, [cite(page, quote) for page, quote in quotes.items()]))
    return blocks


def cite(page: int | None, quote: str | None) -> dict[str, Any]:
    return {
        "cited_text": quote,
        "document": "document.pdf",
        "page_start": page,
        "page_end": page,
        "char_start": None,
        "char_end": None,
    }


def grade(citation: Citation) -> str:
    """Return a grade, or that no page bears it out."""
    return citation["grade"] if citation["verified"] else "unverified"


@dataclass
class Score:
    """What a mapping found of the right citations, by grade."""

    found: Counter[str] = field(default_factory=Counter)  # that are right, by the grade given
    wrong: list[tuple[str, str, int | None, str]] = field(default_factory=list)
    missed: list[tuple[str, str, int, str]] = field(default_factory=list)
    otherwise: list[tuple[str, str, int, str, str]] = field(default_factory=list)  # other grades
    wanted: Counter[str] = field(default_factory=Counter)

    def add(self, document: dict[str, Any], mapped: Mapping[str, list[Citation]]) -> None:
        given = {
            (name, citation["page_start"]): grade(citation)
            for name, citations in mapped.items()
            for citation in citations
        }
        for name, pages in document["right"].items():
            for page, wanted in pages.items():
                self.wanted[wanted] += 1
                told = given.pop((name, page), None)
                if told is None:
                    self.missed.append((document["name"], name, page, wanted))
                    continue
                self.found[told] += 1
                if told != wanted:
                    self.otherwise.append((document["name"], name, page, wanted, told))
        for (name, page), told in given.items():
            self.wrong.append((document["name"], name, page, told))

    def precision(self, told: str) -> float:
        """Return how many of those that have a grade are right ones."""
        wrong = sum(one[-1] == told for one in self.wrong)
        given = self.found[told] + wrong
        return self.found[told] / given if given else 1.0

    def recall(self, wanted: str) -> float:
        """Return how many of those that should have a grade have it."""
        lost = sum(one[3] == wanted for one in [*self.missed, *self.otherwise])
        return 1 - lost / self.wanted[wanted] if self.wanted[wanted] else 1.0


def scored() -> Score:
    score = Score()
    for document in DOCUMENTS:
        mapped = map_citations(document["fields"], blocks_of(document), document["pages"])
        score.add(document, mapped)
    return score
