"""The leaves of an answer: each value with the path that leads to it and its names."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, is_dataclass
from dataclasses import fields as fields_of
from itertools import islice
from typing import TYPE_CHECKING, Any, cast

from pydantic import AliasChoices, AliasPath, BaseModel

from batchata_tasks.citations.names import Name, name_of
from batchata_tasks.citations.numerals import POWERS
from batchata_tasks.citations.values import Sought, sought

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pydantic.fields import FieldInfo

_DEEPEST = 24
_MOST = 50_000  # values of an answer
_INDEX = re.compile(r"\[\d+\]")


@dataclass(frozen=True, slots=True)
class Leaf:
    """A value of an answer: `sought` is None where nothing can stand for it.

    `item` is the innermost item of a list that it belongs to, such as `orders[0].items[2]`, and
    `column` its path without places in lists.
    """

    path: str
    names: tuple[Name, ...]
    sought: Sought | None
    item: str | None
    column: str
    value: object

    @property
    def powers(self) -> frozenset[int]:
        """The powers of ten in which it counts, by its names: 6 of `revenue_in_millions`."""
        said = {word for name in self.names for word in (*name.whole, *name.parents)}
        return frozenset(POWERS[word] for word in said if len(word) > 1 and word in POWERS)


def without_indices(path: str) -> str:
    """Return a path without places in lists: of `a[0].b[3]` it is `a[].b[]`."""
    return _INDEX.sub("[]", path)


@dataclass(frozen=True, slots=True)
class _Branch:
    path: str
    spellings: tuple[str, ...]
    parents: tuple[str, ...]
    above: tuple[int, ...]  # ids of the values that it is in


def leaves(answer: object) -> list[Leaf]:
    """Return the leaves of an answer in its order; what is too deep or too much is left out."""
    found: list[Leaf] = []
    waiting = [(answer, _Branch("", (), (), ()))]
    for _ in range(_MOST):
        if not waiting:
            break
        value, branch = waiting.pop()
        children = _children(value)
        if children is None and branch.path:
            found.append(_leaf(value, branch))
        elif children and id(value) not in branch.above and len(branch.above) < _DEEPEST:
            waiting += reversed(_below(value, branch, children))
    return found


def _leaf(value: object, branch: _Branch) -> Leaf:
    names = tuple(name_of(spelling, branch.parents) for spelling in branch.spellings)
    head, bracket, _ = branch.path.rpartition("]")
    item = head + bracket if bracket else None
    return Leaf(branch.path, names, sought(value), item, without_indices(branch.path), value)


def _below(value: object, branch: _Branch, children: _Children) -> list[tuple[Any, _Branch]]:
    above = (*branch.above, id(value))
    own = (word for spelling in branch.spellings for word in name_of(spelling, ()).words)
    parents = tuple(dict.fromkeys((*branch.parents, *own)))
    below: list[tuple[Any, _Branch]] = []
    for key, spellings, child in children:
        if isinstance(key, int):
            item = f"{branch.path}[{key}]"
            below.append((child, _Branch(item, branch.spellings, branch.parents, above)))
        else:
            path = f"{branch.path}.{key}" if branch.path else key
            below.append((child, _Branch(path, spellings, parents, above)))
    return below


_Children = list[tuple[str | int, tuple[str, ...], Any]]


def _children(value: object) -> _Children | None:
    """Return the fields of a model or dict, or the items of a list; None for a single value."""
    if isinstance(value, BaseModel):
        fields = type(value).model_fields
        own = [
            (key, _spellings(key, field), getattr(value, key, None))
            for key, field in fields.items()
        ]
        return [*own, *_entries(value.__pydantic_extra__ or {})]
    if is_dataclass(value) and not isinstance(value, type):
        return [(one.name, (one.name,), getattr(value, one.name, None)) for one in fields_of(value)]
    if isinstance(value, Mapping):
        return _entries(cast("Mapping[Any, Any]", value))
    if isinstance(value, AbstractSet):
        return _items(_sorted(cast("AbstractSet[Any]", value)))
    if isinstance(value, Sequence) and not isinstance(value, str | bytes | bytearray | memoryview):
        return _items(cast("Sequence[Any]", value))
    return None


def _items(values: Iterable[Any]) -> _Children:
    return [(index, (), item) for index, item in enumerate(islice(values, _MOST))]


def _sorted(values: AbstractSet[Any]) -> list[Any]:
    """Return the items of a set in an order that does not change between runs."""
    try:
        return sorted(values)
    except TypeError:  # items of several kinds have none
        return []


def _entries(entries: Mapping[Any, Any]) -> _Children:
    return [(key, (key,), value) for key, value in entries.items() if isinstance(key, str)]


def _spellings(key: str, field: FieldInfo) -> tuple[str, ...]:
    """Return the names of a field: its own, its aliases and its title."""
    told = [key, field.alias, field.serialization_alias, field.title]
    aliases = field.validation_alias
    choices = aliases.choices if isinstance(aliases, AliasChoices) else [aliases]
    told += [choice.path[-1] if isinstance(choice, AliasPath) else choice for choice in choices]
    return tuple(dict.fromkeys(name for name in told if isinstance(name, str) and name))
