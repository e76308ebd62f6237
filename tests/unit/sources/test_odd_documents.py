"""Documents that are not quite what they look like: told in a sentence, whatever is wrong."""

from __future__ import annotations

from contextlib import suppress
from io import BytesIO

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pypdf import PdfWriter

from batchata_tasks.common.errors import SpecError
from batchata_tasks.sources.documents import of_content
from tests.support.pdfs import locked, pdf

PIECES = [
    *(b"/Kids", b"<<", b">>", b"[", b"]", b" 0 R", b"99999999999", b"-1", b"1e9", b"null"),
    *(b"/Filter /FlateDecode", b"/LZWDecode", b"/ASCII85Decode", b"stream\n", b"endstream"),
    *(b"\0", b"\xff", b"(", b"%"),
]


def packed() -> bytes:
    """Return a PDF whose streams are compressed."""
    writer, stream = PdfWriter(clone_from=BytesIO(pdf("Hello", "world"))), BytesIO()
    for page in writer.pages:
        page.compress_content_streams()
    writer.write(stream)
    return stream.getvalue()


SEEDS = [pdf("one", "two"), packed(), locked()]
EDITS = st.tuples(
    st.floats(0, 1, exclude_max=True), st.integers(0, 30), st.sampled_from([b"", *PIECES])
)


@given(st.sampled_from(SEEDS), st.lists(EDITS, min_size=1, max_size=8), st.booleans())
def test_a_damaged_pdf_is_told_or_taken(
    seed: bytes, edits: list[tuple[float, int, bytes]], cited: bool
) -> None:
    """Whatever bytes are lost, doubled or changed, nothing but a sentence comes of it."""
    content = bytearray(seed)
    for where, lost, piece in edits:
        place = int(where * len(content))
        content[place : place + lost] = piece
    with suppress(SpecError):
        document = of_content(bytes(content), "a.pdf", cited=cited)
        assert document.pages > document.textless


@pytest.mark.parametrize(
    ("before", "after"),
    [(b"/Standard", b"/Other"), (b"/V 2", b"/V 9")],
    ids=["another lock", "a newer lock"],
)
def test_a_lock_that_nobody_knows_is_told(before: bytes, after: bytes) -> None:
    """A PDF under a scheme of rights that readers do not know is refused as broken ones are."""
    content = locked()
    assert before in content
    with pytest.raises(SpecError, match=r"file: a.pdf cannot be read as a PDF"):
        of_content(content.replace(before, after), "a.pdf")


def test_a_page_that_cannot_be_read_may_have_text() -> None:
    """What a reader cannot decode is no reason to refuse citations: models read more."""
    content = packed().replace(b"/FlateDecode", b"/OtherDecode")
    assert of_content(content, "a.pdf", cited=True).textless == 0
