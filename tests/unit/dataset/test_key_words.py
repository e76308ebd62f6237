"""Keys as they are written on a command line."""

from __future__ import annotations

import shlex
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest

from batchata_tasks.dataset.key_words import key_options, key_values, typed_key


@pytest.mark.parametrize(
    "key",
    [
        {"id": "a b'c"},
        {"id": "id=x"},
        {"id": "-1"},
        {"id": -1},
        {"id": 0.5},
        {"id": True},
        {"id": Decimal("1.50")},
        {"id": date(2026, 1, 31)},
        {"id": datetime(2026, 1, 31, 9, 30, tzinfo=UTC)},
        {"id": time(9, 30)},
        {"id": timedelta(days=1, seconds=90)},
        {"id": b"\xff\x00"},
        {"a": "x=1", "a b": 2},
        {"a": "-1", "b": "{}"},
    ],
    ids=str,
)
def test_a_key_is_found_by_the_options_that_name_it(key: dict[str, Any]) -> None:
    """Whatever type it has: what is printed for people to type leads to the row."""
    rows = pa.RecordBatch.from_pylist([key])
    options = shlex.split(key_options(key))
    words = [word.removeprefix("--key=") for word in options if word != "--key"]
    assert key_values(typed_key(list(key), words, rows.schema)) == key
