"""The interface of what turns a row, or a stored Job, into a request."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from batchata_tasks.planning.route import Route, Shape


@dataclass(frozen=True, slots=True)
class BuiltRequest:
    """A row's request: its body as JSON, its shape, and which of the builder's routes it takes."""

    body: bytes
    shape: Shape
    route: int = 0


class Builder(Protocol):
    """Turns rows into requests, and into the fingerprints that decide which are to be sent.

    `constant` is what rows share of their requests, and the text of the spec does not show.
    """

    routes: list[Route]
    constant: tuple[str, ...]

    def columns_needed(self, all_columns: list[str]) -> list[str]:
        """Return the columns that must be read."""
        ...

    def columns_used(self) -> list[str]:
        """Return the columns that a request shows, so that their values belong to its identity."""
        ...

    def keeps(self, row: Mapping[str, Any], where: Callable[[], str]) -> bool:
        """Whether the row counts."""
        ...

    def fingerprint(self, row: Mapping[str, Any]) -> str:
        """Return the fingerprint of the row's base request."""
        ...

    def null_column(self, row: Mapping[str, Any]) -> str | None:
        """Return the first column that the request uses and the row leaves null."""
        ...

    def build(self, row: Mapping[str, Any], where: Callable[[], str]) -> BuiltRequest:
        """Return the row's request; `where` names the row in an error."""
        ...
