"""Documents: files that travel with a request. What they are is told by their content.

Nothing proves how many tokens a page or a picture makes, as it is proven of text: they are bounded by
rule, with a margin (docs/money.md), and a request that costs more stops what would follow it.
"""

from __future__ import annotations

import hashlib
import stat
from base64 import b64encode
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from io import BytesIO
from typing import TYPE_CHECKING, Literal

from batchata_tasks.errors import SpecError

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

PDF = "application/pdf"
TEXT = "text/plain"
_USUAL_PAGE, _USUAL_IMAGE = 2_500, 1_500
_BYTES_IN_USUAL_TOKEN = 4
_MOST_BYTES = 100_000_000  # no provider takes as much
_SUFFIXES = {".pdf": PDF, ".png": "image/png", ".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".gif": "image/gif", ".webp": "image/webp"}
_MARKS = {b"\x89PNG\r\n\x1a\n": "image/png", b"\xff\xd8\xff": "image/jpeg", b"GIF8": "image/gif"}
_PDF_MARK = b"%PDF-"
_PDF_WITHIN = 1024  # bytes: readers of PDFs let something else stand before the first mark
_KINDS = "give a PDF, a picture (PNG, JPEG, GIF, WebP) or a text in UTF-8"


@dataclass(frozen=True)
class Document:
    """A file's content. `pages` are those of a PDF; `cited` asks that the answer says what of it it rests on."""

    title: str
    media_type: str
    data: bytes
    pages: int = 0
    cited: bool = False

    @property
    def kind(self) -> Literal["pdf", "text", "image"]:
        """What it is, as providers tell documents apart."""
        return "pdf" if self.media_type == PDF else "text" if self.media_type == TEXT else "image"

    @property
    def text(self) -> str:
        """The text of one that is a text."""
        return self.data.decode()

    @cached_property
    def base64(self) -> str:
        """The content as JSON can hold it."""
        return b64encode(self.data).decode()

    @property
    def sha256(self) -> str:
        """What tells its content from any other."""
        return hashlib.sha256(self.data).hexdigest()

    @property
    def url(self) -> str:
        """The content as a `data:` URL."""
        return f"data:{self.media_type};base64,{self.base64}"

    def token_bound(self, page: int, picture: int) -> int:
        """Return the most tokens that it counts as, beyond its bytes in a request body; negative where those are more.

        `page` and `picture` are the most that the model makes of one.
        """
        if self.kind == "text":
            return len(self.data) if self.cited else 0  # to be cited, it is cut into numbered pieces
        most = self.pages * page if self.kind == "pdf" else picture
        return most + (most // 2 if self.cited else 0) - len(self.base64)

    def usual(self) -> tuple[int, int]:
        """Return its bytes in a request body, and how many tokens they are likely to be."""
        if self.kind == "text":
            return len(self.data), len(self.data) // _BYTES_IN_USUAL_TOKEN
        return len(self.base64), self.pages * _USUAL_PAGE if self.kind == "pdf" else _USUAL_IMAGE


def read(path: Path, *, cited: bool = False) -> Document:
    """Return the document in a file.

    Raises:
        SpecError: it cannot be read, or no model can be given such a one.
    """
    with _readable(path):
        if not stat.S_ISREG((known := path.stat()).st_mode) or known.st_size > _MOST_BYTES:  # which might have no end, or wait for one
            message = f"file: {path} is no file of at most {_MOST_BYTES:,} bytes; check the path, or split it."
            raise SpecError(message)
        data = path.read_bytes()
    found = _media_type(data, path.suffix.lower())
    if not data or found is None:
        what = "is empty" if not data else "is no document that can be sent"
        message = f"file: {path} {what}; {_KINDS}."
        raise SpecError(message)
    if (said := _SUFFIXES.get(path.suffix.lower())) is not None and said != found:
        message = f"file: {path} is not what its name says, but {found}; mend the file, or rename it."
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
    if data.lstrip().startswith(_PDF_MARK) or (suffix == ".pdf" and _PDF_MARK in data[:_PDF_WITHIN]):
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
    except (PyPdfError, LookupError, ValueError, AttributeError, TypeError, RecursionError) as error:  # as it does on odd files
        message = f"file: {path} cannot be read as a PDF ({type(error).__name__}); save it anew."
        raise SpecError(message) from error
    if not pages:
        what = "is protected by a password; save it without one" if locked else "has no pages; check it"
        message = f"file: {path} {what}."
        raise SpecError(message)
    return pages
