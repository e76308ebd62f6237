"""Whether each value of an answer has evidence of the grade that was asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from batchata_tasks.citations.citation import GRADES
from batchata_tasks.citations.leaves import leaves

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from batchata_tasks.citations.citation import Grade

_NAMED = 5  # values that a sentence names


def lacking(answer: object, citations: Iterable[Mapping[str, Any]], least: Grade) -> str | None:
    """Return a sentence on the values without evidence of at least this grade; None if all have it.

    `citations` are as in the column `_citations`. Empty values need none.
    """
    best: dict[str, Mapping[str, Any]] = {}
    for one in citations:
        path, known = one["field"], best.get(one["field"])
        if path is not None and (known is None or _rank(one["grade"]) > _rank(known["grade"])):
            best[path] = one
    lacks = [
        leaf.path
        for leaf in leaves(answer)
        if leaf.sought is not None
        and (leaf.path not in best or _rank(best[leaf.path]["grade"]) < _rank(least))
    ]
    if not lacks:
        return None
    told = [f"of {path} {_found(best.get(path))}" for path in lacks[:_NAMED]]
    more = [f"of {len(lacks) - _NAMED} more it is too little"] if len(lacks) > _NAMED else []
    return f"{', '.join([*told, *more])}, and min_grade asks for {least}"


def _found(citation: Mapping[str, Any] | None) -> str:
    if citation is None:
        return "no passage of the documents is evidence"
    return f"the evidence is graded {citation['grade']} ({citation['reason']})"


def _rank(grade: Grade | None) -> int:
    return -1 if grade is None else GRADES.index(grade)
