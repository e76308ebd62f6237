"""Durable files: written aside, synced, renamed; small JSON records."""

from __future__ import annotations

import errno
import json
import os
import secrets
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, cast

from batchata_tasks.common.errors import SpecError, StorageError

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Mapping

# of file systems without locks: some network mounts, and those that show a bucket as a folder
_NO_LOCKS = (errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK, errno.ENOSYS, errno.EINVAL)


@contextmanager
def storage_errors(what: str) -> Generator[None, None, None]:
    """Turn a refused read or write (full disk, rights) into one sentence."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        place = f" {error.filename}" if error.filename else ""
        message = (
            f"{what}: the storage refused{place}: {reason}. "
            "Nothing is lost: fix that and start again."
        )
        raise StorageError(message) from error


def from_home(text: str, label: str) -> Path:
    """Return a path with the home folder for its `~`; `label` names the setting.

    Raises:
        SpecError: there is no such user, or no home folder; or no path is written so.
    """
    if "\0" in text:
        message = f"{label}: {text!r} has a NUL character, which no path has; remove it."
        raise SpecError(message)
    try:
        return Path(text).expanduser()
    except RuntimeError:
        message = f"{label}: {text} is in the home folder of nobody; write the whole path."
        raise SpecError(message) from None


def is_file(path: str | Path) -> bool:
    """Whether there is such a file that may be looked at; False also of what can be no path."""
    # Path.is_file raises for a name that is too long, and in a folder without rights
    return os.path.isfile(path)  # noqa: PTH113 - see above


def is_folder(path: str | Path) -> bool:
    """Whether there is such a folder, likewise."""
    return os.path.isdir(path)  # noqa: PTH112 - see above


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable: a file's own fsync does not cover its name."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def locked(path: Path, pause: Callable[[float], None]) -> Generator[bool, None, None]:
    """Hold a file's lock, which one process has at a time; a death releases it.

    While another one has it, `pause` is called with the seconds to wait, and may raise to give up.
    Yields whether it is held: False if the file system has no locks.
    """
    with storage_errors("locking"):
        stream = path.open("ab")
    with stream:
        seconds = 0.01
        while (held := _try_lock(stream)) is None:
            pause(seconds)
            seconds = min(seconds * 1.5, 0.5)
        yield held


def _try_lock(stream: BinaryIO) -> bool | None:
    """Lock a file; return None if another process has it, False if it cannot be locked at all."""
    try:
        import fcntl  # noqa: PLC0415 - Windows has none
    except ModuleNotFoundError:
        return False
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return None
    except OSError as error:
        if error.errno in _NO_LOCKS:
            return False
        with storage_errors("locking"):
            raise
    return True


def make_folder(folder: Path) -> None:
    """Make a folder and those above it, with durable names."""
    new = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for path in reversed(new):
        sync_folder(path.parent)


@contextmanager
def written_aside(
    path: Path, aside_in: Path | None = None
) -> Generator[tuple[Path, BinaryIO], None, None]:
    """Write a file that is to be `path`, under another name, and fsync it; `put_in_place` ends it.

    It goes if the block raises. `aside_in` is its folder, if `path`'s own must hold nothing else.
    """
    # a unique name: a stopped run that wakes up must not write into its successor's file
    aside = (aside_in or path.parent) / f".{path.name}.{secrets.token_hex(4)}.tmp"
    with (
        storage_errors(f"writing {path.name}"),
        gone_if_failed(aside),
        aside.open("wb") as stream,
    ):
        yield aside, stream
        stream.flush()
        os.fsync(stream.fileno())


def put_in_place(aside: Path, path: Path, gate: Callable[[], None] | None = None) -> None:
    """Rename a file that was written aside to `path`, and fsync the folder.

    `gate` is called right before the rename, and raises to stop it.
    """
    with storage_errors(f"writing {path.name}"):
        if gate is not None:
            gate()
        aside.replace(path)
        sync_folder(path.parent)


@contextmanager
def gone_if_failed(aside: Path) -> Generator[None, None, None]:
    """Delete an unfinished file if the block raises."""
    try:
        yield
    except BaseException:
        with suppress(OSError):  # what stopped it is what is told
            aside.unlink(missing_ok=True)
        raise


@contextmanager
def durable(
    path: Path, aside_in: Path | None = None, gate: Callable[[], None] | None = None
) -> Generator[BinaryIO, None, None]:
    """Write a file aside, then fsync it, rename it to `path` and fsync the folder.

    `path` never exists half-written, not even after a crash. `aside_in` and `gate` are as above.
    """
    with written_aside(path, aside_in) as (aside, stream):
        yield stream
    with gone_if_failed(aside):
        put_in_place(aside, path, gate)


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write a small JSON record durably."""
    with durable(path) as stream:
        stream.write(json.dumps(value, indent=1, sort_keys=True).encode() + b"\n")


def read_json(path: Path, read: Callable[[Path], bytes] = Path.read_bytes) -> dict[str, Any] | None:
    """Return a small JSON record, or None if there is no such file.

    `read` returns what is in the file, and raises as `Path.read_bytes` does.
    """
    try:
        with storage_errors(f"reading {path.name}"):
            record = json.loads(read(path))
    except StorageError as error:
        if isinstance(error.__cause__, FileNotFoundError | NotADirectoryError):
            return None
        raise
    except ValueError as error:
        message = f"{path} is damaged: it is not valid JSON. Restore it from a copy."
        raise StorageError(message) from error
    if not isinstance(record, dict):
        message = f"{path} is damaged: it is not a JSON object. Restore it from a copy."
        raise StorageError(message)
    return cast("dict[str, Any]", record)
