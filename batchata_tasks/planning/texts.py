"""Texts of many rows in little memory: few different ones as numbers, many of them on disk."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from pathlib import Path

    import pyarrow as pa
    from numpy.typing import NDArray


class Codes:
    """Numbers for texts of which there are few."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self._numbers: dict[str, int] = {}

    def of(self, text: str) -> int:
        """Return the number of a text."""
        number = self._numbers.setdefault(text, len(self.texts))
        if number == len(self.texts):
            self.texts.append(text)
        return number

    def of_all(self, column: pa.Array) -> NDArray[np.int64]:
        """Return the numbers of a column of texts; null is an empty text."""
        encoded = column.fill_null("").dictionary_encode()
        numbers = np.array([self.of(text) for text in encoded.dictionary.to_pylist()], np.int64)
        return numbers[encoded.indices.to_numpy(zero_copy_only=False)]


class Texts:
    """Texts on disk, of which there may be many: each is known by where it begins."""

    _KEPT = 1000  # texts that are written once if they come again

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stream = path.open("w+b")
        self._size = 0
        self._known: dict[str, int] = {}

    def close(self) -> None:
        """Delete the file."""
        self._stream.close()
        self._path.unlink()

    def add(self, column: pa.Array) -> NDArray[np.int64]:
        """Write texts; return where each begins, -1 for null."""
        if column.null_count == len(column):
            return np.full(len(column), -1)
        return np.array([-1 if text is None else self._add(text) for text in column.to_pylist()])

    def _add(self, text: str) -> int:
        if text not in self._known:
            if len(self._known) >= self._KEPT:
                self._known.clear()
            stored = text.encode()
            self._stream.seek(0, 2)
            self._stream.write(len(stored).to_bytes(4, "little") + stored)
            self._known[text], self._size = self._size, self._size + 4 + len(stored)
        return self._known[text]

    def at(self, place: int) -> str | None:
        """Return the text that begins at a place; None for -1."""
        if place < 0:
            return None
        self._stream.seek(place)
        return self._stream.read(int.from_bytes(self._stream.read(4), "little")).decode()
