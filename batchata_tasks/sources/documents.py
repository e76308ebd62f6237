"""Documents: files that travel with a request. Their content tells their kind.

Tokens of texts have a proven bound. Those of pages and pictures are bounded by rule, with a margin
(docs/money.md), and a request that costs more stops the requests that would follow it.
"""

from __future__ import annotations

import hashlib
import os
import stat
from contextlib import contextmanager
from io import BytesIO
from typing import TYPE_CHECKING

from batchata_tasks.common.errors import SpecError
from batchata_tasks.types.document import PDF, TEXT, Document

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

_MOST_BYTES = 100_000_000  # more than any provider takes
_SUFFIXES = {
    ".pdf": PDF,
    ".png": "image/png",
    ".jpg": "image/jpeg",
    ".jpeg": "image/jpeg",
    ".gif": "image/gif",
    ".webp": "image/webp",
}
_MARKS = {b"\x89PNG\r\n\x1a\n": "image/png", b"\xff\xd8\xff": "image/jpeg", b"GIF8": "image/gif"}
_PDF_MARK = b"%PDF-"
_PDF_WITHIN = 1024  # bytes: readers of PDFs accept other content before the first mark
_KINDS = "give a PDF, a picture (PNG, JPEG, GIF, WebP) or a text in UTF-8"


def read(path: Path, *, cited: bool = False) -> Document:
    """Return the document in a file.

    Raises:
        SpecError: it cannot be read, or is not a document that models take.
    """
    suffix = path.suffix.lower()
    with _readable(path):
        status = path.stat()
        # other kinds, such as pipes, may have no end
        if not stat.S_ISREG(status.st_mode) or status.st_size > _MOST_BYTES:
            message = (
                f"file: {path} is not a file of at most {_MOST_BYTES:,} bytes; "
                "check the path, or split it."
            )
            raise SpecError(message)
        data = path.read_bytes()
    media_type = _media_type(data, suffix)
    if not data or media_type is None:
        problem = "is empty" if not data else "is not a document that can be sent"
        message = f"file: {path} {problem}; {_KINDS}."
        raise SpecError(message)
    if _SUFFIXES.get(suffix, media_type) != media_type:
        message = (
            f"file: {path} is not what its name says, but {media_type}; fix the file, or rename it."
        )
        raise SpecError(message)
    pages = _pages(path, data) if media_type == PDF else 0
    return Document(path.name, media_type, data, pages, cited)


def is_readable(path: Path) -> bool:
    """Whether there is a file that may be read, whatever its content is; it is not opened."""
    return path.is_file() and os.access(path, os.R_OK)


def digest_of(path: Path) -> str:
    """Return the `sha256` of the document in a file.

    Raises:
        SpecError: it cannot be read.
    """
    with _readable(path), path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


@contextmanager
def _readable(path: Path) -> Generator[None, None, None]:
    try:
        yield
    except OSError as error:
        message = f"file: {path} cannot be read ({error.strerror or error}); check the path."
        raise SpecError(message) from error


def _media_type(data: bytes, suffix: str) -> str | None:
    if data.lstrip().startswith(_PDF_MARK) or (
        suffix == ".pdf" and _PDF_MARK in data[:_PDF_WITHIN]
    ):
        return PDF
    for mark, media_type in _MARKS.items():
        if data.startswith(mark):
            return media_type
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "image/webp"
    try:
        return TEXT if b"\0" not in data and data.decode().strip() else None
    except UnicodeDecodeError:
        return None


# what pypdf raises for files that are not quite PDFs, besides errors of its own
_ODD_FILE = (LookupError, ValueError, AttributeError, TypeError, RecursionError)


def _pages(path: Path, data: bytes) -> int:
    from pypdf import PdfReader  # noqa: PLC0415 - few batches need it, and it takes long to import
    from pypdf.errors import PyPdfError  # noqa: PLC0415 - slow

    problem = None
    try:
        reader = PdfReader(BytesIO(data))
        if reader.is_encrypted:
            problem, pages = "is protected by a password; save it without one", 0
        elif not (pages := len(reader.pages)):
            problem = "has no pages; check it"
    except (PyPdfError, *_ODD_FILE) as error:
        message = f"file: {path} cannot be read as a PDF ({type(error).__name__}); save it anew."
        raise SpecError(message) from error
    if problem is not None:
        message = f"file: {path} {problem}."
        raise SpecError(message)
    return pages
