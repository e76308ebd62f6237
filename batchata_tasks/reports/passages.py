"""Which passages of its documents the fields of a row rest on, for people."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from batchata_tasks.citations.leaves import leaves
from batchata_tasks.reports.requests import indented

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

_NONE = "no passage says it"


def passage_lines(answers: Mapping[str, Any], citations: list[dict[str, Any]]) -> list[str]:
    """Return each field with its value, its passages and what they are worth.

    Of an answer that has no fields, its passages alone. `answers` are the fields; `citations` as in
    the column `_citations`.
    """
    of_fields = [one for one in citations if one["field"] is not None]
    if not of_fields:
        return [line for one in citations for line in _passage(one)]
    by_field: dict[str, list[dict[str, Any]]] = {}
    for one in of_fields:
        by_field.setdefault(one["field"], []).append(one)
    lines = list[str]()
    for leaf in leaves(answers):
        if leaf.sought is not None:
            told = by_field.pop(leaf.path, [])
            lines.append(f"  {leaf.path} = {leaf.value}{'' if told else f': {_NONE}'}")
            lines += [line for one in told for line in _passage(one)]
    for field, told in by_field.items():  # an answer that was not accepted has no values
        lines += [f"  {field}", *(line for one in told for line in _passage(one))]
    return lines


def _passage(one: Mapping[str, Any]) -> Iterator[str]:
    yield f"    {', '.join(_facts(one))}:"
    yield from (f"  {line}" for line in indented(one["cited_text"] or "no quote"))


def _facts(one: Mapping[str, Any]) -> Iterable[str]:
    first, last = one["page_start"], one["page_end"]
    if first is not None:
        yield f"page {first}" if last in (None, first) else f"pages {first} to {last}"
    elif one["char_start"] is not None:
        yield f"characters {one['char_start']} to {one['char_end']}"
    if one["document"] is not None:
        yield f"{one['document']}"
    if one.get("grade") is not None:
        yield f"{one['grade']}, {'verified' if one['verified'] else 'not verified'}"
        yield f"{one['reason']}"
