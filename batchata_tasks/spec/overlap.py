"""Source and output are kept apart: a run that reads what it writes pays for it every time."""

from __future__ import annotations

from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit
from urllib.request import url2pathname

from batchata_tasks.common.errors import SpecError
from batchata_tasks.common.files import from_home
from batchata_tasks.sources.files import found, pattern_base
from batchata_tasks.sources.source import errors_of

if TYPE_CHECKING:
    from collections.abc import Sequence

# the files of a dataset that a pattern may match, whatever their names are
_WRITTEN = (
    "data/part-0.parquet",
    "_batchata/owner.json",
    "_batchata/requests/0.jsonl",
    "_batchata/responses/0.jsonl",
)


def refuse_overlap(source: str, output: Path, *, may_lack: bool = False) -> None:
    """Refuse a source within the output, and an output within the source, with links resolved.

    `may_lack` says that the source may be a pattern of which there is no file.

    Raises:
        SpecError: one is within the other.
        SourceError: there is no such source.
    """
    root = output.resolve()
    named = _local(source)
    if named is None:
        return
    if not may_lack:
        with errors_of(source):
            files, _ = found(source)
        if any(Path(file.path).resolve().is_relative_to(root) for file in files):
            raise _refusal(source, output, "source", "within the output")
    if named.exists():
        place = named.resolve()
        may_read = named.is_dir() and root.is_relative_to(place)
    else:
        base = pattern_base(str(named))
        place = Path(base).resolve()
        rest = named.relative_to(base).parts
        may_read = any(
            _matches((*place.parts, *rest), (root / written).parts) for written in _WRITTEN
        )
    if place.is_relative_to(root):
        raise _refusal(source, output, "source", "within the output")
    if may_read:
        raise _refusal(source, output, "output", "within the source")


def _local(source: str) -> Path | None:
    """Return the path that a source names; None if it is elsewhere."""
    if source.startswith("file://"):
        return Path(url2pathname(urlsplit(source).path))
    path = from_home(source, "source")
    return path if "://" not in source or path.exists() else None


def _matches(pattern: Sequence[str], path: Sequence[str]) -> bool:
    """Whether a pattern of folders and a file, in parts, matches a path."""
    if not pattern:
        return not path
    if pattern[0] == "**":
        return any(_matches(pattern[1:], path[i:]) for i in range(len(path) + 1))
    return bool(path) and fnmatchcase(path[0], pattern[0]) and _matches(pattern[1:], path[1:])


def _refusal(source: str, output: Path, field: str, problem: str) -> SpecError:
    what, other = (source, output) if field == "source" else (output, source)
    return SpecError(
        f"{field}: {what} is {problem} {other}: each run would read what the last one wrote, and "
        "pay for it again; name another output."
    )
