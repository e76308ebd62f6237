"""A table of documents: which files it has, and what its columns say of them."""

from __future__ import annotations

import errno
import hashlib
import os
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from batchata_tasks.common.errors import BatchataError
from batchata_tasks.sources.forms import DocumentsSource
from batchata_tasks.sources.opening import open_source
from batchata_tasks.sources.source import ReadOptions
from tests.support.pdfs import locked, pdf

if TYPE_CHECKING:
    from pathlib import Path

COLUMNS = ["path", "name", "folder", "media_type", "pages", "size", "modified", "sha256"]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder that the test is in."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def put(folder: Path, path: str, content: bytes = b"text") -> Path:
    file = folder / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content)
    return file


def rows(pattern: str, columns: list[str] | None = None) -> list[dict[str, Any]]:
    source = open_source(DocumentsSource(documents=pattern))
    blocks = source.batches(columns or source.names())
    return [row for block in blocks for row in block.rows.to_pylist()]


def paths(pattern: str) -> list[str]:
    return [row["path"] for row in rows(pattern, ["path"])]


def test_columns_say_what_a_file_is(folder: Path) -> None:
    """A row has the file's path from the folder one runs in, and what its content says."""
    content = pdf("one", "two", "three")
    file = put(folder, "inbox/2026/a.pdf", content)
    os.utime(file, ns=(0, 1_790_000_000_123_456_789))
    source = open_source(DocumentsSource(documents="inbox/**/*.pdf"))
    assert source.names() == COLUMNS
    assert rows("inbox/**/*.pdf") == [
        {
            "path": "inbox/2026/a.pdf",
            "name": "a.pdf",
            "folder": "inbox/2026",
            "media_type": "application/pdf",
            "pages": 3,
            "size": len(content),
            "modified": datetime(2026, 9, 21, 14, 13, 20, 123456, tzinfo=UTC),
            "sha256": hashlib.sha256(content).hexdigest(),
        }
    ]


def test_the_content_tells_the_kind(folder: Path) -> None:
    """Only a PDF has pages; what is broken has none, and no kind if it is none at all."""
    contents = {
        "broken.pdf": b"%PDF-1.4 cut",
        "empty.pdf": b"",
        "locked.pdf": locked(),
        "noise.bin": b"\x00\x01",
        "picture.png": b"\x89PNG\r\n\x1a\n",
        "text.pdf": b"plain",
        "whole": pdf("one"),
    }
    for name, content in contents.items():
        put(folder, name, content)
    found = {row["name"]: (row["media_type"], row["pages"]) for row in rows("*")}
    assert found == {
        "broken.pdf": ("application/pdf", None),
        "empty.pdf": (None, None),
        "locked.pdf": ("application/pdf", None),
        "noise.bin": (None, None),
        "picture.png": ("image/png", None),
        "text.pdf": ("text/plain", None),
        "whole": ("application/pdf", 1),
    }


def test_rows_are_sorted_and_each_file_is_one(folder: Path) -> None:
    """Files come in the order of their paths; hidden ones and links to folders are left out."""
    for name in ("b.pdf", "a.pdf", "z/c.pdf", "a/d.pdf", ".hidden/e.pdf", "z/.f.pdf", "g.txt"):
        put(folder, f"in/{name}")
    (folder / "in/again").symlink_to(folder / "in")
    assert paths("in/**/*.pdf") == ["in/a.pdf", "in/a/d.pdf", "in/b.pdf", "in/z/c.pdf"]
    assert paths("in/*.pdf") == ["in/a.pdf", "in/b.pdf"]
    assert paths("in/*/*.pdf") == ["in/a/d.pdf", "in/again/a.pdf", "in/again/b.pdf", "in/z/c.pdf"]
    assert paths(f"{folder}/in/?.pdf") == [f"{folder}/in/a.pdf", f"{folder}/in/b.pdf"]
    assert paths("./in/a.pdf") == ["in/a.pdf"]
    assert paths("*.pdf") == paths("nowhere/**/*.pdf") == []


def test_many_files_come_in_blocks(folder: Path) -> None:
    """Blocks are small, and no content is read that is not asked for."""
    for number in range(600):
        put(folder, f"in/{number:03}.pdf")
    source = open_source(DocumentsSource(documents="in/*.pdf"))
    counts = [block.rows.num_rows for block in source.batches(["path", "size"])]
    assert counts == [128, 128, 128, 128, 88]


@pytest.mark.parametrize(
    ("pattern", "sentence"),
    [
        ("s3://bucket/*.pdf", "source: s3://bucket/*.pdf is a URL; documents are those of local "),
        ("in", "source: in is a folder; write which files of it, such as in/*.pdf."),
    ],
)
def test_what_names_no_files_is_refused(folder: Path, pattern: str, sentence: str) -> None:
    """A URL and a folder are refused, with the remedy."""
    put(folder, "in/a.pdf")
    with pytest.raises(BatchataError) as told:
        rows(pattern)
    assert str(told.value).startswith(sentence)


@pytest.mark.parametrize("pattern", ["in/*.pdf", "in/**/*.pdf"])
def test_a_folder_that_fails_is_told(
    folder: Path, monkeypatch: pytest.MonkeyPatch, pattern: str
) -> None:
    """Its files would seem to have left the source, and `on_missing` might delete their rows."""
    put(folder, "in/a.pdf")

    def scandir(_path: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(BatchataError, match=r"cannot be read: .*Input/output error"):
        rows(pattern)


def test_a_name_that_is_no_text_is_refused(folder: Path) -> None:
    """A file whose name is not Unicode is named, as far as that can be told."""
    put(folder, os.fsdecode(b"\xff.pdf"))
    with pytest.raises(BatchataError, match="is not Unicode; rename it"):
        rows("*.pdf")


def test_options_of_other_sources_are_refused() -> None:
    """Its columns have types, so that `types` is refused by name."""
    with pytest.raises(BatchataError, match="types: a table of documents has no such option"):
        open_source(DocumentsSource(documents="*.pdf"), ReadOptions({"pages": "int"}))
