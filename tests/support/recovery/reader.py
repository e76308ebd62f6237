"""A reader of a dataset that looks all the time."""

from __future__ import annotations

import threading
from collections import Counter
from typing import TYPE_CHECKING, Self

import pyarrow.parquet as pq

if TYPE_CHECKING:
    from pathlib import Path


class Reader(threading.Thread):
    """A reader of the whole dataset, over and over: a key that was there must not vanish.

    It lists the parts, then opens them. One that is gone by then was replaced: it lists again.
    """

    def __init__(self, data: Path) -> None:
        super().__init__(name="reader", daemon=True)
        self._data = data
        self._done = threading.Event()
        self._known = set[str]()
        self.reads = self.repeats = self.mixed = 0
        self.vanished: list[str] = []
        self.error: BaseException | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self.join()
        if self.error is not None:
            raise self.error

    def run(self) -> None:
        try:
            while not self._done.wait(0.01):
                self._read()
        except BaseException as error:  # noqa: BLE001 - raised by __exit__
            self.error = error

    def _listing(self) -> dict[str, tuple[int, int]]:
        paths = self._data.glob("*.parquet")
        return {path.name: ((stat := path.stat()).st_ino, stat.st_mtime_ns) for path in paths}

    def _read(self) -> None:
        try:
            before = self._listing()
            keys: list[str] = []
            for name in before:
                with pq.ParquetFile(self._data / name) as part:
                    keys += part.read(columns=["id"])["id"].to_pylist()
            after = self._listing()
        except FileNotFoundError:
            self.repeats += 1
            return
        self.reads += 1
        gone = self._known - set(keys)
        self.mixed += before != after  # parts came or went while it read
        self.vanished += sorted(gone)
        if any(number > 2 for number in Counter(keys).values()):
            self.vanished.append("a key has more than two rows")
        self._known |= set(keys)
