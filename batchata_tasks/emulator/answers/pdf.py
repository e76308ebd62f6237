"""The pages of PDFs in requests: their number and their text."""

from __future__ import annotations

import binascii
import logging
from base64 import b64decode
from functools import lru_cache
from io import BytesIO

from pypdf import PdfReader
from pypdf.errors import PyPdfError

# pypdf's warnings about odd files are for their author, not for the user of the emulator.
logging.getLogger("pypdf").setLevel(logging.CRITICAL)


@lru_cache(maxsize=64)
def page_count(encoded: str) -> int:
    """Count the pages of a base64 PDF; a file that cannot be read counts as one page."""
    reader = _reader(encoded)
    try:
        return 1 if reader is None else max(1, len(reader.pages))
    except (PyPdfError, ValueError, KeyError, AttributeError, RecursionError):
        return 1


@lru_cache(maxsize=1_024)
def page_text(encoded: str, page: int) -> str:
    """Return the text of a page, counted from 1; empty if it cannot be read."""
    reader = _reader(encoded)
    try:
        return "" if reader is None else reader.pages[page - 1].extract_text()
    except (PyPdfError, ValueError, KeyError, AttributeError, IndexError, RecursionError):
        return ""


def _reader(encoded: str) -> PdfReader | None:
    try:
        return PdfReader(BytesIO(b64decode(encoded)))
    except (PyPdfError, binascii.Error, ValueError):
        return None
