"""The form of a request body: what rows of one spec share, around the texts of their turns."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import orjson

from batchata_tasks.types.request import Message

if TYPE_CHECKING:
    from collections.abc import Sequence

    from batchata_tasks.providers import Adapter
    from batchata_tasks.types.request import Request

_MARK = re.compile(rb"batchata-turn-([0-9]+)-of-this-body")


@dataclass(frozen=True)
class BodyForm:
    """The bytes before, between and after the texts of a body, and which turn each text is of."""

    start: bytes
    rest: tuple[tuple[int, bytes], ...]

    @classmethod
    def of(cls, provider: Adapter, request: Request) -> BodyForm | None:
        """Return the form of requests that differ in the texts of their turns alone.

        None if a provider's bodies have no form: each has to be made by itself.
        """
        if not getattr(provider.body, "texts_as_given", False):
            return None
        marked = tuple(
            Message(turn.role, f"batchata-turn-{i}-of-this-body")
            for i, turn in enumerate(request.messages)
        )
        pieces = _MARK.split(orjson.dumps(provider.body(replace(request, messages=marked))))
        turns = [int(number) for number in pieces[1::2]]
        if sorted(turns) != list(range(len(marked))):  # a schema may hold a mark, too
            return None
        return cls(pieces[0], tuple(zip(turns, pieces[2::2], strict=True)))

    def with_texts(self, texts: Sequence[bytes]) -> bytes:
        """Return the body whose turns have these texts, as `spelled`. None of them may be blank."""
        pieces = [self.start]
        for turn, after in self.rest:
            pieces += (texts[turn], after)
        return b"".join(pieces)
