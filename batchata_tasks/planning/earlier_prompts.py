"""A prompt as it was before columns were renamed in it, told by its part of fingerprints."""

from __future__ import annotations

import re
from itertools import islice, product
from typing import TYPE_CHECKING

from batchata_tasks.planning.fingerprint import prompt_part

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from batchata_tasks.spec.parts import Turn

_CODE = r"\{\{.*?\}\}|\{%.*?%\}"
_COMMENT = r"\{#.*?#\}"
_SAME = "same"
_MOST = 10_000  # prompts that are tried; six columns, each in every way, are 8,192


def earlier_parts(turns: Sequence[Turn], names: Mapping[str, str]) -> Iterator[str]:
    """Yield the prompt's part of fingerprints, with old names of columns in place of new ones.

    `names` has the new names by the old ones. There are several ways to name a column, so there are
    several such prompts, the likely ones first. Whether one of them is the prompt that rows were
    sent with, its part proves.
    """
    old_names = {new: old for old, new in names.items()}
    pattern = _pattern(old_names)
    ways = [_ways(old) for old in old_names.values()]
    for *chosen, region in islice(product(*ways, (_CODE, f"{_CODE}|{_COMMENT}")), _MOST):
        written = {
            new: (way, old) for (new, old), way in zip(old_names.items(), chosen, strict=True)
        }
        yield prompt_part(
            [(turn.role, _renamed(turn.content, region, pattern, written)) for turn in turns]
        )


def _ways(old: str) -> list[str]:
    """Return how a template may have named a column; the first one is as it names it now."""
    ways = [_SAME, 'row["{}"]', "row['{}']"]
    return [*ways, "{}"] if old.isidentifier() else ways


def _pattern(names: Mapping[str, str]) -> re.Pattern[str]:
    """Return what finds columns of these names in a template, and the texts that it quotes."""
    longest_first = sorted(names, key=len, reverse=True)
    name = "|".join(map(re.escape, longest_first))
    return re.compile(
        rf"(?P<item>\brow\s*\[\s*(?P<quote>['\"]))(?P<of_item>{name})(?P<end>(?P=quote)\s*\])"
        rf"|(?P<attribute>\brow\s*\.\s*)(?P<of_attribute>{name})(?!\w)"
        r"|(?P<text>\"(?:[^\"\\]|\\.)*\"|'(?:[^'\\]|\\.)*')"
        rf"|(?<![\w.])(?P<alone>{name})(?!\w)"
    )


def _renamed(
    text: str, region: str, pattern: re.Pattern[str], written: Mapping[str, tuple[str, str]]
) -> str:
    """Return a template with its columns as `written`: the way, and the name, by today's name."""

    def instead(found: re.Match[str]) -> str:
        if found["text"] is not None:
            return found[0]
        way, old = written[found["of_item"] or found["of_attribute"] or found["alone"]]
        if way != _SAME:
            return way.format(old)
        if found["item"] is not None:
            return f"{found['item']}{old}{found['end']}"
        return f"{found['attribute'] or ''}{old}"

    return re.sub(region, lambda code: pattern.sub(instead, code[0]), text, flags=re.DOTALL)
