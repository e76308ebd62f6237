"""A document that travels with a request."""

from __future__ import annotations

import hashlib
from base64 import b64encode
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

PDF = "application/pdf"
TEXT = "text/plain"
_USUAL_PAGE, _USUAL_IMAGE = 2_500, 1_500
_BYTES_IN_USUAL_TOKEN = 4


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
            return (
                len(self.data) if self.cited else 0
            )  # to be cited, it is cut into numbered pieces
        most = self.pages * page if self.kind == "pdf" else picture
        return most + (most // 2 if self.cited else 0) - len(self.base64)

    def usual(self) -> tuple[int, int]:
        """Return its bytes in a request body, and how many tokens they are likely to be."""
        if self.kind == "text":
            return len(self.data), len(self.data) // _BYTES_IN_USUAL_TOKEN
        return len(self.base64), self.pages * _USUAL_PAGE if self.kind == "pdf" else _USUAL_IMAGE
