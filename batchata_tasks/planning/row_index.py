"""An index of rows by key, on disk, so that planning needs little memory for any size of table.

It answers two questions of a plan: did this key occur before in the source, and which row of the
dataset has it? It is made anew for each plan, and deleted with it.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING

from batchata_tasks.common.errors import StorageError
from batchata_tasks.dataset.parts import LandedRow

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Iterator
    from pathlib import Path


_PRAGMAS = (
    "journal_mode=OFF",
    "synchronous=OFF",
    "locking_mode=EXCLUSIVE",
    "cache_size=-16384",  # KiB
)


@contextmanager
def scratch_index(path: Path) -> Generator[RowIndex, None, None]:
    """Open an index, and delete it when the block ends.

    Raises:
        StorageError: it cannot be written.
    """
    try:
        with closing(RowIndex(path)) as index:
            yield index
    except sqlite3.Error as error:
        reason = f"planning: the storage refused the scratch index: {error}"
        message = f"{reason}. Nothing is lost: fix it and start again."
        raise StorageError(message) from error
    finally:
        path.unlink(missing_ok=True)


class RowIndex:
    """Keys are the 16-byte digests of canonical keys."""

    def __init__(self, path: Path) -> None:
        self._connection = sqlite3.connect(path, isolation_level=None)
        for pragma in _PRAGMAS:
            self._connection.execute(f"PRAGMA {pragma}")
        columns = ", ".join(LandedRow._fields)
        self._connection.execute(
            f"CREATE TABLE landed (key BLOB PRIMARY KEY, {columns}) WITHOUT ROWID"
        )
        self._connection.execute(
            "CREATE TABLE seen (key BLOB PRIMARY KEY, number INTEGER) WITHOUT ROWID"
        )
        self._connection.execute(
            "CREATE TABLE in_flight (key BLOB PRIMARY KEY, held INTEGER) WITHOUT ROWID"
        )
        self._connection.execute("BEGIN")
        self.landed_rows = 0
        self.landed_twice = False
        self.rows_in_flight = 0

    def close(self) -> None:
        """Close the file; deleting it is the caller's part."""
        self._connection.close()

    def add_landed(self, rows: Iterable[tuple[bytes, LandedRow]]) -> None:
        """Add the dataset's rows; of two with the same key, the one enriched later counts."""
        marks = ",".join("?" * (len(LandedRow._fields) + 1))
        update = ", ".join(f"{name}=excluded.{name}" for name in LandedRow._fields)
        before = self._connection.total_changes
        added = 0

        def counted() -> Iterator[tuple[object, ...]]:
            nonlocal added
            for key, row in rows:
                added += 1
                yield (key, *row)

        # of names and marks of ours alone
        statement = (
            f"INSERT INTO landed VALUES ({marks}) "  # noqa: S608 - marks alone
            f"ON CONFLICT(key) DO UPDATE SET {update} "
            "WHERE excluded.enriched_at >= landed.enriched_at"
        )
        self._connection.executemany(statement, counted())
        self.landed_rows += self._connection.total_changes - before
        (keys,) = self._connection.execute("SELECT COUNT(*) FROM landed").fetchone()
        self.landed_twice = keys < added

    def add_in_flight(self, keys: Iterable[tuple[bytes, bool]]) -> None:
        """Add keys whose requests are at a provider, or collected and not landed.

        With each comes whether it is held: no run waits for it, and a person may have to decide.
        """
        before = self._connection.total_changes
        self._connection.executemany("INSERT OR IGNORE INTO in_flight VALUES (?, ?)", keys)
        self.rows_in_flight += self._connection.total_changes - before

    def landed(self, key: bytes) -> LandedRow | None:
        """Return the dataset's row of a key."""
        if not self.landed_rows:
            return None
        row = self._connection.execute("SELECT * FROM landed WHERE key=?", (key,)).fetchone()
        return LandedRow._make(row[1:]) if row else None

    def in_flight(self, key: bytes) -> bool:
        """Whether a request for this key is on its way, or held."""
        return self._held(key) is not None

    def held(self, key: bytes) -> bool:
        """Whether a request for this key is held."""
        return bool(self._held(key))

    def _held(self, key: bytes) -> int | None:
        if not self.rows_in_flight:
            return None
        row = self._connection.execute("SELECT held FROM in_flight WHERE key=?", (key,)).fetchone()
        return None if row is None else int(row[0])

    def first_double(self, keys: list[bytes], numbers: list[int]) -> tuple[int, int, int] | None:
        """Add keys of the source; return the first that occurred before, None if there is none.

        It is returned as the number of its row, that of the earlier row, and its place in `keys`.
        """
        before = self._connection.total_changes
        rows = list(zip(keys, numbers, strict=True))
        self._connection.executemany("INSERT OR IGNORE INTO seen VALUES (?, ?)", rows)
        if self._connection.total_changes - before == len(keys):
            return None
        for place, (key, number) in enumerate(rows):
            (earlier,) = self._connection.execute(
                "SELECT number FROM seen WHERE key=?", (key,)
            ).fetchone()
            if earlier != number:
                return number, int(earlier), place
        return None  # pragma: no cover - fewer rows were added, so there is one
