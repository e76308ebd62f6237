"""Files of a source: found by path, folder, pattern or URL, and opened decompressed."""

from __future__ import annotations

import glob
import io
import logging
import os
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, cast

import fsspec  # pyright: ignore[reportMissingTypeStubs]
import pyarrow as pa
from fsspec.implementations.local import (  # pyright: ignore[reportMissingTypeStubs]
    LocalFileSystem,
)

from batchata_tasks.common.errors import SourceError
from batchata_tasks.common.files import from_home
from batchata_tasks.sources.source import no_such_file

if TYPE_CHECKING:
    from collections.abc import Generator

_fsspec = cast("Any", fsspec)  # it has no types
_LINE_BUFFER = 1 << 20
# how compressed files begin, and how their names end
_MARKS = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd", b"BZh": "bz2"}
_ENDINGS = {".gz": "gzip", ".gzip": "gzip", ".zst": "zstd", ".zstd": "zstd", ".bz2": "bz2"}
# the extras that have the file systems of URLs
_EXTRAS = {
    **dict.fromkeys(("s3", "s3a"), "s3"),
    **dict.fromkeys(("gs", "gcs"), "gcs"),
    **dict.fromkeys(("abfs", "abfss", "az", "adl"), "azure"),
    **dict.fromkeys(("http", "https"), "http"),
}
_MARK_BYTES = max(map(len, _MARKS))


@dataclass(frozen=True, slots=True)
class File:
    """A file; `name` is for people, `path` is where its file system has it.

    `within` are the folders between it and what the spec names.
    """

    name: str
    filesystem: Any
    path: str
    within: tuple[str, ...] = ()

    @property
    def is_local(self) -> bool:
        """Whether it lies on this machine's own file system."""
        return isinstance(self.filesystem, LocalFileSystem)

    @property
    def ending(self) -> str:
        """The ending of its name in lower case, without that of a compression."""
        suffixes = [suffix.lower() for suffix in PurePosixPath(self.path).suffixes]
        while suffixes and suffixes[-1] in _ENDINGS:
            suffixes.pop()
        return suffixes[-1] if suffixes else ""

    @contextmanager
    def raw(self) -> Generator[Any, None, None]:
        """Open the file as it is.

        Local files are read without Python: Arrow reads ahead in threads of its own, and a thread
        that is still about to call a Python stream when the program ends would abort it.

        Nor are they closed by hand, but once nobody holds them: such a thread would go on to read
        from the file's number, and take from the file that is opened next what its reader never
        sees.
        """
        if self.is_local:
            yield pa.OSFile(self.path)
        else:
            # file systems live as long as the process, and remote ones keep listings with old sizes
            self.filesystem.invalidate_cache()
            with self.filesystem.open(self.path, "rb") as stream:
                yield stream

    def begins_with(self, mark: bytes) -> bool:
        """Whether the file begins with these bytes."""
        with self.raw() as stream:
            return bytes(stream.read(len(mark))) == mark

    @contextmanager
    def opened(self) -> Generator[Any, None, None]:
        """Open the file decompressed. Its content tells the compression, not its name."""
        with ExitStack() as stack:
            stream = stack.enter_context(self.raw())
            start = bytes(stream.read(_MARK_BYTES))
            stream.seek(0)
            codec = next((name for mark, name in _MARKS.items() if start.startswith(mark)), None)
            named = _ENDINGS.get(PurePosixPath(self.path).suffix.lower())
            if start and codec is None and named is not None:
                message = (
                    f"source: {self.name} cannot be read: it is not compressed, though its name "
                    "says so; rename it, or write it anew."
                )
                raise SourceError(message)
            if codec is not None:
                stream = pa.CompressedInputStream(stream, codec)  # not closed either, see `raw`
            yield stream

    @contextmanager
    def lines(self) -> Generator[Any, None, None]:
        """Open the file decompressed, for reading line by line; lines end at newline bytes."""
        with self.opened() as stream:
            yield io.BufferedReader(stream, _LINE_BUFFER)


def found(url: str) -> tuple[list[File], bool]:
    """Return the files that a path, a pattern or a URL names, and whether it is a folder.

    A local path comes first: a file may be named as if it were a URL, or a pattern.

    Raises:
        SourceError: there are none.
        SpecError: the path is in the home folder of nobody.
    """
    local = from_home(url, "source")
    if "://" in url and not local.exists():
        return _found_remote(url)
    filesystem = LocalFileSystem()
    if local.is_dir():
        return _sorted(filesystem, local, _walked(local), url), True
    if local.exists():
        return [File(url, filesystem, str(local.absolute()))], False
    base = Path(pattern_base(str(local)))
    # pathlib would take no absolute pattern
    matches = map(Path, glob.glob(str(local), recursive=True))  # noqa: PTH207 - see above
    if not (paths := [path for path in matches if path.is_file()]):
        raise no_such_file(url)
    return _sorted(filesystem, base, paths, str(base)), False


def _walked(folder: Path) -> list[Path]:
    """Return the files of a folder and of those in it, also where links lead to them."""
    paths: list[Path] = []
    seen: set[str] = set()
    for place, folders, names in os.walk(folder, followlinks=True):
        # a link that leads to a folder above would go on for ever
        seen.add(os.path.realpath(place))
        folders[:] = [name for name in folders if os.path.realpath(f"{place}/{name}") not in seen]
        paths += [path for name in names if (path := Path(place, name)).is_file()]
    return paths


def _sorted(filesystem: Any, base: Path, paths: list[Path], name: str) -> list[File]:
    files: list[File] = []
    for path in sorted(paths):
        inner = path.relative_to(base)
        where = str(path) if name == "." else f"{name.rstrip('/')}/{inner.as_posix()}"
        files.append(File(where, filesystem, str(path.absolute()), inner.parts[:-1]))
    return files


def _found_remote(url: str) -> tuple[list[File], bool]:
    try:
        filesystem, path = _fsspec.url_to_fs(url)
    except ImportError as error:
        if (extra := _EXTRAS.get(url.partition("://")[0])) is None:
            raise
        message = (
            f"source: {url} needs a package that is not installed; run "
            f"`pip install 'batchata-flows[{extra}]'`."
        )
        raise SourceError(message) from error
    _quiet(filesystem)
    filesystem.invalidate_cache()
    root = str(path).rstrip("/")
    if filesystem.isfile(path):
        return [File(url, filesystem, str(path))], False
    if is_folder := not glob.has_magic(root):
        if not filesystem.isdir(path):
            raise no_such_file(url)
        paths = sorted(filesystem.find(path))
    else:
        paths = sorted(path for path in filesystem.glob(path) if filesystem.isfile(path))
        if not paths:
            raise no_such_file(url)
        root = pattern_base(root)
    files: list[File] = []
    for one in paths:
        inner = PurePosixPath(one).relative_to(root).parts
        files.append(File(filesystem.unstrip_protocol(one), filesystem, one, inner[:-1]))
    return files, is_folder


def _quiet(filesystem: Any) -> None:
    """Let a client of an object store log only where somebody set up logs.

    Python shows warnings of everybody else in the terminal: gcsfs logs a traceback of each try. How
    it ended in the end is told in one sentence.
    """
    logger = logging.getLogger(type(filesystem).__module__.partition(".")[0])
    if not logger.handlers:
        logger.addHandler(logging.NullHandler())


def pattern_base(pattern: str) -> str:
    """Return the folder of a pattern: what stands before the first part with a wildcard."""
    parts = PurePosixPath(pattern).parts
    plain = next((i for i, part in enumerate(parts) if glob.has_magic(part)), len(parts))
    return str(PurePosixPath(*parts[:plain]))
