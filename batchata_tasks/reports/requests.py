"""Requests for people: a body taken apart into its turns, its schema and its parameters."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import orjson

from batchata_tasks.common.json import as_dict

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from batchata_tasks.providers import Adapter

_SYSTEM = "system"  # the name in bodies of a system prompt that is no turn
_INDENT = "    "


@dataclass(frozen=True, slots=True)
class RequestParts:
    """The parts of one request as it is sent.

    `turns` has the role and the text of each; `schema` is the one that the answer has to satisfy;
    `parameters` is the rest of the body, the model's name included.
    """

    turns: tuple[tuple[str, str], ...]
    schema: dict[str, Any] | None
    parameters: dict[str, Any]

    @classmethod
    def of(cls, body: bytes, provider: Adapter | type[Adapter]) -> RequestParts:
        """Take the body of a request to a provider apart."""
        rest = as_dict(orjson.loads(body))
        given = cast("list[object]", rest.pop(provider.turns_param, []))
        turns = [
            (str(turn.get("role")), _text_of(turn.get("content"))) for turn in map(as_dict, given)
        ]
        if _SYSTEM in rest:
            turns.insert(0, (_SYSTEM, _text_of(rest.pop(_SYSTEM))))
        return cls(tuple(turns), _taken(rest, provider.schema_path), rest)

    def to_json(self) -> list[dict[str, str]]:
        """Return the turns as plain JSON values."""
        return [{"role": role, "text": text} for role, text in self.turns]

    def lines(self) -> list[str]:
        """Return the turns for people, line by line."""
        lines = list[str]()
        for role, text in self.turns:
            lines += [f"  {role}:", *indented(text)]
        return lines


def indented(text: str) -> list[str]:
    """Return the lines of a text, moved to the right."""
    return [_INDENT + line for line in text.splitlines()]


def pretty(value: object) -> list[str]:
    """Return JSON for people, line by line."""
    return indented(json.dumps(value, indent=2, ensure_ascii=False))


def differing(parameters: Mapping[str, Any], common: Mapping[str, Any]) -> dict[str, Any]:
    """Return the parameters that are not as in `common`."""
    return {name: value for name, value in parameters.items() if common.get(name) != value}


def _text_of(content: object) -> str:
    """Return the content of a turn as a text; of a part that is no text its kind."""
    if isinstance(content, str):
        return content
    parts = cast("Iterable[object]", content) if isinstance(content, list) else ()
    texts = list[str]()
    for part in map(as_dict, parts):
        text = part.get("text")
        texts.append(text if isinstance(text, str) else f"[{part.get('type')}]")
    return "\n\n".join(texts)


def _taken(body: dict[str, Any], path: tuple[str, ...]) -> dict[str, Any] | None:
    """Take what a path leads to out of a body, and objects on the way that nothing else is in."""
    if not path or path[0] not in body:
        return None
    first, *others = path
    if not others:
        return as_dict(body.pop(first))
    inner = as_dict(body[first])
    taken = _taken(inner, tuple(others))
    if not inner:
        del body[first]
    return taken
