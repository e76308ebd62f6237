"""Names of fields, and which of them the words of a text say."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from batchata_tasks.citations.folding import folded, words
from batchata_tasks.citations.lexicon import NEUTRAL

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_HUMP = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
_SHORT = 2  # letters of words that do not count
_LEAST_FOR_TYPO = 5  # letters
_EXACT, _INFLECTED, _TYPO = 0, 1, 2
_WRITTEN_OUT = {
    "num": "number",
    "nummer": "number",
    "qty": "quantity",
    "amt": "amount",
    "avg": "average",
    "max": "maximum",
    "min": "minimum",
    "desc": "description",
    "addr": "address",
    "dept": "department",
    "tel": "phone",
    "telephone": "phone",
    "pct": "percent",
    "percentage": "percent",
}
_NUMBER_SHORT = frozenset({"no", "nr"})

Quality = tuple[int, int]
"""How well a label fits a name: words of its parents, then fewer inflections and typos."""


@dataclass(frozen=True, slots=True)
class Name:
    """A name of a field: `words` that count, and those of the fields that it is in.

    `whole` has all words, and `shown` is for people. A label may say `extra` words besides.
    """

    shown: str
    whole: tuple[str, ...]
    words: tuple[str, ...]
    parents: tuple[str, ...] = ()
    extra: frozenset[str] = frozenset()


def name_of(spelling: str, parents: tuple[str, ...]) -> Name:
    """Return a name as words: of `invoice_no`, `invoiceNo` or "Invoice no." the same ones."""
    spaced = _HUMP.sub(" ", spelling.replace("_", " ").replace("-", " "))
    whole = tuple(words(folded(spaced)))
    counted = tuple(word for word in whole if counts(word))
    extra = frozenset({"number"}) if _NUMBER_SHORT & set(whole) else frozenset[str]()
    shown = " ".join(spaced.split())
    shown = shown[:1].upper() + (shown[1:].lower() if spaced != spelling else shown[1:])
    return Name(shown, whole, counted, parents, extra)


def counts(word: str) -> bool:
    """Whether a word says something: short ones and articles do not, figures do."""
    if len(word) > _SHORT:
        return word not in NEUTRAL
    return not word.isalpha()


def stem(word: str) -> str:
    """Return a word without its plural, -ed or -ing."""
    word = _WRITTEN_OUT.get(word, word)
    size = len(word)
    if size > 4 and word.endswith(("ies", "ied")):  # noqa: PLR2004 - "ties" keeps three letters
        word = word[:-3] + "y"
    elif size > 5 and word.endswith("ing"):  # noqa: PLR2004 - "king" is a word
        word = word[:-3]
    elif size > 4 and word.endswith(("ed", "es")):  # noqa: PLR2004 - likewise
        word = word[:-2]
    elif size > 3 and word.endswith("s") and not word.endswith("ss"):  # noqa: PLR2004 - likewise
        word = word[:-1]
    word = word.removesuffix("e")
    doubled = len(word) > 2 and word[-1] == word[-2] and word[-1].isalpha()  # noqa: PLR2004
    return word[:-1] if doubled else word


def is_typo(word: str, right: str) -> bool:
    """Whether one letter more, less, other or out of place tells two words apart."""
    if len(right) < _LEAST_FOR_TYPO or abs(len(word) - len(right)) > 1:
        return False
    if any(char.isdigit() for char in word + right):
        return False
    same = 0
    for one, other in zip(word, right, strict=False):
        if one != other:
            break
        same += 1
    rest, wanted = word[same:], right[same:]
    if len(word) != len(right):
        longer, shorter = (rest, wanted) if len(word) > len(right) else (wanted, rest)
        return longer[1:] == shorter
    swapped = rest[:2] == wanted[1::-1] and rest[2:] == wanted[2:]
    return rest[1:] == wanted[1:] or swapped


class Vocabulary:
    """The names of all fields of an answer, found by the words of labels."""

    def __init__(self, names: Iterable[Name]) -> None:
        self._names: dict[str, set[Name]] = {}
        self._joined: dict[str, list[Name]] = {}
        for name in dict.fromkeys(names):
            for word in {*name.words, *name.parents, *name.extra}:
                self._names.setdefault(word, set()).add(name)
            self._joined.setdefault("".join(name.whole), []).append(name)
        self._by_stem: dict[str, list[str]] = {}
        for word in self._names:
            self._by_stem.setdefault(stem(word), []).append(word)
        self._said: dict[str, dict[str, int] | None] = {}
        self._fits: dict[tuple[str, ...], dict[Name, Quality]] = {}

    def said(self, word: str) -> Mapping[str, int] | None:
        """Return the words of names that a word says, and how: exactly, inflected, mistyped.

        None is for words that do not count.
        """
        if word not in self._said:
            self._said[word] = self._read(word) if counts(word) else None
        return self._said[word]

    def _read(self, word: str) -> dict[str, int]:
        told = dict.fromkeys(self._by_stem.get(stem(word), ()), _INFLECTED)
        if not told and len(word) >= _LEAST_FOR_TYPO - 1:
            told = {name: _TYPO for name in self._names if is_typo(word, name)}
        if word in self._names:
            told[word] = _EXACT
        return told

    def told(self, near: Iterable[str]) -> set[str]:
        """Return the words of names that some words say."""
        return {word for one in near for word in self.said(one) or ()}

    def fits(self, label: tuple[str, ...]) -> Mapping[Name, Quality]:
        """Return the names of which a label says all words and no others, and how well."""
        if label not in self._fits:
            said = [one for word in label if (one := self.said(word)) is not None]
            self._fits[label] = self._fitting(said) or self._spelt_alike(label)
        return self._fits[label]

    def _spelt_alike(self, label: tuple[str, ...]) -> dict[Name, Quality]:
        """Return the names that are spelt as a label is, but for blanks: "ID", "Sub-total"."""
        return dict.fromkeys(self._joined.get("".join(label), ()), (0, 0))

    def _fitting(self, said: list[Mapping[str, int]]) -> dict[Name, Quality]:
        named = [set[Name]().union(*(self._names[word] for word in one)) for one in said]
        names = set[Name].intersection(*named) if named else ()
        fits = {name: _quality(name, said) for name in names}
        return {name: quality for name, quality in fits.items() if quality is not None}

    def nearby(self, name: Name, told: set[str]) -> tuple[int, int]:
        """Return how many of a name's words are among those that are said, and how many it has.

        The fields that it is in count with it, if more of all words is said then.
        """
        own = sum(word in told for word in name.words)
        path = (*name.words, *name.parents)
        of_path = sum(word in told for word in path)
        if name.words and own * len(path) >= of_path * len(name.words):
            return own, len(name.words)
        return of_path, len(path)


def _quality(name: Name, said: list[Mapping[str, int]]) -> Quality | None:
    """Return how well a label fits a name; None if it says more or less."""
    own, parents, extra = list(name.words), list(name.parents), name.extra
    above = strain = 0
    if not len(own) <= len(said) <= len(own) + len(parents) + len(extra):
        return None
    for word in sorted(said, key=lambda one: min(one.values(), default=_TYPO)):
        if (told := _best(own, word)) is not None:
            own.remove(told)
            strain += word[told]
        elif (told := _best(parents, word)) is not None:
            parents.remove(told)
            above += 1
        elif extra.isdisjoint(word):
            return None
    return None if own or not name.words else (above, -strain)


def _best(wanted: list[str], said: Mapping[str, int]) -> str | None:
    told = [word for word in wanted if word in said]
    return min(told, key=said.__getitem__) if told else None
