"""The garbage collector is paused for a while only, and left as it was found."""

from __future__ import annotations

import gc
from typing import TYPE_CHECKING

import pytest

from batchata_tasks.common.collector import collector_paused, uncollected

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    yield
    gc.enable()


def test_it_goes_on_after_a_pause_also_after_an_error() -> None:
    """However a pause ends, the caller's program collects its garbage again."""
    with collector_paused():
        assert not gc.isenabled()
        with collector_paused():
            pass
    assert gc.isenabled()
    with pytest.raises(ValueError, match="inside"), collector_paused():
        raise ValueError("inside")
    assert gc.isenabled()


def test_a_program_that_has_none_gets_none() -> None:
    """A program that turned its collector off keeps it off."""
    gc.disable()
    with collector_paused():
        pass
    assert not gc.isenabled()


def test_it_works_between_the_items_of_an_iterator() -> None:
    """Each item is made without the collector, and used with it."""
    made = [gc.isenabled() for _ in range(1)]

    def items() -> Iterator[bool]:
        for _ in range(3):
            yield gc.isenabled()

    for item in uncollected(items()):
        made.append(item)
        assert gc.isenabled()
    assert made == [True, False, False, False]
