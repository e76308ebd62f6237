"""Place: where a value stands in a text."""

from __future__ import annotations

from typing import NamedTuple

LOW = 2
"""A doubt that lets a grade be low at best; 1 lets it be medium, and 0 is none."""


class Place(NamedTuple):
    """Where a value stands, and the doubt about it.

    `unsure`: day and month of it cannot be told apart.
    """

    start: int
    end: int
    doubt: int = 0
    unsure: bool = False
