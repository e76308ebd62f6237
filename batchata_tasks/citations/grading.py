"""How well a place in a text speaks for a field, and why."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import islice
from typing import TYPE_CHECKING

from batchata_tasks.citations.labels import Label

if TYPE_CHECKING:
    from collections.abc import Sequence

    from batchata_tasks.citations.labels import Surroundings
    from batchata_tasks.citations.leaves import Leaf
    from batchata_tasks.citations.names import Name, Quality, Vocabulary
    from batchata_tasks.citations.place import Place
    from batchata_tasks.citations.reading import Reading
    from batchata_tasks.citations.values import Sought

    _Asked = tuple[tuple[Name, ...], bool, Sought | None]

VALUE, NEARBY, LABELLED = 0, 1, 2
"""What a place is for a field: its value alone, words of its name nearby, or a label."""
_LEAST_SHARE = 0.3  # of a name's words
_MOST_LOOKED_AT = 1000  # places of one value in one piece of text
_LONGEST_LABEL = 4  # words before a value that may be its label without a mark


@dataclass(frozen=True, slots=True)
class Support:
    """What speaks for a field: a rank, and the words for it.

    `doubt` and `unsure` are those of the place. `foreign`: a label stands there that is another
    field's. `other`: one that says more or else, with words of this field's name.
    """

    rank: int
    reason: str
    doubt: int = 0
    unsure: bool = False
    foreign: bool = False
    other: bool = False

    @property
    def level(self) -> int:
        """The rank, lowered by doubts."""
        return max(0, min(self.rank, LABELLED - self.doubt) - self.unsure)


_ALONE = Support(VALUE, "value alone")


@dataclass(frozen=True, slots=True, eq=False)
class _Setting:
    """What stands around places, and the words of names that it says; one object for all alike."""

    around: Surroundings
    heading: tuple[str, ...]
    told: set[str]


class Grader:
    """Judges places in one text by their labels."""

    def __init__(self, reading: Reading, vocabulary: Vocabulary) -> None:
        self._reading = reading
        self._vocabulary = vocabulary
        self._settings: dict[tuple[int, int], _Setting] = {}
        self._alike: dict[tuple[Surroundings, tuple[str, ...]], _Setting] = {}
        self._judged: dict[_Asked, dict[_Setting, Support]] = {}
        self._best: dict[_Asked, dict[tuple[Place, Place], Support | None]] = {}

    def best(self, leaf: Leaf, places: Sequence[Place]) -> Support | None:
        """Return what speaks most for a field, of places of its value in one piece."""
        if not places:
            return None
        known = self._best.setdefault((leaf.names, leaf.item is not None, leaf.sought), {})
        key = (places[0], places[-1])  # of a value in a piece, all places are asked for, or one
        if key not in known:
            known[key] = self._best_of(leaf, places)
        return known[key]

    def _best_of(self, leaf: Leaf, places: Sequence[Place]) -> Support | None:
        best: Support | None = None
        for place in islice(places, _MOST_LOOKED_AT):
            support = self.support(leaf, place)
            if best is None or (support.level, support.rank) > (best.level, best.rank):
                best = support
                if best.level == LABELLED:
                    break
        return best

    def support(self, leaf: Leaf, place: Place) -> Support:
        """Return what a place of a field's value says for the field."""
        setting = self._settings.get(place[:2]) or self._setting(place)
        judged = self._judged.setdefault((leaf.names, leaf.item is not None, leaf.sought), {})
        support = judged.get(setting)
        if support is None:
            support = judged[setting] = self._judge(leaf, setting)
        sought = leaf.sought
        if sought is not None and sought.by_label:
            labelled = NEARBY if sought.truth is not None else LABELLED
            rank = labelled if support.rank == LABELLED else VALUE
            support = replace(support, rank=rank)
        if place.doubt or place.unsure:
            return replace(support, doubt=place.doubt, unsure=place.unsure)
        return support

    def _setting(self, place: Place) -> _Setting:
        around, heading = self._reading.around(place), self._reading.heading(place)
        if (around, heading) not in self._alike:
            told = self._vocabulary.told((*around.before, *around.behind))
            self._alike[around, heading] = _Setting(around, heading, told)
        self._settings[place[:2]] = self._alike[around, heading]
        return self._settings[place[:2]]

    def _judge(self, leaf: Leaf, setting: _Setting) -> Support:
        around, told = setting.around, setting.told
        if setting.heading:
            support = self._labelled(leaf, around, Label(setting.heading))
            if support.rank == LABELLED:
                return support
        if around.label is not None:
            return self._labelled(leaf, around, around.label)
        if not told:
            return _ALONE
        before = self._without_other(leaf, around.before)
        if len(before) == len(around.before):
            return self._near(leaf, told)
        told = self._vocabulary.told((*before, *around.behind))
        return replace(self._near(leaf, told), foreign=True)

    def _labelled(self, leaf: Leaf, around: Surroundings, label: Label) -> Support:
        fits, told = self._vocabulary.fits(label.words), self._vocabulary.told
        mine = [(fits[name], name) for name in leaf.names if name in fits]
        if mine and max(quality for quality, _ in mine) == max(fits.values()):
            shown = max(mine, key=lambda one: one[0])[1].shown
            if label.shared and leaf.item is None:
                return Support(NEARBY, f"labelled '{shown}', behind another value")
            return Support(LABELLED, f"labelled '{shown}'")
        if fits:
            return replace(self._near(leaf, told(around.behind)), foreign=True)
        near = self._near(leaf, told((*label.words, *around.behind)))
        return replace(near, other=self._says_else(leaf, label))

    def _says_else(self, leaf: Leaf, label: Label) -> bool:
        """Whether a label says words of a field's name, and others that are not of it."""
        own = {word for name in leaf.names for word in (*name.words, *name.parents, *name.extra)}
        said = [one for word in label.words if (one := self._vocabulary.said(word)) is not None]
        mine = [not own.isdisjoint(one) for one in said]
        return any(mine) and not all(mine)

    def _without_other(self, leaf: Leaf, before: tuple[str, ...]) -> tuple[str, ...]:
        """Return the words before a value without those that are another field's name."""
        size = min(_LONGEST_LABEL, len(before))
        while size:
            fits = self._vocabulary.fits(before[-size:])
            if fits:
                best: Quality = max(fits.values())
                mine = any(fits.get(name) == best for name in leaf.names)
                return before if mine else before[:-size]
            size -= 1
        return before

    def _near(self, leaf: Leaf, told: set[str]) -> Support:
        """Return what the words near a value say for a field."""
        best = (0.0, 0, 0)
        for name in leaf.names:
            said, all_words = self._vocabulary.nearby(name, told)
            if said:
                best = max(best, (said / all_words, said, all_words))
        share, said, all_words = best
        if share < _LEAST_SHARE:
            return _ALONE
        plural = "word" if all_words == 1 else "words"
        return Support(NEARBY, f"{said} of {all_words} {plural} nearby")
