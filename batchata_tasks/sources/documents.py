"""Documents: files that travel with a request. What they are is told by their content.

Nothing proves how many tokens a page or a picture makes, as it is proven of text: they are bounded by
rule, with a margin (docs/money.md), and a request that costs more stops what would follow it.
"""

from __future__ import annotations

import hashlib
import stat
from contextlib import contextmanager
from io import BytesIO
from typing import TYPE_CHECKING

from batchata_tasks.common.errors import SpecError
from batchata_tasks.types.document import PDF, TEXT, Document

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

_MOST_BYTES = 100_000_000  # no provider takes as much
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
_PDF_WITHIN = 1024  # bytes: readers of PDFs let something else stand before the first mark
_KINDS = "give a PDF, a picture (PNG, JPEG, GIF, WebP) or a text in UTF-8"


def read(path: Path, *, cited: bool = False) -> Document:
    """Return the document in a file.

    Raises:
        SpecError: it cannot be read, or no model can be given such a one.
    """
    with _readable(path):
        if (
            not stat.S_ISREG((known := path.stat()).st_mode) or known.st_size > _MOST_BYTES
        ):  # which might have no end, or wait for one
            message = f"file: {path} is no file of at most {_MOST_BYTES:,} bytes; check the path, or split it."
            raise SpecError(message)
        data = path.read_bytes()
    found = _media_type(data, path.suffix.lower())
    if not data or found is None:
        what = "is empty" if not data else "is no document that can be sent"
        message = f"file: {path} {what}; {_KINDS}."
        raise SpecError(message)
    if (said := _SUFFIXES.get(path.suffix.lower())) is not None and said != found:
        message = (
            f"file: {path} is not what its name says, but {found}; mend the file, or rename it."
        )
        raise SpecError(message)
    return Document(path.name, found, data, _pages(path, data) if found == PDF else 0, cited)


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
    for mark, found in _MARKS.items():
        if data.startswith(mark):
            return found
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "image/webp"
    try:
        return TEXT if b"\0" not in data and data.decode().strip() else None
    except UnicodeDecodeError:
        return None


def _pages(path: Path, data: bytes) -> int:
    from pypdf import PdfReader  # noqa: PLC0415 - few batches need it, and it takes long to import
    from pypdf.errors import PyPdfError  # noqa: PLC0415

    try:
        reader = PdfReader(BytesIO(data))
        pages, locked = 0 if reader.is_encrypted else len(reader.pages), reader.is_encrypted
    except (
        PyPdfError,
        LookupError,
        ValueError,
        AttributeError,
        TypeError,
        RecursionError,
    ) as error:  # as it does on odd files
        message = f"file: {path} cannot be read as a PDF ({type(error).__name__}); save it anew."
        raise SpecError(message) from error
    if not pages:
        what = (
            "is protected by a password; save it without one"
            if locked
            else "has no pages; check it"
        )
        message = f"file: {path} {what}."
        raise SpecError(message)
    return pages
