"""Rows that were forgotten: ledger and commits name their requests, and no text of them.

A person wanted it, or they left the source and `on_missing: delete` says so.
So they stay away if results are downloaded once more, or a part is written anew.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from batchata_tasks.common.files import durable, storage_errors
from batchata_tasks.dataset.packs import kept_json
from batchata_tasks.types.ids import custom_ids_in

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from batchata_tasks.dataset.folder import DatasetFolder
    from batchata_tasks.ledger import Ledger

FORGOTTEN = "forgotten"  # of a commit: the custom_ids
_NO_MORE = (b"]}", b"]\n")  # how the last line of a file that is one JSON value begins


def forgotten_of(commit: Mapping[str, Any]) -> list[str]:
    """Return the custom_ids of a chunk's rows that were forgotten, as its commit tells."""
    return list(commit.get(FORGOTTEN, ()))


def forgotten_names(folder: DatasetFolder, ledger: Ledger, chunk_id: str) -> list[str]:
    """Return the custom_ids of a chunk's rows that were forgotten.

    Either of the two may be lost, or come from a backup.
    """
    noted = forgotten_of(kept_json(folder.commit(chunk_id)) or {})
    return sorted(ledger.forgotten(chunk_id).union(noted))


def drop_forgotten(
    folder: DatasetFolder, ledger: Ledger, chunk_id: str, paths: Iterable[Path]
) -> None:
    """Take the answers of forgotten rows out of results that were downloaded once more."""
    if names := forgotten_names(folder, ledger, chunk_id):
        for path in paths:
            without_lines(path, names)


def without_lines(path: Path, names: Iterable[str]) -> bool:
    """Write a file anew without the lines of some requests; return whether it had any."""
    gone = set(names)
    with storage_errors(f"reading {path.name}"), path.open("rb") as lines:
        if not any(_is_of(line, gone) for line in lines):
            return False
        lines.seek(0)
        times = os.fstat(lines.fileno())
        with durable(path) as stream:
            before = b""
            for line in lines:
                if _is_of(line, gone):
                    continue
                if line.startswith(_NO_MORE):  # the line before is the last of a list
                    before = before.removesuffix(b",\n").removesuffix(b"\n") + b"\n"
                stream.write(before)
                before = line
            stream.write(before)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))  # by which `retention` goes
    return True


def _is_of(line: bytes, names: set[str]) -> bool:
    return not names.isdisjoint(custom_ids_in(line))
