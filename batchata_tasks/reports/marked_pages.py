"""`batchata show --open`: a page of HTML with a row's documents, the passages marked in them."""

from __future__ import annotations

import re
from html import escape
from typing import TYPE_CHECKING, Any

from batchata_tasks.citations.leaves import leaves
from batchata_tasks.common.text import printable_lines

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from batchata_tasks.citations.quotes import Text

_STYLE = """
body { font-family: sans-serif; margin: 2em auto; max-width: 60em; line-height: 1.4 }
table { border-collapse: collapse }
th, td { text-align: left; padding: .2em .8em; vertical-align: top }
tr { border-bottom: 1px solid #ccc }
section { border: 1px solid #ccc; margin: 1em 0; padding: 0 1em }
pre { white-space: pre-wrap }
mark { background: #ffe58a }
.low { color: #a33 }
"""
_HEAD = "<tr><th>field</th><th>value</th><th>where</th><th>grade</th><th>quote</th></tr>"


def marked_html(
    title: str,
    answers: Mapping[str, Any],
    citations: Sequence[Mapping[str, Any]],
    texts: Sequence[Text],
) -> str:
    """Return the page: a table of the fields, and below it the documents' pages.

    All texts in it are foreign, and do nothing.
    """
    rows = "".join(_row(*one) for one in _told(answers, citations))
    pages = "".join(_document(number, text, citations) for number, text in enumerate(texts))
    if not texts:
        pages = "<p>The documents are not shown: their request file is not kept any more.</p>"
    policy = "default-src 'none'; style-src 'unsafe-inline'"
    return (
        f'<!doctype html><html><head><meta charset="utf-8"><title>{_text(title)}</title>'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        f"<style>{_STYLE}</style></head><body><h1>{_text(title)}</h1>"
        f"<table>{_HEAD}{rows}</table>{pages}</body></html>\n"
    )


def _told(
    answers: Mapping[str, Any], citations: Sequence[Mapping[str, Any]]
) -> Iterable[tuple[str, object, Mapping[str, Any] | None]]:
    """Yield each field with its value and each of its passages; then those of no field."""
    for leaf in leaves(answers):
        told = [one for one in citations if one["field"] == leaf.path]
        if leaf.sought is not None:
            yield from ((leaf.path, leaf.value, one) for one in told or [None])
    yield from (("", "", one) for one in citations if one["field"] is None)


def _row(field: str, value: object, one: Mapping[str, Any] | None) -> str:
    if one is None:
        where, grade, quote, kind = "", "no passage says it", "", "low"
    else:
        page = f", page {one['page_start']}" if one["page_start"] is not None else ""
        where = f"{one['document'] or ''}{page}"
        truth = "" if one["verified"] is None else "verified" if one["verified"] else "not verified"
        grade = ", ".join(filter(None, (one["grade"], truth, one["reason"])))
        quote, kind = one["cited_text"] or "", "low" if one["grade"] == "low" else ""
    cells = "".join(f"<td>{_text(str(cell))}</td>" for cell in (field, value, where, grade, quote))
    return f'<tr class="{kind}">{cells}</tr>'


def _document(number: int, text: Text, citations: Sequence[Mapping[str, Any]]) -> str:
    own = [one for one in citations if one["document"] in (text.title, None)]
    pages = list[str]()
    for page, content in enumerate(text.pages, 1):
        quotes = [one["cited_text"] for one in own if one["page_start"] in (page, None)]
        head = f"{text.title}, page {page}" if text.paged else text.title
        body = _marked(content, [quote for quote in quotes if quote])
        pages.append(
            f'<section id="d{number}p{page}"><h2>{_text(head)}</h2><pre>{body}</pre></section>'
        )
    return "".join(pages)


def _marked(content: str, quotes: Sequence[str]) -> str:
    """Return a page with its quotes marked, wherever blanks and lines break them."""
    spans = list[tuple[int, int]]()
    for quote in quotes:
        pattern = r"\s+".join(map(re.escape, quote.split()))
        spans += [found.span() for found in re.finditer(pattern, content)] if pattern else []
    marked, at = list[str](), 0
    for start, end in sorted(spans):
        if end > at:
            start = max(start, at)  # noqa: PLW2901 - the rest of an overlapping one
            marked += [_text(content[at:start]), f"<mark>{_text(content[start:end])}</mark>"]
            at = end
    return "".join([*marked, _text(content[at:])])


def _text(text: str) -> str:
    return escape(printable_lines(text))
