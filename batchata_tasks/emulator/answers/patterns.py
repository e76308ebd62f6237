"""Texts that match a regular expression, drawn from a digest.

Python's own parser reads the expression. What it cannot draw for certain (looking around, referring
back) is tried, and checked.
"""

from __future__ import annotations

import re
import string
from importlib import import_module
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

_MOST_MORE = 6  # repeats beyond the least that an endless repeat draws
_TRIES = 40
_ALL = string.ascii_letters + string.digits + " -_.,:;!?()[]/+*=@#%&<>'\"\\|~^$`{}\t"
_SETS = {
    "CATEGORY_DIGIT": string.digits,
    "CATEGORY_SPACE": " ",
    "CATEGORY_WORD": string.ascii_letters + string.digits,
}
_DOT = string.ascii_letters + string.digits + " "

_Below: TypeAlias = "Callable[[int], int]"
"""Returns a number below another one."""


def matching(pattern: str, least: int, most: int | None) -> Callable[[_Below], str] | None:
    """Return a generator of texts of `least` to `most` characters that match; None if none is met.

    A text matches if the pattern is found in it, as JSON Schema has it.
    """
    try:
        compiled = re.compile(pattern)
        parsed: list[Any] = list(import_module("re._parser").parse(pattern))
    except (re.error, RecursionError, OverflowError):
        return None

    def draw(below: _Below) -> str:
        text = ""
        for _ in range(_TRIES):
            text = _Text(below).of(parsed)
            if compiled.search(text) and len(text) < least:
                text = _longer(compiled, text, least, below)
            fits = len(text) >= least and (most is None or len(text) <= most)
            if fits and compiled.search(text):
                return text
        return text

    return draw


def _longer(compiled: re.Pattern[str], text: str, least: int, below: _Below) -> str:
    """Return a text made as long as asked for, at an end where the pattern lets it grow."""
    more = "".join(_DOT[below(26)] for _ in range(least - len(text)))
    return next((one for one in (text + more, more + text) if compiled.search(one)), text)


class _Text:
    """Draws one text."""

    def __init__(self, below: _Below) -> None:
        self._below = below
        self._groups: dict[int, str] = {}
        # what is not here are places in the text, and what only looks around
        self._draws: dict[str, Callable[[Any], str]] = {
            "LITERAL": chr,
            "ANY": lambda _: self._one(_DOT),
            "NOT_LITERAL": lambda value: self._one(_DOT.replace(chr(value), "")),
            "IN": lambda value: self._one(_characters(value)),
            "BRANCH": lambda value: self.of(value[1][self._below(len(value[1]))]),
            "SUBPATTERN": self._group,
            "ATOMIC_GROUP": self.of,
            "GROUPREF": lambda value: self._groups.get(value, ""),
            **dict.fromkeys(("MAX_REPEAT", "MIN_REPEAT", "POSSESSIVE_REPEAT"), self._repeated),
        }

    def of(self, parsed: Iterable[Any]) -> str:
        """Return a text for a parsed expression."""
        drawn = ((self._draws.get(str(code)), value) for code, value in parsed)
        return "".join(draw(value) for draw, value in drawn if draw is not None)

    def _group(self, value: Any) -> str:
        text = self._groups[value[0]] = self.of(value[-1])
        return text

    def _repeated(self, value: Any) -> str:
        least, most, repeated = value
        times = least + self._below(min(int(most) - least, _MOST_MORE) + 1)
        return "".join(self.of(repeated) for _ in range(times))

    def _one(self, characters: str) -> str:
        return characters[self._below(len(characters))] if characters else ""


def _characters(items: list[Any]) -> str:
    """Return characters of a set; of one that leaves some out, those of `_ALL` that it has."""
    found, negated = "", False
    for code, value in items:
        match str(code):
            case "NEGATE":
                negated = True
            case "LITERAL":
                found += chr(value)
            case "RANGE":
                first, last = value
                found += "".join(map(chr, range(first, min(last, first + 127) + 1)))
            case "CATEGORY":
                name = str(value)
                known = _SETS.get(name.replace("_NOT_", "_"), "")
                left = "".join(one for one in _ALL if one not in known)
                found += left if "_NOT_" in name else known
            case _:
                pass
    return "".join(one for one in _DOT if one not in found) if negated else found
