"""Texts in one spelling, so that what people read as the same compares as the same.

Any case, composed and decomposed characters, kinds of quotes, dashes and blanks, line breaks, and
Markdown's marks are made alike. Places in a folded text are places in no other text.
"""

from __future__ import annotations

import re
import unicodedata
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

JOINT = "\ue001"
"""Stands between two pieces of one text that are read on; part of no value."""
BREAK = "\ue000"
"""Stands between two pieces that have nothing to do with each other."""
NARROW = "\u00a0"
"""A blank that does not break: all of its kinds are folded to this one."""
_SAME = {
    '"': "“”„‟«»″",
    "'": "\u2018\u2019\u201a\u201b\u2039\u203a\u2032\u00b4",
    "-": "\u2010\u2011\u2012\u2013\u2212\ufe63\uff0d",
    NARROW: "\u202f\u2007\u2009",
    "/": "\u2044",
    "...": "…",
    "": "`\u00ad\u200b\u200c\u200d\u200e\u200f\u2060\ufeff" + JOINT + BREAK,
}
"""What is written instead of some characters: quotes, dashes, blanks that do not break."""
_ALIKE = {ord(char): one for one, chars in _SAME.items() for char in chars}
_LONG_DASH = re.compile(r"[^\S\n]?—[^\S\n]?")
_BLANKS = re.compile(r"\s+")
_BROKEN = re.compile(r"(?<=[^\W\d_])-\n(?=[^\W\d_])")
_HYPHEN = re.compile(r"(?<=[^\W\d_])-(?=[^\W\d_])")
_EVEN = str.maketrans({"\n": " ", "\t": " ", NARROW: " "})
_WORD = re.compile(r"[^\W_]+")


def folded(text: str) -> str:
    """Return a text in its one spelling; a run of blanks is one character.

    That is a line break where the run has one, a tab where it is a gap as in tables, else a blank.
    A word that is parted at the end of a line is put together.
    """
    if not text.isascii():
        text = _LONG_DASH.sub(" - ", unicodedata.normalize("NFC", text))
    text = text.translate(_ALIKE).replace("**", "").replace("__", "").casefold()
    if not text.isascii():
        text = unicodedata.normalize("NFC", text)
    return _BROKEN.sub("", _BLANKS.sub(_blank, text))


def _blank(found: re.Match[str]) -> str:
    run = found.group()
    if len(run) == 1 and run in " \n" + NARROW:
        return run
    if "\n" in run or "\r" in run or "\f" in run:
        return "\n"
    return "\t" if "\t" in run or len(run) > 1 else " "


def even(text: str) -> str:
    """Return a folded text in which all blanks are the same; places stay what they are."""
    return text.translate(_EVEN)


def words(text: str) -> list[str]:
    """Return the words of a folded text: letters and digits that stand together."""
    return _WORD.findall(text)


def without_hyphens(text: str) -> str:
    """Return a text as it reads where a line ends at each of its hyphens."""
    return _HYPHEN.sub("", text)


def squashed(text: str) -> str:
    """Return a folded text without all that is neither letter nor digit.

    A blank stays between two figures, so that they make no other number.
    """
    parts: list[str] = []
    for word in _WORD.findall(text):
        if parts and word[0].isdigit() and parts[-1][-1].isdigit():
            parts.append(" ")
        parts.append(word)
    return "".join(parts)


def whole_places(text: str, sought: str) -> Iterator[tuple[int, bool]]:
    """Yield where a text stands as whole words, and whether it is part of a compound there.

    A number at its edge is whole, too: "480" does not stand in "1,480" or in "480.5".
    """
    at = text.find(sought)
    while at >= 0:
        end = at + len(sought)
        if not (_continues(text, at - 1, at, -1) or _continues(text, end, end - 1, 1)):
            yield at, _is_compound(text, at, end)
        at = text.find(sought, end)


def _continues(text: str, outside: int, inside: int, step: int) -> bool:
    """Whether a word or number goes on beyond the edge of what was found in it."""
    if not 0 <= outside < len(text) or not text[inside].isalnum():
        return False
    if text[outside].isalnum():
        return True
    beyond = outside + step
    joined = text[inside].isdigit() and text[outside] in ".,'/:-" and 0 <= beyond < len(text)
    return joined and text[beyond].isdigit()


def _is_compound(text: str, start: int, end: int) -> bool:
    """Whether a hyphen ties what was found to another word."""
    before, after = text[max(0, start - 2) : start], text[end : end + 2]
    tied_before = len(before) == len("a-") and before[1] == "-" and before[0].isalnum()
    tied_after = len(after) == len("-a") and after[0] == "-" and after[1].isalnum()
    return tied_before or tied_after
