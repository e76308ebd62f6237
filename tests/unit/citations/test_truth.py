"""How often a mapping is right, by documents and answers of which the right citations are known."""

from __future__ import annotations

import pytest

from tests.support.cited_truth import DOCUMENTS, GRADES, Score, blocks_of, scored

LEAST = {  # what was reached: precision, recall
    "high": (1.0, 1.0),
    "medium": (0.98, 1.0),
    "low": (0.83, 1.0),
    "unverified": (0.66, 1.0),
}


@pytest.fixture(scope="module")
def score() -> Score:
    return scored()


def test_the_set_is_large_enough() -> None:
    """There are at least 100 documents, of which each has a name of its own."""
    assert len({document["name"] for document in DOCUMENTS}) == len(DOCUMENTS) >= 100


def test_none_that_is_graded_high_is_wrong(score: Score) -> None:
    """Every citation that is graded high is the right one for its field, and should be high."""
    assert [one for one in score.wrong if one[-1] == "high"] == []
    assert [one for one in score.otherwise if one[-1] == "high"] == []


@pytest.mark.parametrize("grade", GRADES)
def test_precision_and_recall(score: Score, grade: str) -> None:
    """Of each grade as many citations are right, and are found, as were when this was written."""
    precision, recall = LEAST[grade]
    assert score.precision(grade) >= precision, score.wrong
    assert score.recall(grade) >= recall, (score.missed, score.otherwise)


def test_no_right_citation_is_missed(score: Score) -> None:
    """Each field that the document says has its citation."""
    assert score.missed == []


def test_wrong_answers_are_told_by_their_grade(score: Score) -> None:
    """What maps to a wrong answer, or to the wrong place, is nearly always graded low."""
    better = [one for one in score.wrong if one[-1] in ("high", "medium")]
    assert len(better) <= 1, better


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: document["name"])
def test_every_quote_is_written_as_it_is_meant(document: dict[str, object]) -> None:
    """A citation that is right stands in the answer, so that the set itself is no nonsense."""
    pages = {
        citation["page_start"] for _, citations in blocks_of(document) for citation in citations
    }
    right = document["right"]
    assert isinstance(right, dict)
    wrong_on_purpose = (
        "a wrong page",
        "a page that does not exist",
        "a model that cites the cover for everything",
    )
    if document["name"] not in wrong_on_purpose:
        assert {page for its in right.values() for page in its} <= pages
