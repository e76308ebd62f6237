"""Whatever is mapped: nothing raises or depends on chance, and work grows with the text alone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import date
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batchata_tasks import map_citations
from tests.support.cited_truth import DOCUMENTS, blocks_of, cite
from tests.support.paths import ROOT

FEW = settings(max_examples=60, deadline=None)
ODD: list[Any] = [None, True, 5, -1.5, float("nan"), float("inf"), 10**4000, b"\xff", "", "\ud800"]
ODD += [
    Decimal("NaN"),
    Decimal("1E+999999"),
    Decimal("-0"),
    object(),
    date.max,
    {1: 2},
    [[]],
    {"a"},
]
VALUES = st.one_of(
    st.sampled_from(ODD),
    st.text(max_size=12),
    st.integers(),
    st.floats(),
    st.decimals(),
    st.dates(),
)
FIELDS = st.dictionaries(
    st.text(max_size=10),
    st.recursive(
        VALUES,
        lambda inner: st.one_of(
            st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=6), inner, max_size=3)
        ),
        max_leaves=6,
    ),
    max_size=4,
)
TEXTS = st.one_of(
    st.text(max_size=40),
    st.text("aB 1,.-:$%()|\n\t*_5€/'", max_size=60),
    st.sampled_from(
        ["Total: 5", "**a**: 1,500", "03/04/2025", "May 5", "| a | b |\n|---|---|", "-5"]
    ),
)
CITATIONS = st.one_of(
    st.sampled_from([None, {}, [], 5, "x", b"x", {"cited_text": b"x", "page_start": "1"}]),
    st.fixed_dictionaries(
        {
            "cited_text": st.one_of(st.none(), TEXTS),
            "page_start": st.one_of(st.none(), st.integers(-2, 4), st.just(10**30), st.just(True)),
            "page_end": st.one_of(st.none(), st.integers(-2, 4), st.floats()),
            "char_start": st.one_of(st.none(), st.integers(-5, 60)),
            "char_end": st.one_of(st.none(), st.integers(-5, 60)),
        }
    ),
)
BLOCKS = st.lists(
    st.one_of(
        st.tuples(TEXTS, st.one_of(st.none(), st.lists(CITATIONS, max_size=3))),
        st.sampled_from(
            [None, (), ("x",), "xy", (b"x", []), (None, None), 5, ("x", "y"), ("x", {})]
        ),
    ),
    max_size=6,
)
SOURCES = st.one_of(
    st.none(), TEXTS, st.lists(st.one_of(TEXTS, st.sampled_from([None, b"x", 5])), max_size=4)
)


@FEW
@given(FIELDS, BLOCKS, SOURCES)
def test_nothing_raises_and_all_survives_json(fields: Any, blocks: Any, source: Any) -> None:
    """Odd fields, blocks and pages count as empty; what comes out is the same each time."""
    told = map_citations(fields, blocks, source)
    assert json.loads(json.dumps(told)) == told
    assert map_citations(fields, blocks, source) == told
    for name, citations in told.items():
        for citation in citations:
            assert citation["field"] == name
            assert citation["grade"] in ("high", "medium", "low")
            assert citation["verified"] is False or source is not None
            if source is not None and citation["grade"] != "low":
                assert citation["verified"]


EACH = """
import hashlib, json
from batchata_tasks import map_citations
from tests.support.cited_truth import DOCUMENTS, blocks_of
told = [map_citations(one["fields"], blocks_of(one), one["pages"]) for one in DOCUMENTS]
print(hashlib.sha256(json.dumps(told).encode()).hexdigest())
"""


def test_no_chance_decides() -> None:
    """Processes that order sets differently map alike."""
    told = {
        subprocess.run(
            [sys.executable, "-c", EACH],
            cwd=ROOT,
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            check=True,
            text=True,
        ).stdout
        for seed in ("1", "2", "3")
    }
    assert len(told) == 1


@pytest.mark.parametrize(
    "odd", [*ODD, 10**6000, 5, "x", [None], {"a": {"b": {}}}], ids=lambda odd: type(odd).__name__
)
def test_each_argument_may_be_odd(odd: Any) -> None:
    """No value of any argument raises."""
    block = ("a: 5", [cite(1, "a: 5")])
    assert isinstance(map_citations(odd, [block], ["a: 5"]), dict)
    assert isinstance(map_citations({"a": odd}, [block], ["a: 5"]), dict)
    assert isinstance(map_citations({"a": 5}, odd, ["a: 5"]), dict)
    assert isinstance(map_citations({"a": 5}, [block], odd), dict)
    assert isinstance(map_citations({"a": 5}, [odd, (odd, odd), ("a: 5", [odd])], [odd]), dict)


def test_answers_that_contain_themselves() -> None:
    """A circle, or a tree of the same value a thousand times, ends."""
    circle: dict[str, Any] = {"a": 5}
    circle["b"] = circle
    assert list(map_citations(circle, [("a: 5", [cite(1, "a: 5")])])) == ["a"]
    tree: Any = [5]
    for _ in range(30):
        tree = [tree, tree]
    assert isinstance(map_citations({"a": tree}, [("a: 5", [cite(1, "a: 5")])]), dict)


WORDS = st.lists(
    st.sampled_from(["ab", "cd", "total", "of", "rent", "und", "x7", "12", "3.5"]), max_size=8
).map(" ".join)


@FEW
@given(
    st.integers(1, 9999), st.sampled_from("0123456789"), st.sampled_from(["", "x", ".", ",", "/"])
)
def test_no_number_is_found_in_a_longer_one(number: int, more: str, mark: str) -> None:
    """A number with a figure or letter more, on either side, is another number or a word."""
    for text in (f"{number}{mark}{more}7", f"7{more}{mark}{number}"):
        told = map_citations({"count": number}, [(f"Count: {text}", [cite(1, None)])])
        whole = text.replace(",", "") if mark == "," else text
        if whole.lstrip("0") != str(number):
            assert told == {}, text


@FEW
@given(st.text("abcäß", min_size=3, max_size=6), st.text("abcäß7", min_size=1, max_size=2))
def test_no_text_is_found_in_a_longer_word(word: str, more: str) -> None:
    """A word with a letter more, on either side, is another word."""
    for text in (word + more, more + word):
        if f"{word}{word}" not in text:
            assert map_citations({"name": word}, [(f"Name: {text}", [cite(1, None)])]) == {}


@FEW
@given(st.sampled_from(DOCUMENTS), st.integers(0, 40), WORDS, st.booleans())
def test_an_unrelated_block_makes_no_high_one_wrong(
    document: dict[str, Any], at: int, text: str, quoted: bool
) -> None:
    """Whatever else the answer says in a line of its own, what is graded high is right."""
    blocks = blocks_of(document)
    place = at % (len(blocks) + 1)
    page = len(document["pages"]) + 1
    other = (f"\n{text}.\n", [cite(page, text)] if quoted else [])
    if 0 < place < len(blocks) and not blocks[place][0].startswith("\n"):
        return  # it would part a label from its value
    pages = [*document["pages"], text]
    told = map_citations(document["fields"], [*blocks[:place], other, *blocks[place:]], pages)
    for name, citations in told.items():
        for citation in citations:
            if citation["grade"] == "high":
                assert citation["page_start"] in document["right"].get(name, {}), (name, citation)


def work(fields: Any, blocks: Any, source: Any) -> int:
    """Return how many functions a mapping calls, of Python and C: a clock that load cannot slow."""
    calls = 0

    def count(_frame: Any, event: str, _argument: Any) -> None:
        nonlocal calls
        calls += event in ("call", "c_call")

    sys.setprofile(count)
    try:
        map_citations(fields, blocks, source)
    finally:
        sys.setprofile(None)
    return calls


def of_size(kind: str, size: int) -> tuple[Any, Any, Any]:
    """Return fields, blocks and pages that are made to take long, of so many parts."""
    text = {
        "equal values": "42 " * size,
        "digits": "1" * size * 10,
        "groups": "123 " * size,
        "commas": "1," * size,
        "dates": "03/04/2025 " * size,
        "almost dates": "march 3 " * size + "1/1/" * size,
        "no blanks": "a" * size * 10,
        "blanks": "x" + " " * size * 10 + "y",
        "lines": "x\n- " * size,
        "colons": ": " * size + "42",
        "brackets": "(" * size + "42" + ")" * size,
        "dashes": "-" * size + "42",
        "pipes": "|a|b|\n|---|---|\n" + "|42|42|\n" * size,
        "labels": "\n".join(f"labl{i} total{i}: 42" for i in range(size)),
    }.get(kind, "")
    fields = {"total_amount": 42, "when": date(2025, 3, 4), "name": "x y", "ratio": 0.123456}
    if kind == "blocks":
        return fields, [("Total: 42\n", [cite(1, "Total: 42")])] * size, ["Total: 42"]
    if kind == "items":
        rows = [f"Item n{i}: 1 x 4.60" for i in range(size)]
        items = [{"name": f"n{i}", "quantity": 1, "price": 4.6} for i in range(size)]
        return {"items": items}, [(f"\n{row}", [cite(1, row)]) for row in rows], ["\n".join(rows)]
    return fields, [(text, [cite(1, text)])], [text]


KINDS = [
    *("equal values", "digits", "groups", "commas", "dates", "almost dates", "no blanks"),
    *("blanks", "lines", "colons", "brackets", "dashes", "pipes", "labels", "blocks", "items"),
]


@pytest.mark.parametrize("kind", KINDS)
def test_work_grows_no_faster_than_the_text(kind: str) -> None:
    """Four times the text takes about four times the steps, of whatever it is made."""
    small, large = (work(*of_size(kind, size)) for size in (500, 2000))
    assert large <= 5 * small + 1000, (small, large)


def test_work_grows_no_faster_than_the_fields() -> None:
    """Four times the fields take about four times the steps."""
    blocks = [(f"Total amount {i}: 42, name: x{i}\n", [cite(1, None)]) for i in range(50)]
    small, large = (
        work({f"total_{i}": 42 for i in range(size)}, blocks, ["42"]) for size in (20, 80)
    )
    assert large <= 5 * small


PARTS = ["1", "a", "1,", "1/", "may ", "(", "$-", "\u00a0", "1 ", "a-\n", "* ", "'", ".5"]


@pytest.mark.parametrize("part", PARTS)
def test_regular_expressions_do_not_run_away(part: str) -> None:
    """Long texts without an end of a word, number or line are read as others are."""
    text = part * 50_000
    for value in (1, "a", date(2025, 5, 1), -5, text):
        map_citations({"a": value}, [(text, [cite(1, text)])], [text])
