"""A text in several pieces, read once: where a value stands in it, and in which piece."""

from __future__ import annotations

import re
from bisect import bisect_right
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

from batchata_tasks.citations.dates import Day, dates
from batchata_tasks.citations.folding import BREAK, even, folded, whole_places, words
from batchata_tasks.citations.labels import Tokens
from batchata_tasks.citations.numerals import Number, numbers
from batchata_tasks.citations.place import LOW, Place
from batchata_tasks.citations.style import Marks, Order, Style
from batchata_tasks.citations.tables import Headings

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from batchata_tasks.citations.labels import Surroundings
    from batchata_tasks.citations.values import Amount, Sought

_LINE_END = re.compile(f"[\n{BREAK}]")
_T = TypeVar("_T", Day, Number)


class Reading:
    """The text of pieces that follow one another, between joints of one character."""

    def __init__(
        self, pieces: Iterable[str], joints: Iterable[str], figures: frozenset[str]
    ) -> None:
        """Join pieces; of their numbers, those with other `figures` are not sought."""
        self.starts: list[int] = []
        parts: list[str] = []
        size = 0
        for piece, joint in zip(map(folded, pieces), joints, strict=False):
            self.starts.append(size)
            parts += [piece, joint]
            size += len(piece) + 1
        self.text = "".join(parts)
        self.style = Style()
        self._figures = figures
        self._places: dict[tuple[Sought, frozenset[int]], list[Place]] = {}

    def piece(self, at: int) -> int:
        """Return the index of the piece in which something stands."""
        return bisect_right(self.starts, at) - 1

    def size(self, piece: int) -> int:
        """Return the length of a piece."""
        ends = self.starts[piece + 1] if piece + 1 < len(self.starts) else len(self.text)
        return ends - self.starts[piece]

    @cached_property
    def line_ends(self) -> list[int]:
        """Where lines end."""
        return [found.start() for found in _LINE_END.finditer(self.text)]

    @cached_property
    def _tokens(self) -> Tokens:
        return Tokens(self.text)

    @cached_property
    def _headings(self) -> Headings:
        return Headings(self.text)

    def around(self, place: Place) -> Surroundings:
        """Return what stands around a place."""
        return self._tokens.around(place, self.starts[self.piece(place.start)])

    def heading(self, place: Place) -> tuple[str, ...]:
        """Return the words over a place in a table of Markdown."""
        return tuple(words(self._headings.above(place.start)))

    @cached_property
    def even(self) -> str:
        """The text, in which all blanks are the same."""
        return even(self.text)

    @cached_property
    def _dates(self) -> tuple[list[Day], list[tuple[int, int]], list[Order]]:
        return dates(self.text)

    @cached_property
    def _days(self) -> dict[Any, list[Day]]:
        return _by_value(self._dates[0])

    @cached_property
    def _numbers(self) -> tuple[dict[Any, list[Number]], list[Marks]]:
        found, marks = numbers(self.text, self._dates[1], self._figures)
        return _by_value(found), marks

    def shown(self) -> tuple[set[Marks], set[Order]]:
        """Return the decimal marks and orders of dates that the text itself shows."""
        return set(self._numbers[1]), set(self._dates[2])

    def places(self, what: Sought, powers: frozenset[int]) -> list[Place]:
        """Return where a value stands, in order; `powers` are those in which its field counts.

        A field that counts in millions has 1.5 where the text says 1.5 million.
        """
        key = (what, powers)
        if key not in self._places:
            found = {*self._amounts(what, powers), *self._dated(what), *self._spelt(what)}
            best: dict[tuple[int, int], Place] = {}
            for place in sorted(found):
                best.setdefault((place.start, place.end), place)
            self._places[key] = list(best.values())
        return self._places[key]

    def _amounts(self, what: Sought, powers: frozenset[int]) -> Iterator[Place]:
        for amount in what.amounts:
            for number in self._numbers[0].get(amount.value, ()):
                if number.left_out and number.left_out not in powers:
                    continue
                if what.whole and number.percent:
                    continue
                doubt = self._doubt(number, amount)
                if doubt is not None:
                    yield Place(number.start, number.end, doubt)

    def _doubt(self, number: Number, amount: Amount) -> int | None:
        """Return the doubt about a number as an amount; None if it is another one."""
        if amount.decimals is not None and (
            number.decimals != amount.decimals or (amount.percent and not number.percent)
        ):
            return None
        mark = self.style.decimal
        if number.needs is None or mark == number.needs:
            return number.doubt
        if mark is not None:
            return None
        if number.likely:
            return number.doubt
        return LOW if number.value.as_tuple().digits[-1] else None  # "1,234", but not "1,500"

    def _dated(self, what: Sought) -> Iterator[Place]:
        order = self.style.order
        for sought in what.days:
            for day in self._days.get(sought, ()):
                if day.needs is None or order == day.needs:
                    yield Place(day.start, day.end)
                elif order is None:
                    yield Place(day.start, day.end, 0, unsure=True)

    def _spelt(self, what: Sought) -> Iterator[Place]:
        for text in what.texts:
            for at, compound in whole_places(self.even, text):
                yield Place(at, at + len(text), LOW if compound else 0)


def _by_value(found: list[_T]) -> dict[Any, list[_T]]:
    index: dict[Any, list[_T]] = {}
    for one in found:
        index.setdefault(one.value, []).append(one)
    return index
