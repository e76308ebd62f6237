"""An index of rows by key, on disk, so that planning needs little memory whatever the table's size.

It answers two questions of a plan: was this key seen before in the source, and what does the
dataset hold for it? It is scratch: made anew for each plan and deleted with it.
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


@contextmanager
def scratch_index(path: Path) -> Generator[RowIndex, None, None]:
    """Open an index, and delete it when the block ends.

    Raises:
        StorageError: there is no room for it.
    """
    try:
        with closing(RowIndex(path)) as index:
            yield index
    except sqlite3.Error as error:
        message = f"planning: the storage refused the scratch index: {error}. Nothing is lost: mend it and start again."
        raise StorageError(message) from error
    finally:
        path.unlink(missing_ok=True)


class RowIndex:
    """Keys are the 16-byte digests of canonical keys."""

    def __init__(self, path: Path) -> None:
        self._connection = sqlite3.connect(path, isolation_level=None)
        for pragma in (
            "journal_mode=OFF",
            "synchronous=OFF",
            "locking_mode=EXCLUSIVE",
            "cache_size=-16384",
        ):
            self._connection.execute(f"PRAGMA {pragma}")
        columns = ", ".join(LandedRow._fields)
        self._connection.execute(
            f"CREATE TABLE landed (key BLOB PRIMARY KEY, {columns}) WITHOUT ROWID"
        )
        self._connection.execute(
            "CREATE TABLE seen (key BLOB PRIMARY KEY, number INTEGER) WITHOUT ROWID"
        )
        self._connection.execute("CREATE TABLE in_flight (key BLOB PRIMARY KEY) WITHOUT ROWID")
        self._connection.execute("BEGIN")
        self.landed_rows = 0
        self.landed_twice = False
        self.rows_in_flight = 0

    def close(self) -> None:
        """Close the file; whoever made its folder deletes it."""
        self._connection.close()

    def add_landed(self, rows: Iterable[tuple[bytes, LandedRow]]) -> None:
        """Add the dataset's rows; of two with one key, the one enriched later counts."""
        marks = ",".join("?" * (len(LandedRow._fields) + 1))
        update = ", ".join(f"{name}=excluded.{name}" for name in LandedRow._fields)
        given, before = [0], self._connection.total_changes

        def pluralize() -> Iterator[tuple[object, ...]]:
            for key, row in rows:
                given[0] += 1
                yield (key, *row)

        self._connection.executemany(
            f"INSERT INTO landed VALUES ({marks}) ON CONFLICT(key) DO UPDATE SET {update}"  # noqa: S608 - fixed names
            " WHERE excluded.enriched_at >= landed.enriched_at",
            pluralize(),
        )
        self.landed_rows += self._connection.total_changes - before
        (keys,) = self._connection.execute("SELECT COUNT(*) FROM landed").fetchone()
        self.landed_twice = keys < given[0]

    def add_in_flight(self, keys: Iterable[bytes]) -> None:
        """Add keys whose requests are at a provider, or collected and not landed yet."""
        before = self._connection.total_changes
        self._connection.executemany(
            "INSERT OR IGNORE INTO in_flight VALUES (?)", ((key,) for key in keys)
        )
        self.rows_in_flight += self._connection.total_changes - before

    def landed(self, key: bytes) -> LandedRow | None:
        """Return what the dataset holds for a key."""
        if not self.landed_rows:
            return None
        found = self._connection.execute("SELECT * FROM landed WHERE key=?", (key,)).fetchone()
        return LandedRow._make(found[1:]) if found else None

    def in_flight(self, key: bytes) -> bool:
        """Whether a request for this key is on its way."""
        if not self.rows_in_flight:
            return False
        return (
            self._connection.execute("SELECT 1 FROM in_flight WHERE key=?", (key,)).fetchone()
            is not None
        )

    def first_double(self, keys: list[bytes], numbers: list[int]) -> tuple[int, int, int] | None:
        """Add the source's keys; (row number, earlier row number, position) of the first double."""
        before = self._connection.total_changes
        rows = list(zip(keys, numbers, strict=True))
        self._connection.executemany("INSERT OR IGNORE INTO seen VALUES (?, ?)", rows)
        if self._connection.total_changes - before == len(keys):
            return None
        for at, (key, number) in enumerate(rows):
            (earlier,) = self._connection.execute(
                "SELECT number FROM seen WHERE key=?", (key,)
            ).fetchone()
            if earlier != number:
                return number, int(earlier), at
        return None  # pragma: no cover - a shorter count means that one is found
