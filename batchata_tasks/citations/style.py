"""What a document's own numbers and dates say of those that can be read in two ways."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Marks = Literal["point", "comma"]
Order = Literal["day", "month"]


@dataclass(frozen=True, slots=True)
class Style:
    """How a text writes: its decimal mark, and which comes first in dates, day or month.

    None where it does not say, or says both.
    """

    decimal: Marks | None = None
    order: Order | None = None

    def over(self, other: Style) -> Style:
        """Return this style, with that of another text where this one does not say."""
        return Style(self.decimal or other.decimal, self.order or other.order)


def agreed(marks: set[Marks], orders: set[Order]) -> Style:
    """Return the style of a text that shows these marks and orders."""
    return Style(
        next(iter(marks)) if len(marks) == 1 else None,
        next(iter(orders)) if len(orders) == 1 else None,
    )
