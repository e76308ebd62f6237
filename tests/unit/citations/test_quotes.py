"""Passages that a model quotes for fields, judged by documents that were read by hand."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hypothesis import given
from hypothesis import strategies as st

from batchata_tasks import map_citations
from batchata_tasks.citations.quotes import Text, cite_fields
from tests.support.cited_truth import DOCUMENTS, Score, blocks_of

if TYPE_CHECKING:
    from batchata_tasks import Citation


def quoted(document: dict[str, Any]) -> dict[str, list[Citation]]:
    """Return what is made of the quotes that the document's answer has for its fields."""
    told = map_citations(document["fields"], blocks_of(document))
    quotes = [
        (field, one["cited_text"] or "", one["page_start"])
        for field, citations in told.items()
        for one in citations
    ]
    found: dict[str, list[Citation]] = {}
    text = Text("document.pdf", tuple(document["pages"]))
    for one in cite_fields(document["fields"], quotes, [text]):
        found.setdefault(one["field"], []).append(one)
    return found


def test_quotes_are_as_good_as_cited_prose() -> None:
    """None that is graded high is wrong, and nearly all are found that should be so graded."""
    score = Score()
    for document in DOCUMENTS:
        score.add(document, quoted(document))
    assert score.precision("high") == 1
    assert score.recall("high") > 0.99
    assert score.precision("medium") > 0.9
    assert [one for one in score.missed if one[-1] != "unverified"] == []


def test_a_label_of_another_value_is_no_evidence() -> None:
    """What the quote itself labels is what counts, not what the model says of it."""
    text = Text("a.pdf", ("Total amount: 100.00 (net 80.00)",))
    [one] = cite_fields({"total_amount": 80}, [("total_amount", text.pages[0], 1)], [text])
    assert (one["grade"], one["verified"]) == ("low", True)


def test_what_nobody_quoted_is_sought() -> None:
    """A field without a quote is found in the text, and graded medium at most."""
    texts = [Text("a.pdf", ("Cover", "Total: 5.20")), Text("b.txt", ("Remark: by rail",), False)]
    found = cite_fields({"total": 5.2, "remark": "by rail"}, [], texts)
    assert [(one["field"], one["document"], one["page_start"], one["grade"]) for one in found] == [
        ("total", "a.pdf", 2, "medium"),
        ("remark", "b.txt", None, "medium"),
    ]
    assert (found[1]["char_start"], found[1]["char_end"]) == (0, 15)


def test_without_a_text_nothing_is_verified() -> None:
    """Of a picture, quotes are kept as the model gives them, and graded low."""
    [one] = cite_fields({"total": 5}, [("total", "Total: 5", 1)], [])
    assert (one["grade"], one["verified"]) == ("low", False)


@given(
    quotes=st.lists(st.tuples(st.text(), st.text(), st.none() | st.integers())),
    pages=st.lists(st.lists(st.text(), max_size=3), max_size=3),
    fields=st.dictionaries(st.text(), st.none() | st.integers() | st.text() | st.lists(st.text())),
)
def test_any_quotes(
    quotes: list[tuple[str, str, int | None]], pages: list[list[str]], fields: dict[str, Any]
) -> None:
    """Whatever a model says, nothing is raised, and what is verified stands on its page."""
    texts = [Text(f"{i}.pdf", tuple(one)) for i, one in enumerate(pages)]
    for one in cite_fields(fields, quotes, texts):
        if one["verified"]:
            [text] = [text for text in texts if text.title == one["document"]]
            assert 1 <= (one["page_start"] or 0) <= (one["page_end"] or 0) <= len(text.pages)
