"""Writes are whole or absent, and a refused write is a sentence."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

import pytest

from batchata_tasks.common.errors import SpecError, StorageError
from batchata_tasks.common.files import durable, read_json, storage_errors, sync_folder, write_json
from batchata_tasks.dataset.folder import DatasetFolder

if TYPE_CHECKING:
    from pathlib import Path


def test_a_durable_file_appears_whole(tmp_path: Path) -> None:
    """Until a file is whole, nothing has its name; afterwards no other file is left."""
    path = tmp_path / "file"
    with durable(path) as stream:
        stream.write(b"one")
        stream.flush()
        assert not path.exists()
        stream.write(b"two")
    assert path.read_bytes() == b"onetwo"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit, GeneratorExit])
@pytest.mark.parametrize("old", [None, b"old"])
def test_a_write_that_breaks_off_leaves_what_was(
    tmp_path: Path, error: type[BaseException], old: bytes | None
) -> None:
    """An exception in the block leaves the old file or none, and nothing half-written."""
    path = tmp_path / "file"
    if old is not None:
        path.write_bytes(old)

    def write() -> None:
        with durable(path) as stream:
            stream.write(b"half")
            raise error

    with pytest.raises(error):
        write()
    assert [p.read_bytes() for p in tmp_path.iterdir()] == ([old] if old is not None else [])


def test_the_half_written_file_may_lie_elsewhere(tmp_path: Path) -> None:
    """`data/` holds only Parquet files: an unfinished one lies in the folder given for it."""
    data, own = tmp_path / "data", tmp_path / "own"
    data.mkdir()
    own.mkdir()
    with durable(data / "part.parquet", own) as stream:
        stream.write(b"x")
        assert not list(data.iterdir())
        assert len(list(own.iterdir())) == 1
    assert [p.name for p in data.iterdir()] == ["part.parquet"]
    assert not list(own.iterdir())


def test_a_refused_write_is_one_sentence(tmp_path: Path) -> None:
    """A missing folder (or a full disk) is a StorageError that names file and reason."""
    with pytest.raises(
        StorageError,
        match=(
            "^writing x: the storage refused .*nowhere.*: "
            r"No such file or directory\. Nothing is lost"
        ),
    ):
        durable(tmp_path / "nowhere" / "x").__enter__()


def test_a_full_disk_inside_the_block_is_one_sentence(tmp_path: Path) -> None:
    """An OSError while bytes are written is the storage's refusal too, and nothing is left."""

    def write() -> None:
        with durable(tmp_path / "x"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(StorageError, match="No space left on device"):
        write()
    assert not list(tmp_path.iterdir())


def test_an_error_without_a_number_is_told() -> None:
    """OSErrors that carry only a text keep it."""

    def fail() -> None:
        with storage_errors("output"):
            raise OSError("odd")

    with pytest.raises(StorageError, match=r"^output: the storage refused: odd\."):
        fail()


def test_syncing_a_folder_leaves_it_alone(tmp_path: Path) -> None:
    """Making names durable needs no write to the folder."""
    sync_folder(tmp_path)
    with pytest.raises(FileNotFoundError):
        sync_folder(tmp_path / "nowhere")


def test_json_records_come_back(tmp_path: Path) -> None:
    """What is written can be read; a missing record is None; the form is stable."""
    value = {"b": [1, None, "ü"], "a": {"x": True}}
    write_json(tmp_path / "r.json", value)
    assert read_json(tmp_path / "r.json") == value
    assert read_json(tmp_path / "none.json") is None
    first = (tmp_path / "r.json").read_bytes()
    write_json(tmp_path / "r.json", {"a": {"x": True}, "b": [1, None, "ü"]})
    assert (tmp_path / "r.json").read_bytes() == first


@pytest.mark.parametrize("content", [b"", b'{"a"', b"\xff\xfe"])
def test_a_damaged_record_is_named(tmp_path: Path, content: bytes) -> None:
    """Half a JSON record is an error with the remedy, never read as nothing."""
    (tmp_path / "r.json").write_bytes(content)
    with pytest.raises(
        StorageError, match=r"r\.json is damaged: it is not valid JSON\. Restore it from a copy\."
    ):
        read_json(tmp_path / "r.json")


def test_an_unreadable_record_is_an_error(tmp_path: Path) -> None:
    """A record that is there and cannot be read is not taken for absent."""
    with pytest.raises(StorageError, match="reading"):
        read_json(tmp_path)


@pytest.mark.parametrize("form", ["{root}", "file://{root}", "{root}/", "{root}/../out"])
def test_one_folder_has_one_url(tmp_path: Path, form: str) -> None:
    """All spellings of a dataset's folder are one dataset to the ledger."""
    root = tmp_path / "out"
    root.mkdir()
    assert DatasetFolder(form.format(root=root)).url == root.resolve().as_uri()


def test_a_link_is_the_folder_it_leads_to(tmp_path: Path) -> None:
    """A dataset reached through a link is not a second dataset."""
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    assert DatasetFolder(str(tmp_path / "link")).url == DatasetFolder(str(tmp_path / "real")).url


def test_a_relative_output_is_under_the_working_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Relative paths keep their meaning when a process changes its folder later."""
    monkeypatch.chdir(tmp_path)
    folder = DatasetFolder("out/x")
    monkeypatch.chdir("/")
    assert folder.root == tmp_path / "out" / "x"


@pytest.mark.parametrize("output", ["s3://bucket/x", "memory://x", "gs://b"])
def test_remote_outputs_are_refused_by_name(output: str) -> None:
    """An output that this version cannot write safely is refused before anything is sent."""
    with pytest.raises(SpecError, match=r"^output: .* is remote"):
        DatasetFolder(output)


def test_folders_are_made_and_data_holds_nothing_else(tmp_path: Path) -> None:
    """The layout is made once and again without harm; `data` is empty."""
    folder = DatasetFolder(str(tmp_path / "a" / "b"))
    folder.create()
    folder.create()
    assert sorted(p.name for p in folder.own.iterdir()) == [
        "commits",
        "intents",
        "requests",
        "responses",
        "runs",
        "specs",
    ]
    assert not list(folder.data.iterdir())
    assert folder.owner() is None


def test_a_file_in_the_way_is_told(tmp_path: Path) -> None:
    """An output that is a file is refused with the remedy."""
    (tmp_path / "f").write_text("x")
    with pytest.raises(SpecError, match=r"^output: .*f is a file; name a folder"):
        DatasetFolder(str(tmp_path / "f")).create()


def test_the_owner_is_written_and_read(tmp_path: Path) -> None:
    """owner.json names the dataset and the ledger that owns it."""
    folder = DatasetFolder(str(tmp_path))
    folder.create()
    folder.write_owner("d", "l")
    assert folder.owner() == {"format": 2, "spec": None, "dataset_id": "d", "ledger_id": "l"}


def test_a_runs_plan_can_be_dropped(tmp_path: Path) -> None:
    """Dropping a run's folder removes only that, and may be done twice."""
    folder = DatasetFolder(str(tmp_path))
    folder.create()
    for run in ("one", "two"):
        folder.run_folder(run).mkdir()
        (folder.run_folder(run) / "plan.arrow").write_bytes(b"x")
    folder.drop_run_folder("one")
    folder.drop_run_folder("one")
    assert [p.name for p in folder.runs.iterdir()] == ["two"]
