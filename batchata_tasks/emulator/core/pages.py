"""Paging through lists, as each provider does."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, TypeVar

from batchata_tasks.emulator.core.refusals import ApiError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from batchata_tasks.emulator.core.faults import Rule


class HasId(Protocol):
    """An object that a list can show."""

    @property
    def id(self) -> str:
        """The id that cursors name."""
        ...


Item = TypeVar("Item", bound=HasId)


class Pager(Protocol[Item]):
    """How a provider cuts a list into pages."""

    def __call__(
        self, items: Sequence[Item], query: Mapping[str, str], default: int = ..., most: int = ...
    ) -> tuple[Sequence[Item], bool]:
        """Return a page, and whether more follow."""
        ...


def page_of(
    pager: Pager[Item],
    items: Sequence[Item],
    query: Mapping[str, str],
    shapes: Iterable[Rule],
    **limits: int,
) -> tuple[Sequence[Item], bool]:
    """Return a provider's page of a list that rules may change, and whether more follow."""
    kinds = {rule.kind for rule in shapes}
    if "list_old_first" in kinds:
        items = items[::-1]
    if "list_empty" in kinds:
        return [], False
    if "list_flat" in kinds:
        return items, False
    if kinds & {"list_repeats", "list_endless"}:
        first = {name: value for name, value in query.items() if name == "limit"}
        return pager(items, first, **limits)[0], True
    if "list_short" in kinds:
        query = {**query, "limit": "1"}
    return pager(items, query, **limits)


def anthropic_page(
    items: Sequence[Item], query: Mapping[str, str], default: int = 20, most: int = 1_000
) -> tuple[Sequence[Item], bool]:
    """Return the page for `limit`, `after_id` and `before_id`, and whether more follow."""
    limit = _limit(query.get("limit"), default, most)
    before = query.get("before_id")
    if before is not None:
        stop = _position(items, before, "before_id")
        start = max(0, stop - limit)
        return items[start:stop], start > 0
    after = query.get("after_id")
    start = 0 if after is None else _position(items, after, "after_id") + 1
    return items[start : start + limit], start + limit < len(items)


def openai_page(
    items: Sequence[Item], query: Mapping[str, str], default: int = 20, most: int = 100
) -> tuple[Sequence[Item], bool]:
    """Return the page for `limit` and `after`, and whether more follow."""
    limit = _limit(query.get("limit"), default, most)
    after = query.get("after")
    start = 0 if after is None else _position(items, after, "after") + 1
    return items[start : start + limit], start + limit < len(items)


def _limit(given: str | None, default: int, most: int) -> int:
    if given is None:
        return default
    if not given.isdigit() or not 1 <= int(given) <= most:
        raise ApiError(400, f"limit: should be between 1 and {most}", param="limit")
    return int(given)


def _position(items: Sequence[Item], cursor: str, name: str) -> int:
    for position, item in enumerate(items):
        if item.id == cursor:
            return position
    raise ApiError(400, f"{name}: no such object: {cursor}", param=name)
