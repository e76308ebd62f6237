"""Place: where a value stands in a text."""

from __future__ import annotations

from typing import NamedTuple

LOW, MEDIUM = 2, 1
"""Doubts about a place: they let a grade be low, or medium, at best."""


class Place(NamedTuple):
    """Where a value stands. `unsure`: day and month of it cannot be told apart."""

    start: int
    end: int
    doubt: int = 0
    unsure: bool = False
