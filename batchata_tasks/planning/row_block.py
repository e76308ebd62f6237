"""A block of a source's rows: as Arrow columns, as Python values, and by name in errors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pyarrow as pa

from batchata_tasks.planning.values import python_values

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


class RowBlock:
    """Rows of a source; `numbers` are those of the rows in it, from 1, and `key` its key columns.

    Rows of a dataset (`landed`) have no order that people see: their numbers count the rows of a
    file from 0, and errors name them by their keys alone. Columns become Python values when they
    are first asked for.
    """

    def __init__(
        self,
        batch: pa.RecordBatch,
        numbers: Sequence[int],
        key: list[str],
        *,
        landed: bool = False,
    ) -> None:
        self.batch = batch
        self.numbers = numbers
        self.key = key
        self._landed = landed
        self._values: dict[str, list[Any]] = {}

    def __len__(self) -> int:
        return len(self.numbers)

    def values(self, name: str) -> list[Any]:
        """Return a column in Python values.

        Raises:
            SourceError: a value is beyond what Python can hold.
        """
        if name not in self._values:
            self._values[name] = python_values(self.batch, name, self.numbers)
        return self._values[name]

    def take(self, places: Sequence[int]) -> RowBlock:
        """Return the rows at these places."""
        if len(places) == len(self):
            return self
        batch = self.batch.take(pa.array(places, pa.int64()))
        numbers = [self.numbers[i] for i in places]
        return RowBlock(batch, numbers, self.key, landed=self._landed)

    def row(self, place: int) -> dict[str, Any]:
        """Return one row."""
        return {name: self.values(name)[place] for name in self.batch.schema.names}

    def namer(self, place: int) -> Callable[[], str]:
        """Return a function that names a row in an error, by its number (if any) and its key."""
        if self._landed:
            return lambda: f"the row with {self.key_of(place)}"
        return lambda: f"row {self.numbers[place]} ({self.key_of(place)})"

    def key_of(self, place: int) -> str:
        """Return the key of a row, for people."""
        return ", ".join(f"{name}={self.values(name)[place]!r}" for name in self.key)
