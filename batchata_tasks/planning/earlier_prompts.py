"""A prompt as it was before a column was renamed in it, told by its part of fingerprints."""

from __future__ import annotations

import re
from itertools import product
from typing import TYPE_CHECKING

from batchata_tasks.planning.fingerprint import prompt_part

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from batchata_tasks.spec.parts import Turn

_CODE = r"\{\{.*?\}\}|\{%.*?%\}"
_COMMENT = r"\{#.*?#\}"


def earlier_parts(turns: Sequence[Turn], old: str, new: str) -> Iterator[str]:
    """Yield the prompt's part of fingerprints, with the old name of a column for the new one.

    There are several ways to name a column, so there are several such prompts. Whether one of them
    is the prompt that rows were sent with, its part proves.
    """
    ways = ["same", 'row["{}"]', "row['{}']"]
    if old.isidentifier():
        ways.append("{}")
    for way, region in product(ways, (_CODE, f"{_CODE}|{_COMMENT}")):
        yield prompt_part(
            [(turn.role, _renamed(turn.content, region, way, old, new)) for turn in turns]
        )


def _renamed(text: str, region: str, way: str, old: str, new: str) -> str:
    name = re.escape(new)
    pattern = re.compile(
        rf"(?P<item>\brow\s*\[\s*(?P<quote>['\"])){name}(?P<end>(?P=quote)\s*\])"
        rf"|(?P<attribute>\brow\s*\.\s*){name}(?!\w)"
        r"|(?P<text>\"(?:[^\"\\]|\\.)*\"|'(?:[^'\\]|\\.)*')"
        rf"|(?<![\w.]){name}(?!\w)"
    )

    def instead(found: re.Match[str]) -> str:
        if found["text"] is not None:
            return found[0]
        if way != "same":
            return way.format(old)
        if found["item"] is not None:
            return f"{found['item']}{old}{found['end']}"
        return f"{found['attribute'] or ''}{old}"

    return re.sub(region, lambda code: pattern.sub(instead, code[0]), text, flags=re.DOTALL)
