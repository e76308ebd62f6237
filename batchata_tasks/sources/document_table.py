"""A table of documents: one row for each file that a pattern names.

The pattern is looked at when rows are read, never before: what a run sent lands whether or not the
files are still there.
"""

from __future__ import annotations

import glob
import os
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from batchata_tasks.common.errors import SourceError, SpecError
from batchata_tasks.common.files import from_home
from batchata_tasks.common.text import is_unicode
from batchata_tasks.sources import documents
from batchata_tasks.sources.files import pattern_base
from batchata_tasks.sources.source import Block, Place, errors_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from batchata_tasks.sources.forms import DocumentsSource

PATH = "path"
"""The column that names a row's file, and by default the key."""
_BLOCK_ROWS = 128  # few: documents are read for some of the columns
_SCHEMA = pa.schema(
    [
        pa.field(PATH, pa.string()),
        pa.field("name", pa.string()),
        pa.field("folder", pa.string()),
        pa.field("media_type", pa.string()),
        pa.field("pages", pa.int64()),
        pa.field("size", pa.int64()),
        pa.field("modified", pa.timestamp("us", tz="UTC")),
        pa.field("sha256", pa.string()),
    ]
)


COLUMNS = tuple(_SCHEMA.names)
_READ: dict[str, Callable[[Path], str | int | None]] = {
    "media_type": documents.media_type_of,
    "pages": documents.pages_of,
    "sha256": documents.digest_of,
}


class DocumentTable:
    """The files of a pattern, as a Source: sorted by path, the content read only if it is asked."""

    def __init__(self, source: DocumentsSource) -> None:
        self.url = source.documents

    def names(self) -> list[str]:
        """See Source."""
        return _SCHEMA.names

    def schema(self, columns: list[str]) -> pa.Schema:
        """See Source."""
        return pa.schema([_SCHEMA.field(name) for name in columns])

    def batches(self, columns: list[str]) -> Iterator[Block]:
        """See Source."""
        paths = matches(self.url)
        if (odd := next((path for path in paths if not is_unicode(path)), None)) is not None:
            message = f"source: the name of the file {odd!a} is not Unicode; rename it."
            raise SourceError(message)
        for start in range(0, len(paths), _BLOCK_ROWS):
            with errors_of(self.url):
                some = paths[start : start + _BLOCK_ROWS]
                rows = [row for path in some if (row := _row(path, columns)) is not None]
            schema = self.schema(columns)
            arrays = [pa.array([row[f.name] for row in rows], f.type) for f in schema]
            batch = pa.RecordBatch.from_arrays(arrays, schema=schema)
            yield Block(batch, Place(self.url, start + 1))


def matches(pattern: str) -> list[str]:
    """Return the paths of the files that a pattern names, sorted.

    As in other patterns, names that begin with a dot are matched only by a dot. `**` does not
    follow links to folders, which may lead anywhere, or in a circle.

    Raises:
        SpecError: it is a URL, or a folder.
        SourceError: a folder cannot be read.
    """
    if "://" in pattern:
        message = f"source: {pattern} is a URL; documents are those of local folders: name a path."
        raise SpecError(message)
    whole = from_home(pattern, "source")
    if whole.is_dir():
        message = (
            f"source: {pattern} is a folder; write which files of it, such as {pattern}/*.pdf."
        )
        raise SpecError(message)
    base = Path(pattern_base(str(whole)))
    with errors_of(pattern):
        if base.is_dir():
            os.scandir(base).close()  # raises if it cannot be read, which `glob` does not
        if "**" in whole.relative_to(base).parts:
            found = _walked(base, whole.relative_to(base).parts)
        else:
            found = map(Path, glob.glob(str(whole)))  # noqa: PTH207 - pathlib takes no absolute one
        return sorted(path.as_posix() for path in found if path.is_file())


def _walked(base: Path, pattern: Sequence[str]) -> Iterator[Path]:
    for place, folders, names in os.walk(base, onerror=_refuse):
        folders[:] = [name for name in folders if not name.startswith(".")]
        inner = Path(place).relative_to(base).parts
        for name in names:
            if _is_match(pattern, (*inner, name)):
                yield Path(place, name)


def _refuse(error: OSError) -> None:
    """Refuse a folder that cannot be read, whose rows would seem to have left the source."""
    if not isinstance(error, FileNotFoundError):
        raise error


def _is_match(pattern: Sequence[str], path: Sequence[str]) -> bool:
    """Whether a pattern of folders and a file, in parts, matches a path."""
    if not pattern:
        return not path
    if pattern[0] == "**":
        return any(_is_match(pattern[1:], path[i:]) for i in range(len(path) + 1))
    if not path or (path[0].startswith(".") and not pattern[0].startswith(".")):
        return False
    return fnmatchcase(path[0], pattern[0]) and _is_match(pattern[1:], path[1:])


def _row(path: str, columns: Iterable[str]) -> dict[str, Any] | None:
    """Return the columns of a file; None if it went away since the pattern was looked at."""
    file = Path(path)
    try:
        status = file.stat()
    except FileNotFoundError:
        return None
    whole, rest = divmod(status.st_mtime_ns // 1000, 10**6)
    values = {
        PATH: path,
        "name": file.name,
        "folder": file.parent.as_posix(),
        "size": status.st_size,
        "modified": datetime.fromtimestamp(whole, UTC).replace(microsecond=rest),
    }
    return {name: values[name] if name in values else _of_content(name, file) for name in columns}


def _of_content(column: str, file: Path) -> str | int | None:
    """Return what a column says of a file's content; None if it cannot be read.

    What is wrong with it is told once it is to be sent.
    """
    try:
        return _READ[column](file)
    except SpecError:
        return None
