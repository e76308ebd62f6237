"""Files of earlier runs are packed, and whoever asks for one reads the same as before."""

from __future__ import annotations

import multiprocessing
import os
import threading
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from batchata_tasks.common.errors import LeaseError, StorageError
from batchata_tasks.dataset.packing import Packing
from batchata_tasks.dataset.packs import (
    changed_at,
    is_kept,
    kept_bytes,
    kept_files,
    kept_json,
    opened_packs,
)
from tests.support.by_day import examples

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from batchata_tasks.dataset.packs import Pack

FILES = 12


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder with folders of small files."""
    for place in ("intents", "commits", "requests"):
        (tmp_path / place).mkdir()
    return tmp_path


def packing(folder: Path) -> Packing:
    return Packing(folder / "packs", lambda: None)


def write(folder: Path, number: int) -> list[Path]:
    """Write the files of one night."""
    paths = [folder / "intents" / f"{number:04}.json", folder / "requests" / f"{number:04}.jsonl"]
    for path in paths:
        path.write_text(f'{{"night": {number}}}')
    return paths


def test_packed_files_read_as_before_and_come_back_as_they_were(folder: Path) -> None:
    """Content, names and times; nothing else is left in the folders meanwhile, or in packs then."""
    paths = write(folder, 1)
    os.utime(paths[0], ns=(-1, -(10**18)))  # no zip file can tell such a time
    os.utime(paths[1], ns=(0, 5 * 10**18))
    times = [path.stat().st_mtime_ns for path in paths]
    packing(folder).pack(paths)
    assert not any(path.exists() for path in paths)
    assert [kept_json(path) for path in paths] == [{"night": 1}] * 2
    assert [changed_at(path) for path in paths] == times
    assert kept_files(folder / "intents", "*.json") == paths[:1]
    assert not kept_files(folder / "intents", "*.arrow")
    assert kept_json(folder / "intents/0002.json") is None
    assert not is_kept(folder / "commits/0001.json")
    packing(folder).unpack(paths)
    assert [path.stat().st_mtime_ns for path in paths] == times
    assert [path.read_text() for path in paths] == ['{"night": 1}'] * 2
    assert not list((folder / "packs").iterdir())


def test_a_file_in_its_folder_counts(folder: Path) -> None:
    """It was written since; also once it is packed in turn, and packs are merged."""
    for number in range(30):
        paths = write(folder, number % 3)
        paths[0].write_text(f'{{"night": {number}}}')
        assert kept_json(paths[0]) == {"night": number}
        packing(folder).pack(paths)
        assert kept_json(paths[0]) == {"night": number}
    assert len(list((folder / "packs").iterdir())) < 8


def test_a_thousand_nights_are_a_few_packs(folder: Path) -> None:
    """Each file of them is read as it was written."""
    most = 0
    for week in range(0, 1000, 7):
        night = [path for number in range(week, week + 7) for path in write(folder, number)]
        packing(folder).pack(night)
        most = max(most, len(list((folder / "packs").iterdir())))
    assert most < 20
    assert len(kept_files(folder / "requests", "*")) == 1001
    assert all(
        kept_json(folder / "intents" / f"{number:04}.json") == {"night": number}
        for number in range(1001)
    )


def test_a_removed_file_is_in_no_pack(folder: Path) -> None:
    """Neither under its name nor by its text; the others stay."""
    paths = [path for number in range(5) for path in write(folder, number)]
    packing(folder).pack(paths)
    packing(folder).remove(paths[:2])
    assert [is_kept(path) for path in paths] == [False, False] + [True] * 8
    assert kept_files(folder / "intents", "*") == paths[2::2]


def test_whoever_reads_meanwhile_misses_no_file(folder: Path) -> None:
    """Files move to packs, packs are merged, files come back: each is found at any moment."""
    paths = [path for number in range(FILES) for path in write(folder, number)]
    ended, lacking = threading.Event(), list[str]()

    def read() -> None:
        while not ended.is_set():
            lacking.extend(path.name for path in paths if not is_kept(path))
            lacking.extend(path.name for path in paths if not kept_bytes(path))
            if len(kept_files(folder / "intents", "*")) != FILES:
                lacking.append("a name")

    reader = threading.Thread(target=read)
    reader.start()
    try:
        for _ in range(12):
            for at in range(0, len(paths), 2):
                packing(folder).pack(paths[at : at + 2])
            packing(folder).unpack(paths)
    finally:
        ended.set()
        reader.join()
    assert not lacking


def test_a_forked_process_reads_by_itself(folder: Path) -> None:
    """Neither of the two moves the place in a file where the other one reads."""
    paths = [path for number in range(FILES) for path in write(folder, number)]
    for path in paths:
        path.write_bytes(os.urandom(50_000))  # else all of the pack is in a buffer
    contents = [path.read_bytes() for path in paths]
    packing(folder).pack(paths)

    def read() -> None:
        for _ in range(50):
            assert [kept_bytes(path) for path in paths] == contents

    kept_bytes(paths[0])  # so that the pack is open
    other = multiprocessing.get_context("fork").Process(target=read)
    other.start()
    read()
    other.join()
    assert other.exitcode == 0


@pytest.mark.parametrize("kept", [0, 10, 0.5, 0.99])
def test_a_damaged_pack_is_told_with_its_name(folder: Path, kept: float) -> None:
    """And with the remedy; nobody takes its files for missing."""
    paths = write(folder, 1)
    packing(folder).pack(paths)
    (pack,) = (folder / "packs").iterdir()
    content = pack.read_bytes()
    pack.unlink()
    pack.write_bytes(content[: int(kept if kept > 1 else kept * len(content))])
    for read in (kept_json, is_kept):
        with pytest.raises(StorageError, match=rf"{pack} is damaged .*; restore it from a copy"):
            read(paths[0])


def test_a_damaged_file_in_a_pack_is_told(folder: Path) -> None:
    """Its check sum tells; the others are read."""
    paths = write(folder, 1)
    packing(folder).pack(paths)
    (pack,) = (folder / "packs").iterdir()
    content = bytearray(pack.read_bytes())
    content[60] ^= 0xFF  # within the first file
    pack.unlink()
    pack.write_bytes(content)
    with pytest.raises(StorageError, match=f"{pack} is damaged"):
        kept_bytes(paths[0])
    assert kept_json(paths[1]) == {"night": 1}


class Kept(RuleBasedStateMachine):
    """Files are written, packed, taken out and removed, by processes of which any may die."""

    root: Path
    examples = 0

    @initialize()
    def begin(self) -> None:
        Kept.examples += 1
        self.folder = self.root / str(Kept.examples)
        (self.folder / "intents").mkdir(parents=True)
        self.content = dict["Path", bytes]()
        self.written = 0

    def path(self, number: int) -> Path:
        return self.folder / "intents" / f"{number}.json"

    def mortal(self, steps_left: int) -> Packing:
        """Return what changes the packs, and dies after so many steps."""
        steps = iter(range(steps_left))

        def gate() -> None:
            if next(steps, None) is None:
                message = "it is dead."
                raise LeaseError(message)

        return Packing(self.folder / "packs", gate)

    @rule(number=st.integers(0, FILES))
    def write(self, number: int) -> None:
        self.written += 1
        content = b"%d " % self.written * 50
        self.path(number).write_bytes(content)
        self.content[self.path(number)] = content

    @rule(number=st.integers(0, FILES), life=st.integers(0, 12))
    def pack(self, number: int, life: int) -> None:
        loose = [path for path in self.content if path.exists()]
        self.until_death(lambda one: one.pack(loose[: number + 1]), life)

    @rule(numbers=st.sets(st.integers(0, FILES)), life=st.integers(0, 12))
    def unpack(self, numbers: set[int], life: int) -> None:
        paths = [self.path(number) for number in sorted(numbers)]
        if self.until_death(lambda one: one.unpack(paths), life):
            assert not any(
                f"intents/{path.name}" in pack.files for pack in self.packs() for path in paths
            )

    @rule(numbers=st.sets(st.integers(0, FILES), max_size=3), life=st.integers(0, 12))
    def remove(self, numbers: set[int], life: int) -> None:
        """Whoever died half-way begins again."""
        paths = [self.path(number) for number in sorted(numbers)]
        self.until_death(lambda one: one.remove(paths), life)
        self.mortal(1000).remove(paths)
        for path in paths:
            self.content.pop(path, None)

    def until_death(self, change: Callable[[Packing], None], life: int) -> bool:
        try:
            change(self.mortal(life))
        except LeaseError:
            return False
        return True

    def packs(self) -> list[Pack]:
        return opened_packs(self.folder / "packs")

    @invariant()
    def each_file_reads_as_it_was_written_last(self) -> None:
        assert kept_files(self.folder / "intents", "*.json") == sorted(self.content)
        for path, content in self.content.items():
            assert kept_bytes(path) == content


@pytest.mark.sampled
def test_whatever_dies_each_file_reads_as_it_was_written_last(tmp_path: Path) -> None:
    """And a file that was removed does not come back."""
    Kept.root = tmp_path
    run_state_machine_as_test(
        Kept,
        settings=settings(
            max_examples=examples(60),
            stateful_step_count=30,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
