"""A document that travels with a request."""

from __future__ import annotations

import hashlib
from base64 import b64decode, b64encode
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

PDF = "application/pdf"
TEXT = "text/plain"
_USUAL_PAGE = 2_500  # tokens
_USUAL_IMAGE = 1_500  # tokens
_USUAL_TOKEN = 4  # bytes


@dataclass(frozen=True)
class Document:
    """A file's content, as it is sent.

    `pages` is 0 unless it is a PDF. `cited` asks the model to cite passages of this document; then
    `without_text` are its pages of which nothing can be cited. `file_sha256` is the digest of the
    file, if that has other bytes: those of a text are sent in UTF-8, without a mark.
    """

    title: str
    media_type: str
    data: bytes
    pages: int = 0
    cited: bool = False
    without_text: tuple[int, ...] = ()
    file_sha256: str | None = None

    @classmethod
    def of_url(cls, title: str, url: object) -> Document | None:
        """Return what a `data:` URL holds; None if it is none."""
        head, comma, data = url.partition(";base64,") if isinstance(url, str) else ("", "", "")
        if not comma or not head.startswith("data:"):
            return None
        return cls(title, head.removeprefix("data:"), b64decode(data))

    def beside(self, schema: object | None) -> Document:
        """Return it as it goes with a request: an answer that has a form quotes by itself."""
        return self if schema is None or not self.cited else replace(self, cited=False)

    @property
    def textless(self) -> int:
        """How many of its pages have no text that could be cited."""
        return len(self.without_text)

    @property
    def kind(self) -> Literal["pdf", "text", "image"]:
        """The kind of document, as providers distinguish them."""
        if self.media_type == PDF:
            return "pdf"
        return "text" if self.media_type == TEXT else "image"

    @property
    def text(self) -> str:
        """The content of a text document."""
        return self.data.decode()

    @cached_property
    def base64(self) -> str:
        """The content as JSON can hold it."""
        return b64encode(self.data).decode()

    @property
    def sha256(self) -> str:
        """The digest of the file."""
        return self.file_sha256 or hashlib.sha256(self.data).hexdigest()

    @property
    def url(self) -> str:
        """The content as a `data:` URL."""
        return f"data:{self.media_type};base64,{self.base64}"

    def token_bound(self, page: int, picture: int) -> int:
        """Return the most tokens that it counts as, beyond its bytes in a request body.

        `page` and `picture` are the most tokens that the model counts for one. The result is
        negative if the document has more bytes in the body than tokens.
        """
        if self.kind == "text":
            # to be cited, it is cut into numbered pieces
            return len(self.data) if self.cited else 0
        most = self.pages * page if self.kind == "pdf" else picture
        return most + (most // 2 if self.cited else 0) - len(self.base64)

    def usual(self) -> tuple[int, int]:
        """Return its bytes in a request body, and how many tokens they are likely to be."""
        if self.kind == "text":
            return len(self.data), len(self.data) // _USUAL_TOKEN
        tokens = self.pages * _USUAL_PAGE if self.kind == "pdf" else _USUAL_IMAGE
        return len(self.base64), tokens
