"""The file of a Batch's jobs is damaged: its program writes it anew, and pays for nothing twice."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import TYPE_CHECKING

import orjson
import pyarrow.parquet as pq
import pytest

from batchata_tasks import Batch, SpecError, StateManager
from batchata_tasks.dataset.folder import DatasetFolder
from batchata_tasks.planning.job_store import drop_jobs, require_whole
from batchata_tasks.reports.shown_dataset import dataset_in
from tests.support.jobs import CLAUDE, sent
from tests.support.waiting import until

if TYPE_CHECKING:
    from collections.abc import Callable

    from batchata_tasks.emulator import Emulator


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def emptied(path: Path) -> None:
    path.write_bytes(b"")


def overwritten(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[: len(content) // 2] = b"x" * (len(content) // 2)
    path.write_bytes(content)


def of_others(path: Path) -> None:
    """Leave a file that can be read, and lacks a job."""
    table = pq.read_table(path)
    pq.write_table(table.slice(1), path)


damaged = pytest.mark.parametrize("damage", [cut, emptied, overwritten, of_others])


@pytest.fixture(autouse=True)
def here(emulator: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    del emulator
    monkeypatch.chdir(tmp_path)
    return tmp_path


def batch(jobs: int = 4) -> Batch:
    made = Batch("res", items_per_batch=2).set_state("state.json")
    made.set_default_params(model=CLAUDE, max_tokens=50)
    for place in range(jobs):
        made.add_job(prompt=f"text {place}", id=str(place))
    return made


def jobs_file() -> Path:
    (path,) = Path("res/_batchata/jobs").iterdir()
    return path


@damaged
def test_the_program_that_adds_the_jobs_writes_it_anew(
    emulator: Emulator, damage: Callable[[Path], None]
) -> None:
    """After a run, and while batches are open: all results are there, each job was sent once."""
    emulator.control.progress("reads", 10**6)
    run = batch().run(wait=False)
    until(lambda: run.status()["batches"].get("submitted") == 2)
    run.shutdown(wait_for_active=False)
    whole = jobs_file().read_bytes()
    damage(jobs_file())
    emulator.control.progress("immediate")
    for _ in range(2):
        results = batch().run().results()
        assert sorted(results) == ["0", "1", "2", "3"]
        assert all(result.is_success() for result in results.values())
        assert jobs_file().read_bytes() == whole
        damage(jobs_file())
    assert sent(emulator) == 4


@damaged
def test_without_the_jobs_one_sentence_says_what_to_do(
    emulator: Emulator, damage: Callable[[Path], None]
) -> None:
    """The state file alone, and the folder alone, cannot make the jobs anew; nothing is sent."""
    batch().run()
    damage(jobs_file())
    for look in (
        lambda: batch(jobs=0).run(),
        lambda: StateManager("state.json").load(),
        lambda: dataset_in("res"),
    ):
        with pytest.raises(SpecError, match=r"^jobs: .* is damaged.*Run the program that adds"):
            look()
    assert sent(emulator) == 4


def test_the_file_of_an_older_version_is_whole_until_it_is_damaged() -> None:
    """Its digest was made of pairs; it stays whole if a job is taken out of it."""
    batch().run()
    jobs = pq.read_table(jobs_file()).replace_schema_metadata(None)
    pairs = zip(jobs["job_id"].to_pylist(), jobs["job"].to_pylist(), strict=True)
    folder = DatasetFolder("older")
    folder.create()
    folder.jobs.mkdir()
    older = folder.jobs / f"{hashlib.sha256(orjson.dumps(list(pairs))).hexdigest()[:32]}.parquet"
    pq.write_table(jobs, older)
    require_whole(older)
    assert drop_jobs(folder, "3") == 1
    require_whole(older)
    for change in (jobs.slice(1), jobs.take([1, 0, 2, 3])):
        pq.write_table(change, older)
        with pytest.raises(SpecError, match="has other jobs than it had"):
            require_whole(older)
