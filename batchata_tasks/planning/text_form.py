"""JSON that differs in some texts alone, as the jobs of most batches do."""

from __future__ import annotations

from typing import TYPE_CHECKING

import orjson

if TYPE_CHECKING:
    from collections.abc import Sequence

TEXT = b"\xff"
"""Stands for a text, between the quotes, in the JSON of a form; UTF-8 has no such byte."""
_NEXT = b'","'  # no text holds this: a quote within one has a backslash before it


def spelled(text: str) -> bytes:
    """Return a text as JSON spells it between its quotes.

    JSON spells each character by itself, so such a text may stand within another one.

    Raises:
        TypeError: it has half of a surrogate pair.
    """
    return orjson.dumps(text)[1:-1]


class TextForm:
    """What JSON has around its texts, given as JSON that has TEXT for each of them."""

    def __init__(self, json: bytes) -> None:
        pieces = json.split(TEXT)
        self._first, *self._others = pieces
        self._parts = [b""] * (2 * len(pieces) - 1)
        self._parts[::2] = pieces

    def with_texts(self, texts: Sequence[bytes]) -> bytes:
        """Return the JSON that has these texts, each as `spelled`."""
        parts = self._parts.copy()
        parts[1::2] = texts
        return b"".join(parts)

    def texts_of(self, json: bytes) -> list[bytes] | None:
        """Return the texts of JSON that has this form, each as `spelled`; else None.

        Behind each of them the form has to have another text, or a name, in the same object.
        """
        if not json.startswith(self._first):
            return None
        rest = json[len(self._first) :]
        texts: list[bytes] = []
        for piece in self._others:
            text, found, rest = rest.partition(piece)
            # of another form, it may hold more than one text (most texts have no quote)
            if not found or (b'"' in text and _NEXT in text):
                return None
            texts.append(text)
        return None if rest else texts
