"""The text of documents, page by page, as a reader of PDFs extracts it."""

from __future__ import annotations

from io import BytesIO
from typing import TYPE_CHECKING

from batchata_tasks.common.text import is_unicode
from batchata_tasks.sources.documents import pdf_errors
from batchata_tasks.types.document import PDF

if TYPE_CHECKING:
    from pypdf import PageObject

    from batchata_tasks.types.document import Document


def pages_of_text(document: Document) -> tuple[str, ...] | None:
    """Return the text of each page; a text is one page. None for what has none that can be read."""
    if document.kind == "text":
        return (document.text,)
    if document.media_type != PDF:
        return None
    from pypdf import PdfReader  # noqa: PLC0415 - few batches need it, and it takes long to import

    # closed, the stream does not keep the data until the reader's circles are collected
    with BytesIO(document.data) as stream:
        try:
            return tuple(map(_text_of, PdfReader(stream).pages))
        except pdf_errors():
            return None


def _text_of(page: PageObject) -> str:
    """Return the text of a page; one that cannot be read has none."""
    try:
        text = page.extract_text()
    except pdf_errors():
        return ""
    # fonts may map to halves of pairs, which no column holds
    return text if is_unicode(text) else text.encode("utf-8", "replace").decode()
