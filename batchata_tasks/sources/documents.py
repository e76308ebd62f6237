"""Documents: files that travel with a request. Their content tells their kind.

Tokens of texts have a proven bound. Those of pages and pictures are bounded by rule, with a margin
(docs/money.md), and a request that costs more stops the requests that would follow it.
"""

from __future__ import annotations

import hashlib
import logging
import os
import stat
import struct
import zipfile
import zlib
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, BinaryIO

from batchata_tasks.common.errors import SpecError
from batchata_tasks.common.text import printable
from batchata_tasks.sources import office
from batchata_tasks.sources.text_encoding import decoded, may_be_text
from batchata_tasks.types.document import PDF, TEXT, Document

if TYPE_CHECKING:
    from collections.abc import Generator

    from pypdf import PageObject

# Python shows warnings of everybody else in the terminal; what is wrong with a file is told anyway
logging.getLogger("pypdf").addHandler(logging.NullHandler())
MOST_BYTES = 100_000_000
"""The size of the largest file that is read: more than any provider takes."""
_SUFFIXES = {
    ".pdf": PDF,
    ".png": "image/png",
    ".jpg": "image/jpeg",
    ".jpeg": "image/jpeg",
    ".gif": "image/gif",
    ".webp": "image/webp",
    ".docx": office.DOCX,
    ".pptx": office.PPTX,
    ".xlsx": office.XLSX,
}
ENDINGS = frozenset(_SUFFIXES) - {".xlsx"}
"""Those of names that no table has."""
_MARKS = {b"\x89PNG\r\n\x1a\n": "image/png", b"\xff\xd8\xff": "image/jpeg", b"GIF8": "image/gif"}
_WEBP = "image/webp"
_PDF_MARK = b"%PDF-"
_START = 1024  # bytes: readers of PDFs accept other content before the first mark
_KINDS = "give a PDF, a picture (PNG, JPEG, GIF, WebP) or a text in UTF-8"


def read(path: Path, *, cited: bool = False, name: str | None = None) -> Document:
    """Return the document in a file. `name` is the path by which people know it, if another one.

    Raises:
        SpecError: it cannot be read, or is not a document that models take.
    """
    file = path if name is None else Path(name)
    with _readable(file):
        _require_file(path, file)
        data = path.read_bytes()
    return of_content(data, str(file), cited=cited)


def of_content(data: bytes, name: str, *, cited: bool = False) -> Document:
    """Return the document that has this content; `name` is the path or URL of its file.

    Raises:
        SpecError: it is not a document that models take.
    """
    title = printable(PurePosixPath(name).name)  # in a prompt, it is a line
    suffix = PurePosixPath(name).suffix.lower()
    media_type, file_sha256 = _kind_of(data, suffix), None
    if media_type is None:
        raise SpecError(_no_kind(data, name))
    if _SUFFIXES.get(suffix, media_type) != media_type:
        message = (
            f"file: {name} is not what its name says, but {media_type}; fix the file, or rename it."
        )
        raise SpecError(message)
    if media_type not in (PDF, *_MARKS.values(), _WEBP):
        as_file, data = data, _text_of(data, media_type, name).encode()
        media_type = TEXT
        if data != as_file:
            file_sha256 = hashlib.sha256(as_file).hexdigest()
    pages, without_text = 0, list[int]()
    if media_type == PDF:
        # readers go round in circles: closed, the stream does not keep the data until these are
        # collected, which is not done while rows are planned
        with BytesIO(data) as stream:
            pages, without_text = _pages(name, stream, cited=cited)
    return Document(title, media_type, data, pages, cited, tuple(without_text), file_sha256)


def is_readable(path: Path) -> bool:
    """Whether there is a file that may be read, whatever its content is; it is not opened."""
    return path.is_file() and os.access(path, os.R_OK)


def digest_of(path: Path) -> str:
    """Return the `sha256` of the document in a file.

    Raises:
        SpecError: it cannot be read.
    """
    with _readable(path):
        _require_file(path)
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()


def media_type_of(path: Path) -> str | None:
    """Return the media type of the document in a file, by its content; None if it is of no kind.

    Raises:
        SpecError: it cannot be read.
    """
    with _readable(path):
        _require_file(path)
        with path.open("rb") as stream:
            known = _kind_of_start(stream.read(_START), path.suffix.lower())
        return known or _kind_of(path.read_bytes(), path.suffix.lower())


def pages_of(path: Path) -> int | None:
    """Return the number of pages of a PDF; None of other documents.

    Raises:
        SpecError: it cannot be read, or is a broken PDF.
    """
    with _readable(path):
        _require_file(path)
        with path.open("rb") as stream:
            if _kind_of_start(stream.read(_START), path.suffix.lower()) != PDF:
                return None
            stream.seek(0)
            return _pages(str(path), stream)[0]


def _require_file(path: Path, name: Path | None = None) -> None:
    """Refuse what is no file, or too large: other kinds, such as pipes, may have no end."""
    status = path.stat()
    if not stat.S_ISREG(status.st_mode) or status.st_size > MOST_BYTES:
        message = (
            f"file: {name or path} is not a file of at most {MOST_BYTES:,} bytes; "
            "check the path, or split it."
        )
        raise SpecError(message)


@contextmanager
def _readable(path: Path) -> Generator[None, None, None]:
    try:
        yield
    except OSError as error:
        message = f"file: {path} cannot be read ({error.strerror or error}); check the path."
        raise SpecError(message) from error


def _kind_of(data: bytes, suffix: str) -> str | None:
    """Return the kind of content; None if it is none that can be sent."""
    if (known := _kind_of_start(data[:_START], suffix)) is not None:
        return known
    if data.startswith(office.ZIP_MARK):
        return office.kind_of(data)
    return None if decoded(data) is None else TEXT


def _text_of(data: bytes, media_type: str, name: str) -> str:
    """Return the text that is sent of a document."""
    if media_type == TEXT:
        return decoded(data) or ""
    return office.markdown_of(data, media_type, name)


def _kind_of_start(start: bytes, suffix: str) -> str | None:
    """Return the kind that the first bytes of a file say; None if it can only be a text."""
    if start.lstrip().startswith(_PDF_MARK) or (suffix == ".pdf" and _PDF_MARK in start):
        return PDF
    for mark, media_type in _MARKS.items():
        if start.startswith(mark):
            return media_type
    return _WEBP if start[:4] == b"RIFF" and start[8:12] == b"WEBP" else None


def _no_kind(data: bytes, name: str) -> str:
    """Return the sentence on content that is no document."""
    if data.startswith(office.ZIP_MARK) and zipfile.is_zipfile(BytesIO(data)):
        return f"file: {name} is an archive, and no Word, Excel or PowerPoint document; unpack it."
    if data.startswith(office.OLD_MARK):
        return (
            f"file: {name} is an Office document of the old kind, or under a password; save it as "
            "a PDF, or as DOCX, XLSX or PPTX without one."
        )
    if may_be_text(data):
        return f"file: {name} is a text in an encoding that cannot be told; save it as UTF-8."
    problem = "is not a document that can be sent" if data else "is empty"
    return f"file: {name} {problem}; {_KINDS}."


# what pypdf raises for files that are not quite PDFs, besides errors of its own
_ODD_FILE = (
    *(LookupError, ValueError, AttributeError, TypeError, ArithmeticError),
    *(RuntimeError, AssertionError, MemoryError, zlib.error, struct.error),
)


def pdf_errors() -> tuple[type[Exception], ...]:
    """Return what a reader of PDFs raises for files that are not quite PDFs."""
    from pypdf.errors import DeprecationError, PyPdfError  # noqa: PLC0415 - slow

    return (PyPdfError, DeprecationError, *_ODD_FILE)


def _pages(name: str, stream: BinaryIO, *, cited: bool = False) -> tuple[int, list[int]]:
    """Return how many pages a PDF has, and, if it is to be cited, which are without text."""
    from pypdf import PdfReader  # noqa: PLC0415 - few batches need it, and it takes long to import

    problem, pages, without_text = None, 0, list[int]()
    try:
        reader = PdfReader(stream)
        if reader.is_encrypted:
            problem = "is protected by a password; save it without one"
        elif not (pages := len(reader.pages)):
            problem = "has no pages; check it"
        elif cited:
            without_text = [
                number for number, page in enumerate(reader.pages, 1) if not _may_have_text(page)
            ]
    except pdf_errors() as error:
        message = f"file: {name} cannot be read as a PDF ({type(error).__name__}); save it anew."
        raise SpecError(message) from error
    if pages and pages == len(without_text):
        problem = (
            "has no text that could be cited, only pictures; recognize its text first, or remove "
            "`enable_citations`"
        )
    if problem is not None:
        message = f"file: {name} {problem}."
        raise SpecError(message)
    return pages, without_text


def _may_have_text(page: PageObject) -> bool:
    """Whether a page has text that a reader extracts; one that it cannot read may have some."""
    try:
        return bool(page.extract_text().strip())
    except pdf_errors():
        return True
