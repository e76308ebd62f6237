"""The label of a value: the words before it that say what it is."""

from __future__ import annotations

import re
from bisect import bisect_left
from dataclasses import dataclass
from typing import TYPE_CHECKING

from batchata_tasks.citations.folding import BREAK, JOINT, NARROW
from batchata_tasks.citations.lexicon import (
    ABBREVIATIONS,
    ARTICLES,
    CONNECTORS,
    FILLERS,
    PREPOSITIONS,
    VERBS,
    WEEKDAYS,
)

if TYPE_CHECKING:
    from batchata_tasks.citations.place import Place

_REACH = 240  # characters before a value in which its label is sought, and words of its name
_BEHIND = 80  # likewise behind it
_TOKEN = re.compile(rf"[^\W_]+|[^\S {NARROW}]|[^\w\s]|_")
_OPENING = frozenset("\"'([{<*_~#>$€£¥₹+" + JOINT)
_BLANK = " \n\t" + NARROW + JOINT
_LEADERS = 3  # points that lead the eye from a label to its value
_MOST_WORDS = 12
_MOST_BETWEEN = 6  # words of another item of a list
_AFTER = {
    "\n": frozenset([":", JOINT, "_", '"']),
    "\t": frozenset(":=-"),
    ",": WEEKDAYS,
    ".": FILLERS,
}
"""What may stand between a label and its value, too, behind some others."""
_GAPS = frozenset("|\t")
_LINE_ENDS = frozenset("\n" + BREAK)
_EDGES = frozenset("\n;,!?|\t•" + BREAK)
_CLAUSE_ENDS = frozenset("\n;|\t!?" + BREAK)


@dataclass(frozen=True, slots=True)
class Label:
    """Words that stand as a label before a value.

    `shared`: other values stand between label and value, in one piece of text with it.
    """

    words: tuple[str, ...]
    shared: bool = False


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What stands around a value: its label, and the words before and behind it."""

    label: Label | None
    before: tuple[str, ...]
    behind: tuple[str, ...]


class Tokens:
    """The words and marks of a folded text, among which labels are found."""

    def __init__(self, text: str) -> None:
        found = [(match.group(), match.start()) for match in _TOKEN.finditer(text)]
        self._text = text
        self._tokens = [mark for mark, _ in found]
        self._at = [at for _, at in found]

    def around(self, place: Place, piece: int) -> Surroundings:
        """Return what stands around a value; its piece of text begins at `piece`."""
        end = bisect_left(self._at, place.start) - 1
        first = bisect_left(self._at, place.start - _REACH)
        label = self._label(first, end, piece)
        before = label.words if label is not None else tuple(self._words_before(first, end))
        return Surroundings(label, before, tuple(self._words_behind(place.end)))

    def _words_behind(self, end: int) -> list[str]:
        """Return the words that belong to a value, behind it."""
        found: list[str] = []
        tokens, at = self._tokens, self._at
        for index in range(bisect_left(at, end), len(tokens)):
            mark = tokens[index]
            if at[index] >= end + _BEHIND or mark in _EDGES or mark == ":":
                break
            if self._ends_sentence(index):
                break
            if mark[0].isalnum():
                found.append(mark)
        return found

    def _words_before(self, first: int, last: int) -> list[str]:
        """Return the words of the clause before a value, and of the line above if it is alone."""
        found: list[str] = []
        above = figures = False
        for index in range(last, first - 1, -1):
            mark = self._tokens[index]
            if mark == "\n" and not found and not above:
                above = True
                continue
            of_another = figures and mark in (":", "=")
            if mark in _CLAUSE_ENDS or of_another or self._ends_sentence(index):
                break
            if mark[0].isalnum():
                found.append(mark)
                figures = figures or mark.isdigit()
        return found[::-1]

    def _ends_sentence(self, index: int) -> bool:
        """Whether a point ends a sentence, and no abbreviation or number."""
        if self._tokens[index] != ".":
            return False
        after = self._at[index] + 1
        if self._text[after : after + 1].strip(_BLANK + BREAK):
            return False
        before = self._tokens[index - 1] if index else ""
        return before not in ABBREVIATIONS

    def _label(self, first: int, end: int, piece: int) -> Label | None:
        """Return the label before a value, which begins behind the mark `end`."""
        index = self._before_fillers(first, end)
        if index < first:
            return None
        if self._is_separator(first, index):
            return self._words_of(first, index, shared=False)
        bullet = self._is_bullet(index)
        if (
            not bullet
            and self._tokens[index] not in CONNECTORS
            and self._tokens[index] not in _GAPS
        ):
            return None
        shared = self._at[index] >= piece
        separator = self._heading(first, index) if bullet else self._list_separator(first, index)
        return None if separator is None else self._words_of(first, separator, shared=shared)

    def _before_fillers(self, first: int, end: int) -> int:
        """Return the last token before what may stand between a label and its value."""
        skipped, index = 0, end
        while index >= first and skipped <= _MOST_BETWEEN:
            mark, before = self._tokens[index], self._tokens[index - 1] if index else ""
            if mark in _AFTER:
                if before not in _AFTER[mark]:
                    break
            elif mark == "-":  # the sign of a number, also before its currency
                behind = self._text[self._at[index] + 1 : self._at[index] + 2]
                if behind in _BLANK or (index < end and behind.isalnum()):
                    break
            elif mark in FILLERS:
                skipped += 1
            elif mark not in _OPENING:
                break
            index -= 1
        return index

    def _is_separator(self, first: int, index: int) -> bool:
        """Whether a mark parts a label from its value."""
        mark = self._tokens[index]
        if mark in (":", "=") or mark in VERBS:
            return True
        if mark == "-":
            return self._is_apart(index) and not self._is_bullet(index)
        if mark in _GAPS or mark == ".":
            led = index - 1
            while led >= first and self._tokens[led] in (".", "\t", '"', JOINT):
                led -= 1
            leads = mark != "." or index - led >= _LEADERS
            return leads and led >= first and self._tokens[led][0].isalpha()
        return False

    def _is_apart(self, index: int) -> bool:
        """Whether blanks stand on both sides of a mark."""
        at = self._at[index]
        return self._text[at - 1 : at] in _BLANK and self._text[at + 1 : at + 2] in _BLANK

    def _is_bullet(self, index: int) -> bool:
        """Whether a mark is that of a list's item, at the beginning of its line."""
        tokens = self._tokens
        if tokens[index] == "." and index and tokens[index - 1].isdigit():
            index -= 1
        elif tokens[index] not in ("-", "•", "*"):
            return False
        while index and tokens[index - 1] == JOINT:
            index -= 1
        return index == 0 or tokens[index - 1] in _LINE_ENDS

    def _heading(self, first: int, index: int) -> int | None:
        """Return the separator that ends the line over a list: "Sights:"."""
        tokens, between = self._tokens, 0
        while index >= first:
            mark = tokens[index]
            if mark in (":", "="):
                return index if tokens[index + 1] in ("\n", JOINT) else None
            if mark == BREAK:
                return None
            between = 0 if mark == "\n" else between + mark[0].isalnum()
            if between > _MOST_WORDS:
                return None
            index -= 1
        return None

    def _list_separator(self, first: int, index: int) -> int | None:
        """Return the separator of a label that several values of one line share."""
        tokens, between = self._tokens, 0
        while index >= first:
            mark = tokens[index]
            if mark in (":", "=") or (mark in VERBS and between):
                return index
            if mark in _GAPS and self._is_separator(first, index):
                return index
            if mark in _LINE_ENDS or self._ends_sentence(index):
                return None
            if mark in CONNECTORS or mark in _GAPS:
                between = 0
            else:
                between += mark[0].isalnum()
            if between > _MOST_BETWEEN:
                return None
            index -= 1
        return None

    def _words_of(self, first: int, separator: int, *, shared: bool) -> Label | None:
        """Return the label that ends before a separator; None where there are no words.

        A rate is no word of it: "VAT (19 %): 4.66" is VAT.
        """
        found: list[str] = []
        index, closed, rate = separator - 1, 0, False
        while index >= first and len(found) <= _MOST_WORDS:
            mark = self._tokens[index]
            closed += (mark == ")") - (mark == "(")
            rate = mark == "%" or (rate and (mark.isdigit() or mark in (".", ",")))
            if not rate and (closed < 0 or self._ends_label(index, begun=bool(found))):
                break
            if mark[0].isalnum() and not rate:
                found.append(mark)
            index -= 1
        if not found or len(found) > _MOST_WORDS:
            return None
        return Label(tuple(reversed(found)), shared)

    def _ends_label(self, index: int, *, begun: bool) -> bool:
        """Whether a label begins behind a token, seen from its end."""
        mark = self._tokens[index]
        if mark in _EDGES or mark in (":", "=") or self._ends_sentence(index):
            return begun or mark not in _GAPS
        if mark == "-":
            return self._is_apart(index) or self._is_bullet(index)
        end = self._at[index] + len(mark)
        opens = begun and mark in ARTICLES and self._text[end : end + 1] in _BLANK
        return opens and (index == 0 or self._tokens[index - 1] not in PREPOSITIONS)
