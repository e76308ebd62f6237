"""Words of a prompt, from which answers are made."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

_FEW = 6  # words, below which others join them
_OTHERS = (
    *("ledger", "harbour", "morning", "paper", "window", "garden"),
    *("letter", "market", "bridge", "winter", "station", "river"),
)
_WORD = re.compile(r"[^\W_]+(?:['-][^\W_]+)*")
_MOST = 4  # words of a phrase


class Words:
    """The words of a prompt, split when they are first asked for."""

    __slots__ = ("_prompt", "_words")

    def __init__(self, prompt: str) -> None:
        self._prompt = prompt
        self._words: tuple[str, ...] = ()

    def phrase(self, below: Callable[[int], int]) -> str:
        """Return some words that follow each other; `below` draws a number below another one."""
        words = self._all()
        start, count = below(len(words)), 1 + below(_MOST)
        return " ".join(words[start : start + count])

    def name(self, below: Callable[[int], int]) -> str:
        """Return a word of small ASCII letters, as names of hosts have."""
        names = [word.lower() for word in self._all() if word.isascii() and word.isalpha()]
        return names[below(len(names))] if names else _OTHERS[below(len(_OTHERS))]

    def _all(self) -> tuple[str, ...]:
        if not self._words:
            words = _WORD.findall(self._prompt)
            self._words = (*words, *_OTHERS) if len(words) < _FEW else tuple(words)
        return self._words
