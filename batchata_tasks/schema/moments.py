"""Finds numbers that stand where an answer has to give a date or a time.

Pydantic reads numbers, and texts such as "2024", as seconds since 1970
(https://docs.pydantic.dev/latest/api/standard_library_types/#datetimes). The schema that was sent
asks for a date or a time in ISO 8601, so that such an answer means something else: a year, say.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from pydantic_core import from_json

from batchata_tasks.common.json import as_dict
from batchata_tasks.schema.nodes import FORMATS

if TYPE_CHECKING:
    from batchata_tasks.schema.nodes import Node

    Path = tuple[str | int, ...]


def has_moments(root: Node) -> bool:
    """Whether a response model has fields that are dates or times."""
    return any(node.format in FORMATS for _, node in root.below())


def first_number(text: str | bytes, root: Node) -> tuple[Path, str, Any] | None:
    """Return the first number in place of a date or a time: its path, the format, and the value."""
    return _first(from_json(text), root, ())


def _first(value: object, node: Node, path: Path) -> tuple[Path, str, Any] | None:
    if node.format in FORMATS:
        return (path, node.format or "", value) if _is_number(value) else None
    children: list[tuple[object, Node, str | int]] = []
    if isinstance(value, dict):
        fields = as_dict(cast("object", value))
        children = [(fields[name], one, name) for name, one in node.fields if name in fields]
    elif isinstance(value, list) and node.items is not None:
        items = cast("list[object]", value)
        children = [(item, node.items, place) for place, item in enumerate(items)]
    found = (_first(child, one, (*path, step)) for child, one, step in children)
    return next((one for one in found if one is not None), None)


def _is_number(value: object) -> bool:
    if not isinstance(value, str):
        return isinstance(value, int | float)
    try:
        float(value)
    except ValueError:
        return False
    return True
