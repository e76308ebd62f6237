"""The index of a plan's keys."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batchata_tasks.common.canonical import key_digest
from batchata_tasks.dataset.parts import LandedRow
from batchata_tasks.planning.row_index import RowIndex

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def index(tmp_path: Path) -> Iterator[RowIndex]:
    """Return an empty index."""
    made = RowIndex(tmp_path / "index.db")
    yield made
    made.close()


def landed(part: str = "p", enriched_at: int = 1, **values: object) -> LandedRow:
    facts = LandedRow(part, "v1:f", "succeeded", None, 1, 10, 20, 0, 7, b"carried", enriched_at)
    return facts._replace(**values)


def test_an_empty_index_knows_nothing(index: RowIndex) -> None:
    """A first run finds nothing landed and nothing in flight."""
    assert index.landed(b"k") is None
    assert not index.in_flight(b"k")


def test_landed_rows_come_back_whole(index: RowIndex) -> None:
    """Every fact of a row, nulls included, is the dataset's."""
    rows = {b"a": landed(), b"b": landed(status="errored", error="provider: x", cost=None)}
    index.add_landed(rows.items())
    assert {key: index.landed(key) for key in rows} == rows
    assert index.landed(b"c") is None
    assert index.landed_rows == 2


@pytest.mark.parametrize("order", [1, -1])
def test_of_two_rows_with_one_key_the_later_counts(index: RowIndex, order: int) -> None:
    """During a commit a dataset has old and new rows; the later `_enriched_at` decides.

    The order of reading does not matter.
    """
    rows = [(b"k", landed("old", 1)), (b"k", landed("new", 2))]
    index.add_landed(rows[::order])
    assert index.landed(b"k") == landed("new", 2)


def test_keys_in_flight_are_known_once(index: RowIndex) -> None:
    """A key that two chunks have is in flight, perhaps held; a key that none has is not."""
    index.add_in_flight([(b"a", False), (b"b", True), (b"a", False)])
    index.add_in_flight(iter([(b"b", True)]))
    assert [index.in_flight(key) for key in (b"a", b"b", b"c")] == [True, True, False]
    assert [index.held(key) for key in (b"a", b"b", b"c")] == [False, True, False]
    assert index.rows_in_flight == 2


@given(st.lists(st.lists(st.integers(0, 40), max_size=30), max_size=5))
@settings(deadline=None, max_examples=60, derandomize=True)
def test_the_first_double_is_found_across_blocks(
    tmp_path_factory: pytest.TempPathFactory, blocks: list[list[int]]
) -> None:
    """The first row with a repeated key is named with the earlier row.

    That may be in its own block or an older one.
    """
    index = RowIndex(tmp_path_factory.mktemp("index") / "index.db")
    seen: dict[int, int] = {}
    number = 0
    try:
        for block in blocks:
            numbers = list(range(number + 1, number + 1 + len(block)))
            number += len(block)
            expected = None
            for at, value in enumerate(block):
                if value in seen:
                    expected = (numbers[at], seen[value], at)
                    break
                seen[value] = numbers[at]
            assert (
                index.first_double([key_digest(b"%d" % value) for value in block], numbers)
                == expected
            )
            if expected is not None:
                return
    finally:
        index.close()
