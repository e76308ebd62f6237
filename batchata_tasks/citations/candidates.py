"""The candidates for a field: each citation with its value, what speaks for it, and its truth."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import groupby, islice
from typing import TYPE_CHECKING

from batchata_tasks.citations.grading import LABELLED, NEARBY, VALUE, Grader, Support

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from batchata_tasks.citations.blocks import Answer
    from batchata_tasks.citations.citation import Passage
    from batchata_tasks.citations.items import Spot
    from batchata_tasks.citations.leaves import Leaf
    from batchata_tasks.citations.names import Name, Vocabulary
    from batchata_tasks.citations.place import Place
    from batchata_tasks.citations.reading import Reading
    from batchata_tasks.citations.truth import Standing, Truth
    from batchata_tasks.citations.values import Sought

_ENOUGH = 5  # candidates of the best grade: more of them say no more
_MOST_JUDGED = 200
_MOST_SPOTS = 1000  # of one value that are weighed for the items of a list


@dataclass(frozen=True, slots=True)
class Candidate:
    """A citation as evidence for a field; `level` is that of its grade."""

    passage: Passage
    level: int
    verified: bool
    reason: str


@dataclass(frozen=True, slots=True)
class _Places:
    """Where a field's value stands: by block, and by quote."""

    blocks: dict[int, list[Place]]
    quotes: dict[int, list[Place]]


class Candidates:
    """Finds and judges the citations for each field of an answer."""

    def __init__(self, answer: Answer, vocabulary: Vocabulary, truth: Truth | None) -> None:
        self._answer = answer
        self._truth = truth
        self._blocks = Grader(answer.reading, vocabulary)
        self._quotes = Grader(answer.quotes, vocabulary)
        self._standings: dict[int, Standing] = {}
        self._found: dict[tuple[Sought, frozenset[int]], _Places] = {}
        self._spots: dict[tuple[tuple[Name, ...], Sought], list[Spot]] = {}

    def of(
        self, leaf: Leaf, only: Spot | None = None, item: Sequence[Leaf] = ()
    ) -> list[Candidate]:
        """Return the best candidates for a field, in the order of the answer, and some others.

        Of a field of an `item` they are those `only` of the place that the item has.
        """
        found = self._places(leaf)
        chosen = self._chosen(found) if only is None else self._of_spot(only, found, item)
        rated = [(self._support(leaf, index, found, only), index) for index in chosen]
        judged: list[tuple[int, Candidate]] = []
        for level in range(LABELLED, VALUE - 1, -1):
            if sum(candidate.level > level for _, candidate in judged) > _ENOUGH:
                break
            for support, index in rated:
                if support is not None and support.level == level:
                    judged.append((index, self._candidate(leaf, index, support)))
                if len(judged) > _MOST_JUDGED:
                    break
        return [candidate for _, candidate in sorted(judged, key=lambda one: one[0])]

    def _places(self, leaf: Leaf) -> _Places:
        if leaf.sought is None:
            return _Places({}, {})
        key = (leaf.sought, leaf.powers)
        if key not in self._found:
            answer, (what, powers) = self._answer, key
            self._found[key] = _Places(
                _by_piece(answer.reading, answer.reading.places(what, powers)),
                _by_piece(answer.quotes, answer.quotes.places(what, powers)),
            )
        return self._found[key]

    def _chosen(self, found: _Places) -> list[int]:
        """Return the citations that a value hangs on: those of its block that quote it, or all."""
        answer = self._answer
        quoting = {index for quote in found.quotes for index in answer.of_quote[quote]}
        chosen = set(quoting)
        for block in found.blocks:
            if not quoting.intersection(answer.of_block[block]):
                chosen.update(answer.of_block[block])
        return sorted(chosen)

    def _of_spot(self, spot: Spot, found: _Places, item: Sequence[Leaf]) -> list[int]:
        """Return the citations of an item's place: those that quote most of the item."""
        if spot.part < 0:
            return [-1 - spot.part]
        cited = self._answer.of_block[spot.part]
        if len(cited) < 2:  # noqa: PLR2004 - there is nothing to choose
            return cited
        quoted = dict.fromkeys(cited, 0)
        for leaf in item:
            held = self._places(leaf).quotes
            for index in cited:
                quoted[index] += self._answer.cited[index].quote in held
        own = [index for index in cited if self._answer.cited[index].quote in found.quotes]
        most = max(quoted[index] for index in own or cited)
        return [index for index in own or cited if quoted[index] == most]

    def spots(self, leaf: Leaf) -> list[Spot]:
        """Return where a field's value stands, in the order of the answer.

        Where a block has it, its quotes are not counted besides.
        """
        if leaf.sought is None:
            return []
        key = (leaf.names, leaf.sought)
        if key not in self._spots:
            spots = sorted(islice(self._all_spots(leaf), _MOST_SPOTS))
            self._spots[key] = [spot for spot in spots if spot.level or not leaf.sought.by_label]
        return self._spots[key]

    def _all_spots(self, leaf: Leaf) -> Iterator[Spot]:
        answer, found = self._answer, self._places(leaf)
        for places in found.blocks.values():
            for place in places:
                yield answer.block_spot(place, self._blocks.support(leaf, place).level)
        for quote, places in found.quotes.items():
            for place in places:
                level = self._quotes.support(leaf, place).level
                for index in answer.of_quote[quote]:
                    if answer.cited[index].block not in found.blocks:
                        yield answer.quote_spot(place, index, level)

    def _support(self, leaf: Leaf, index: int, found: _Places, only: Spot | None) -> Support | None:
        """Return what a citation says for a field; None if it would need a label and has none."""
        cited = self._answer.cited[index]
        in_block = found.blocks.get(cited.block, [])
        in_quote = [] if cited.quote is None else found.quotes.get(cited.quote, [])
        if only is not None and only.part >= 0:
            in_block = [only.place]
        elif only is not None:
            in_quote = [only.place]
        support = _together(self._blocks.best(leaf, in_block), self._quotes.best(leaf, in_quote))
        by_label = leaf.sought is not None and leaf.sought.by_label
        return None if by_label and support is not None and support.rank == VALUE else support

    def _candidate(self, leaf: Leaf, index: int, support: Support) -> Candidate:
        """Return a citation as evidence for a field, as far as the pages bear it out."""
        cited = self._answer.cited[index]
        if self._truth is None:
            return Candidate(cited.passage, support.level, verified=False, reason=_reason(support))
        if index not in self._standings:
            self._standings[index] = self._truth.standing(cited.passage)
        standing = self._standings[index]
        quoted = cited.quote in self._places(leaf).quotes
        borne = self._truth.borne(leaf, standing, quoted=quoted)
        support = replace(support, unsure=support.unsure or (borne.unsure and not quoted))
        notes = [standing.moved] if standing.moved else []
        if not borne.verified and standing.pages:
            notes.append("not in the text of its page")
        elif not borne.verified:
            notes.append("its quote is nowhere in the document")
        level = min(support.level, borne.most)
        return Candidate(standing.passage, level, borne.verified, _reason(support, *notes))


def _by_piece(reading: Reading, places: list[Place]) -> dict[int, list[Place]]:
    pieces = groupby(places, key=lambda place: reading.piece(place.start))
    return {piece: list(its) for piece, its in pieces}


def _together(in_block: Support | None, in_quote: Support | None) -> Support | None:
    """Return what block and quote say together; the quote is the document's own word.

    A quote in which the value is labelled as another field's is no good evidence for this one,
    whatever the answer calls it. Whether a date can be told is the quote's to say, too.
    """
    if in_block is None or in_quote is None:
        return in_block or in_quote
    if in_quote.level >= in_block.level:
        return in_quote
    rank = in_block.rank
    if in_quote.foreign:
        rank = min(rank, in_quote.rank)
    elif in_quote.other:
        rank = min(rank, NEARBY)
    reason = in_block.reason if rank == in_block.rank else in_quote.reason
    return Support(rank, reason, in_quote.doubt, in_quote.unsure)


def _reason(support: Support, *notes: str) -> str:
    """Return the words for a grade."""
    told = [support.reason]
    if support.unsure:
        told.append("day and month cannot be told apart")
    if support.doubt:
        told.append("may be part of something else")
    if support.foreign and support.rank == VALUE:
        told.append("labelled as another field")
    return "; ".join([*told, *notes])
