"""Packs: zip files of the small files that earlier runs left in `_batchata`.

Each batch leaves some files there: what was sent, what came, what landed. They are needed if
anything is lost, if a row is forgotten, or to show a request; hardly ever else. So that a thousand
nights stay in tens of files, they are packed (see packing.py). Whoever may ask for a file of an
earlier run reads it by the functions of this module.

A file that lies in its own folder counts, whatever a pack has under its name: it was written since,
or the run that packed it died before it was deleted. Of several packs the one counts into which it
was packed last. A pack appears by one rename before the files in it are deleted, and a file leaves
a pack after it lies in its folder again. So whoever reads without holding the dataset finds a file
in its folder, in a pack, or in its folder again.
"""

from __future__ import annotations

import errno
import os
import zipfile
import zlib
from contextlib import contextmanager, suppress
from fnmatch import fnmatchcase
from functools import lru_cache
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple, TypeVar

from batchata_tasks.common.errors import StorageError
from batchata_tasks.common.files import read_json, storage_errors

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator

_T = TypeVar("_T")
_TRIES = 20  # to list packs while they are merged: each further one takes a further merge


class PackedFile(NamedTuple):
    """A file in a pack."""

    data: bytes
    order: int  # of files of one name the one of the greatest number counts
    mtime_ns: int


class Pack:
    """A pack, which stays open: reading one of its files is a seek and a read."""

    def __init__(self, path: str) -> None:
        self.path = Path(path)
        with _whole(self.path):
            self._zip = zipfile.ZipFile(path)
            # (order, time) of each file: see PackedFile
            self.files = {
                info.filename: (int(order), int(mtime_ns))
                for info in self._zip.infolist()
                for order, mtime_ns in [info.comment.split()]
            }

    def read(self, name: str) -> PackedFile:
        """Return one of its files.

        Raises:
            StorageError: the pack is damaged.
        """
        with _whole(self.path):
            return PackedFile(self._zip.read(name), *self.files[name])


def open_kept(path: Path) -> BinaryIO:
    """Open a file, packed or not, to be read.

    Raises:
        FileNotFoundError: there is no such file.
        StorageError: the pack that has it is damaged.
    """
    name = packed_name(path)
    found = _find(path, lambda file: file.open("rb"), lambda pack: BytesIO(pack.read(name).data))
    if found is None:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
    return found


def kept_bytes(path: Path) -> bytes:
    """Return what is in a file, packed or not; raises as `open_kept`."""
    with open_kept(path) as stream:
        return stream.read()


def kept_json(path: Path) -> dict[str, Any] | None:
    """Return a small JSON record, packed or not; None if there is no such file.

    Raises:
        StorageError: the record, or the pack that has it, is damaged.
    """
    return read_json(path, kept_bytes)


def is_kept(path: Path) -> bool:
    """Whether there is a file, packed or not."""
    return _find(path, Path.stat, lambda pack: pack) is not None


def changed_at(path: Path) -> int:
    """Return when a file, packed or not, was last written, in nanoseconds since 1970.

    0 if there is no such file.
    """
    name = packed_name(path)
    moment = _find(path, lambda file: file.stat().st_mtime_ns, lambda pack: pack.files[name][1])
    return moment or 0


def kept_files(folder: Path, pattern: str) -> list[Path]:
    """Return the files of a folder, packed or not, whose names match a pattern; sorted."""
    found = set[Path]()
    with storage_errors(f"reading {folder}"):
        for packs in _looks(packs_of(folder)):
            names = (name.partition("/") for pack in packs for name in pack.files)
            found = {folder / name for place, _, name in names if place == folder.name}
            found = {path for path in found if fnmatchcase(path.name, pattern)}
            found |= set(folder.glob(pattern))
    return sorted(path for path in found if not path.name.startswith("."))  # it is half-written


def _find(path: Path, loose: Callable[[Path], _T], packed: Callable[[Pack], _T]) -> _T | None:
    """Return what is read of a file where it lies: in its folder, or in a pack."""
    with suppress(FileNotFoundError, NotADirectoryError):
        return loose(path)
    for packs in _looks(packs_of(path.parent)):
        if (pack := holder(packs, packed_name(path))) is not None:
            return packed(pack)
        with suppress(FileNotFoundError, NotADirectoryError):
            return loose(path)
    return None


def packs_of(folder: Path) -> Path:
    """Return the folder of the packs of a folder's files."""
    return folder.parent / "packs"


def packed_name(path: Path) -> str:
    """Return the name of a file in packs."""
    return f"{path.parent.name}/{path.name}"


def pack_with(path: Path) -> Pack | None:
    """Return the pack in which a file counts; None if no pack has it."""
    return holder(opened_packs(packs_of(path.parent)), packed_name(path))


def holder(packs: list[Pack], name: str) -> Pack | None:
    """Return that of some packs in which a file of this name counts; None if none has it."""
    having = [pack for pack in packs if name in pack.files]
    # if a merge died, two packs have a file under one number: of these the newer one
    return max(having, key=lambda pack: (pack.files[name][0], pack.path), default=None)


def opened_packs(folder: Path) -> list[Pack]:
    """Return the packs in a folder.

    Raises:
        StorageError: one is damaged, or they cannot be read.
    """
    packs = list[Pack]()
    for now in _looks(folder):
        packs = now
    return packs


def _looks(folder: Path) -> Iterator[list[Pack]]:
    """Yield the packs in a folder; again, if they have changed since.

    A file that is neither in its folder nor in the packs may have been moved between two looks.
    """
    for _ in range(_TRIES):
        with storage_errors("reading files of earlier runs"):
            try:
                listed = _listed(folder)
                packs = [_opened(*one, os.getpid()) for one in listed]
            except FileNotFoundError:
                continue  # one was merged into another since it was listed
        yield packs
        with storage_errors("reading files of earlier runs"), suppress(FileNotFoundError):
            if _listed(folder) == listed:
                return
    message = f"{folder} changes all the time: is another program at work there?"
    raise StorageError(message)


def _listed(folder: Path) -> list[tuple[str, int, int]]:
    """Return path, inode and time of each pack: whatever differs is another file."""
    try:
        files = os.scandir(folder)
    except (FileNotFoundError, NotADirectoryError):
        return []
    with files:
        stats = [(file.path, file.stat()) for file in files if file.name.endswith(".zip")]
    return sorted((path, stat.st_ino, stat.st_mtime_ns) for path, stat in stats)


@lru_cache(maxsize=64)
def _opened(path: str, _inode: int, _mtime_ns: int, _process: int) -> Pack:
    return Pack(path)  # a forked process that went on with it would move the place where this reads


@contextmanager
def _whole(path: Path) -> Generator[None, None, None]:
    """Raise a StorageError with the remedy if a pack is damaged."""
    try:
        yield
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, ValueError) as error:
        message = f"{path} is damaged ({error}); restore it from a copy."
        raise StorageError(message) from error
