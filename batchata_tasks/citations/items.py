"""Items of a list keep together: which place in the answer is whose."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from batchata_tasks.citations.place import Place

_NEAR = 400  # characters between values of one item
_TRIES = 12  # places of an item's rarest value that are weighed
_COUNTED = 50  # places of a value of which the free ones are counted
_OTHER_LINE = 1000  # as many characters as the end of a line counts for


class Spot(NamedTuple):
    """A place of a value: where it is, in which line, and how well it is labelled there.

    Places are counted through all blocks and quotes of the answer. `part` is the block, or of a
    quote -1 less the index of its citation. In blocks without citations, nothing is `cited`.
    """

    at: int
    end: int
    line: int
    part: int
    level: int
    cited: bool
    place: Place


@dataclass(slots=True)
class Column:
    """The places of a field of an item, and those of them that earlier items have.

    `sharers` are the items of the list that have the same value.
    """

    spots: Sequence[Spot]
    sharers: int
    taken: set[int]

    def rarity(self) -> tuple[bool, int]:
        """Return how much the value says of where its item is: most is least.

        One that is told once for several items says nothing.
        """
        free = sum(spot.at not in self.taken for spot in self.spots[:_COUNTED])
        enough = free > 0 and self.sharers <= len(self.spots)
        return not enough, free if len(self.spots) <= _COUNTED else len(self.spots)


@dataclass(slots=True)
class Places:
    """What the items of one list have taken so far, in their order."""

    floor: int = -1
    taken: dict[str, set[int]] = field(default_factory=dict[str, "set[int]"])

    def settle(self, item: Iterable[tuple[str, Sequence[Spot], int]]) -> list[Spot | None]:
        """Return the place of each field of the next item: near one another, behind the last.

        Of equal values each item has its own, as long as there are enough. Of each field are given
        its name, its places, and how many items have the same value.
        """
        columns = [
            Column(spots, sharers, self.taken.setdefault(name, set()))
            for name, spots, sharers in item
        ]
        held = [column for column in columns if column.spots]
        if not held:
            return [None for _ in columns]
        rarest = min(held, key=Column.rarity)
        weighed = [self._around(anchor, rarest, columns) for anchor in self._anchors(rarest)]
        badness, best = min(weighed, key=lambda one: one[0])
        for column, spot in zip(columns, best, strict=True):
            if spot is not None:
                column.taken.add(spot.at)
        self.floor = badness[-1]
        return [_cited(spot, column) for column, spot in zip(columns, best, strict=True)]

    def _anchors(self, column: Column) -> list[Spot]:
        """Return places of a value that are weighed: free ones behind the last item first."""
        spots = column.spots
        start = bisect_left(spots, self.floor, key=lambda spot: spot.at)
        behind = spots[start : start + 2 * _TRIES]
        free = [spot for spot in behind if spot.at not in column.taken][:_TRIES]
        labelled = [spot for spot in spots[:_TRIES] if spot.level]
        return [*free, *labelled, *spots[max(0, start - _TRIES) : start], *spots[:1]]

    def _around(
        self, anchor: Spot, rarest: Column, columns: list[Column]
    ) -> tuple[tuple[int, ...], list[Spot | None]]:
        """Return how bad it is to have an item around a place, and where its values are then.

        The last of the measures is the place itself.
        """
        chosen = [
            anchor if column is rarest else self._nearest(anchor, column) for column in columns
        ]
        far = level = distance = used = 0
        for column, spot in zip(columns, chosen, strict=True):
            if spot is not None:
                gap = _gap(anchor, spot)
                far += gap > _NEAR + _OTHER_LINE
                used += spot.at in column.taken
                level += spot.level
                distance += gap
        return (used, far, -level, anchor.at < self.floor, distance, anchor.at), chosen

    def _nearest(self, anchor: Spot, column: Column) -> Spot | None:
        """Return the free place of a value that is nearest to another one."""
        spots = column.spots
        start = bisect_left(spots, anchor.at, key=lambda spot: spot.at)
        near = spots[max(0, start - _TRIES) : start + _TRIES]
        if not near:
            return None
        return min(near, key=lambda spot: (spot.at in column.taken, _gap(anchor, spot), spot.at))


def _cited(spot: Spot | None, column: Column) -> Spot | None:
    """Return a place that is cited: this one, or the nearest to it that has the same value."""
    if spot is None or spot.cited:
        return spot
    start = bisect_left(column.spots, spot.at, key=lambda one: one.at)
    near = [one for one in column.spots[max(0, start - _TRIES) : start + _TRIES] if one.cited]
    free = [one for one in near if one.at not in column.taken]
    best = min(free or near, key=lambda one: _gap(spot, one), default=None)
    if best is None or _gap(spot, best) > _NEAR + _OTHER_LINE:
        return None
    column.taken.add(best.at)
    return best


def _gap(one: Spot, other: Spot) -> int:
    gap = max(other.at - one.end, one.at - other.end, 0)
    return gap if one.line == other.line else gap + _OTHER_LINE
