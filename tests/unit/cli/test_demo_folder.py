"""The demo's folder: what an earlier demo made there is deleted, and nothing of anybody else's."""

from __future__ import annotations

import os
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from batchata_tasks.cli.demo_folder import FOLDER, LEDGER, clear
from batchata_tasks.common.errors import InputError
from batchata_tasks.ledger import opened_ledger
from tests.support.table import Table

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from batchata_tasks.emulator import Emulator

PROVIDERS = ("anthropic", "openai")
ROOT = FOLDER / "anthropic"


@pytest.fixture(scope="module")
def runs(_one_emulator: Emulator, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Return a folder with a demo's dataset and ledger, and a user's dataset and ledger.

    A third ledger, `both.db`, has recorded a run into each.
    """
    _one_emulator.control.reset()
    folder = tmp_path_factory.mktemp("runs")
    table = Table(folder, _one_emulator, "anthropic", rows=1)
    demo = folder / ROOT
    demo.mkdir(parents=True)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in _one_emulator.env().items():
            patch.setenv(name, value)
        patch.setenv("BATCHATA_LEDGER_URL", f"sqlite:///{folder / LEDGER}")
        table.run(name="demo-anthropic", output=str(demo))
        shutil.copy(folder / LEDGER, folder / "both.db")
        patch.setenv("BATCHATA_LEDGER_URL", f"sqlite:///{folder / 'both.db'}")
        table.run(name="mine", output=str(folder / "other"))
        patch.setenv("BATCHATA_LEDGER_URL", f"sqlite:///{folder / 'mine.db'}")
        table.run(name="mine", output=str(folder / "mine"))
    yield folder
    _one_emulator.control.reset()


@pytest.fixture
def here(runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a copy of these folders, in which the test runs."""
    place = tmp_path / "project"
    shutil.copytree(runs, place)
    monkeypatch.chdir(place)
    return place


def files_in(folder: Path) -> dict[str, bytes]:
    """Return all files, also those behind links, with their contents."""
    return {
        str(path): path.read_bytes()
        for top, _, names in os.walk(folder, followlinks=True)
        for path in (Path(top, name) for name in names)
        if path.is_file()
    }


def replace_by_link(path: Path, target: str) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
    path.symlink_to(Path(target).absolute())


def move_behind_link(path: Path) -> None:
    path.rename("moved")
    path.symlink_to(Path("moved").absolute())


def file_instead_of(path: Path) -> None:
    shutil.rmtree(path)
    path.write_text("mine")


def users_dataset() -> None:
    shutil.rmtree(ROOT)
    shutil.copytree("mine", ROOT)


def database_of_others() -> None:
    LEDGER.unlink()
    with closing(sqlite3.connect(LEDGER)) as connection:
        connection.execute("create table theirs (a)")


def run_under_way() -> None:
    with opened_ledger(f"sqlite:///{LEDGER.absolute()}") as ledger:
        ((dataset_id, *_),) = ledger.transact(
            lambda connection: connection.exec_driver_sql("select id from datasets").all(),
            reading=True,
        )
        ledger.acquire_lease(dataset_id, 60)


OBSTACLES: dict[str, tuple[Callable[[], object], Path]] = {
    "a link to a user's dataset": (lambda: replace_by_link(ROOT, "mine"), ROOT),
    "a dangling link": (lambda: replace_by_link(ROOT, "nothing"), ROOT),
    "a user's dataset": (users_dataset, ROOT),
    "a dataset without its ledger": (LEDGER.unlink, ROOT),
    "data is a link": (lambda: move_behind_link(ROOT / "data"), ROOT / "data"),
    "_batchata is a link": (lambda: move_behind_link(ROOT / "_batchata"), ROOT / "_batchata"),
    "commits is a link": (
        lambda: move_behind_link(ROOT / "_batchata/commits"),
        ROOT / "_batchata/commits",
    ),
    "a user's part": (
        lambda: shutil.copy(next(Path("mine/data").glob("*.parquet")), ROOT / "data"),
        ROOT / "data/part-",
    ),
    "a user's file with the name of a merged part": (
        lambda: shutil.copy(
            next(Path("mine/data").glob("*.parquet")), ROOT / "data/merged-mine.parquet"
        ),
        ROOT / "data/merged-mine.parquet",
    ),
    "a damaged merged part": (
        lambda: (ROOT / "data/merged-mine.parquet").write_text("mine"),
        ROOT / "data/merged-mine.parquet",
    ),
    "tables without an owner": (
        lambda: shutil.copytree("mine/data", FOLDER / "openai/data"),
        FOLDER / "openai/data/part-",
    ),
    "a damaged owner file": (
        lambda: (ROOT / "_batchata/owner.json").write_text("{"),
        ROOT / "_batchata/owner.json",
    ),
    "a user's run in the ledger": (lambda: shutil.copy("both.db", LEDGER), LEDGER),
    "a database of others": (database_of_others, LEDGER),
    "no database": (lambda: LEDGER.write_text("notes"), LEDGER),
    "the ledger is a link": (lambda: move_behind_link(LEDGER), LEDGER),
    "a run is under way": (run_under_way, FOLDER),
    "the folder is a file": (lambda: file_instead_of(FOLDER), FOLDER),
    "a folder above is a file": (lambda: file_instead_of(FOLDER.parent), FOLDER.parent),
}


@pytest.mark.parametrize("obstacle", OBSTACLES)
def test_what_no_demo_made_is_refused_untouched(obstacle: str, here: Path) -> None:
    """One sentence names the path and the remedy, and nothing is deleted, also behind links."""
    prepare, path = OBSTACLES[obstacle]
    prepare()
    before = files_in(here)
    with pytest.raises(InputError) as refusal:
        clear(PROVIDERS)
    assert str(refusal.value).startswith(f"demo: {path}")
    assert str(refusal.value).endswith(", or start the demo in another folder.")
    assert files_in(here) == before


def test_an_earlier_demo_is_deleted(here: Path) -> None:
    """Its dataset and its ledger go, also if the project was moved since; files beside stay."""
    (ROOT / "mine.txt").write_text("mine")
    clear(PROVIDERS)
    assert list(files_in(here / FOLDER)) == [str(here / ROOT / "mine.txt")]
    clear(PROVIDERS)
    users = files_in(here / "mine")
    assert [name for name in users if name.endswith(".parquet")]


def test_the_folder_of_the_demo_may_be_a_link(here: Path) -> None:
    """A disk for outputs is common: what lies there is the demo's own all the same."""
    move_behind_link(FOLDER)
    clear(PROVIDERS)
    assert files_in(here / "moved") == {}
