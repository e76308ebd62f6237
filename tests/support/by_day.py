"""What `make test` does of tests with very many cases of one kind; `make nights` does all.

Both choose alike each time. Each promise keeps some of its cases by day.
"""

from __future__ import annotations

import os
from itertools import count
from typing import TYPE_CHECKING, TypeVar
from zlib import crc32

if TYPE_CHECKING:
    from collections.abc import Iterator

T = TypeVar("T")
EVERY_CASE = "TEST_EVERY_CASE"  # set in the environment by `pytest --every-case`
_FEWEST = 20
_STEP = 3


def is_day() -> bool:
    """Whether cases may be left to the nights."""
    return EVERY_CASE not in os.environ


def examples(number: int) -> int:
    """Return how many examples Hypothesis is to draw: by day a quarter, but not very few."""
    return min(number, max(number // 4, _FEWEST)) if is_day() else number


def moments() -> Iterator[int]:
    """Yield numbers of moments at which something dies, without end: by day every third one."""
    return count(0, _STEP if is_day() else 1)


def drawn(cases: dict[str, T], number: int) -> list[T]:
    """Return `number` of a test's cases, drawn by their names, in their order.

    Every second or third one would leave out a value of a parameter for good.
    """
    names = sorted(cases, key=lambda name: crc32(name.encode()))[:number]
    return [case for name, case in cases.items() if name in names]
