"""Foreign text in Markdown is shown as it is, and does nothing."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from batchata_tasks.common.markdown import escaped, inert

MARKDOWN = MarkdownIt("commonmark").enable(["table", "strikethrough"])
ODD = [
    *"`*_[]()<>&~|\\!#-+.:@=1a \n",
    *("``", "://", "http://x.de", "<b>", "![", "](", "&lt;", "```"),
]
TEXTS = st.lists(st.sampled_from(ODD), max_size=14).map("".join)
HARMLESS = {"text", "code_inline"}


def shown(source: str) -> tuple[set[str], str]:
    """Return the kinds of what is drawn, and the text that people read, without backticks."""
    kinds, text = set[str](), ""
    for block in MARKDOWN.parse(source):
        if block.type == "inline":
            for child in block.children or []:
                kinds.add(child.type)
                text += child.content
        elif block.type not in {"paragraph_open", "paragraph_close"}:
            kinds.add(block.type)
    return kinds, text


def read(text: str) -> str:
    return re.sub(r"[`\s\\]", "", text)


@given(TEXTS)
def test_an_escaped_text_is_text(text: str) -> None:
    """After other words, nothing of it is a picture, a link, a heading or HTML."""
    kinds, seen = shown(f"so: {escaped(text)}.")
    assert kinds <= HARMLESS
    assert read(seen) == read(f"so: {text}.")


@given(TEXTS)
def test_an_escaped_text_stays_in_its_cell(text: str) -> None:
    """In a table it is one cell."""
    table = MARKDOWN.parse(f"| a | b |\n|---|---|\n| {escaped(text)} | end |\n")
    cells = [one.content for one in table if one.type == "inline"]
    assert len(cells) == 4
    assert cells[-1] == "end"


@given(TEXTS)
def test_an_inert_text_is_the_same_either_way(text: str) -> None:
    """As Markdown it shows what is read in it as it is, but for its backticks."""
    kinds, seen = shown(inert(text))
    assert kinds <= HARMLESS
    assert read(seen).replace("'", "") == read(inert(text)).replace("'", "")


@pytest.mark.parametrize(
    "text",
    [
        "![x](https://x.de/p.png)",
        "<img src=x onerror=alert(1)>",
        "www.x.de",
        "# x",
        "- x",
        "1. x",
        "a\n\n# b",
        "```<b>`",
    ],
)
def test_what_markdown_would_draw_is_drawn_as_text(text: str) -> None:
    """Whichever way it is written into a page."""
    for source in (f"x {escaped(text)}", inert(text)):
        assert shown(source)[0] <= HARMLESS
    assert not re.search(r"(?<!\\)(://|www\.)", escaped(text))


def test_commands_stay_code() -> None:
    """What our sentences tell people to type can be copied; other texts need no marks."""
    told = "see `batchata show 'a_b.yaml' --key k_1`, 5 % of $0.10 (max_tokens)"
    assert escaped(told) == told
    assert inert("3 x refused: no (max_tokens), 5 %") == "3 x refused: no (max_tokens), 5 %"
    assert inert("a*b`c") == "`a*b'c`"
