"""Packing the small files of earlier runs, and taking them out of packs again (see packs.py)."""

from __future__ import annotations

import os
import re
import time
import zipfile
from dataclasses import dataclass
from typing import TYPE_CHECKING

from batchata_tasks.common.files import durable, make_folder, storage_errors, sync_folder
from batchata_tasks.dataset.merging import full_tiers, in_groups
from batchata_tasks.dataset.packs import (
    PackedFile,
    holder,
    opened_packs,
    pack_with,
    packed_name,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping
    from pathlib import Path

    from batchata_tasks.dataset.packs import Pack

_NAME = re.compile(r"pack-([0-9]+)\.zip")
_EARLIEST, _LATEST = (1980, 1, 1, 0, 0, 0), (2107, 12, 31, 23, 59, 58)  # that a zip file can tell
_LEVEL = 1  # of compression: texts of gigabytes are packed in a minute, a fifth larger than by 6


@dataclass(frozen=True)
class Packing:
    """Changes the packs in a folder, for the process that holds the dataset.

    `gate` raises if it no longer does: a stopped process may wake up when its successor has changed
    the files since. Whatever dies half-way leaves some files in two places, and whole in both.
    """

    folder: Path
    gate: Callable[[], None]

    def pack(self, paths: Collection[Path]) -> None:
        """Put files into new packs, and delete them; then merge packs if a tier is full.

        Raises:
            StorageError: a pack is damaged, or the storage refused; nothing is lost.
        """
        with storage_errors("packing files of earlier runs"):
            make_folder(self.folder)
            for group in in_groups(paths):
                target, order = self._new_pack()
                self._write(target, ((packed_name(path), _loose(path, order)) for path in group))
                self._delete(group)
            while self._merge_full_tier():
                pass

    def unpack(self, paths: Collection[Path]) -> None:
        """Let files lie in their own folders alone.

        Raises:
            StorageError: as `pack`.
        """
        with storage_errors("unpacking files of earlier runs"):
            for path in paths:
                if not path.exists() and (pack := pack_with(path)) is not None:
                    file = pack.read(packed_name(path))
                    with durable(path, gate=self.gate) as stream:
                        stream.write(file.data)
                    os.utime(path, ns=(file.mtime_ns, file.mtime_ns))
            self._take_out(paths)

    def remove(self, paths: Collection[Path]) -> None:
        """Delete files, packed or not.

        Raises:
            StorageError: as `pack`.
        """
        with storage_errors("deleting files of earlier runs"):
            self._take_out(paths)
            self._delete(paths)

    def _take_out(self, paths: Iterable[Path]) -> None:
        """Write the packs anew that have some files, without these."""
        names = {packed_name(path) for path in paths}
        for pack in opened_packs(self.folder):
            if not names.isdisjoint(pack.files):
                self._copy(pack.path, {name: pack for name in pack.files if name not in names})

    def _merge_full_tier(self) -> bool:
        """Write the packs of a full tier into one, without files that do not count any more.

        Return whether there was any.
        """
        packs = opened_packs(self.folder)
        tiers = full_tiers({pack.path.name: pack.path.stat().st_size for pack in packs})
        if not tiers:
            return False
        merged = [pack for pack in packs if pack.path.name in tiers[0]]
        names = {name for pack in merged for name in pack.files}
        here = {name: one for name in names if (one := holder(packs, name)) in merged}
        counting = {n: one for n, one in here.items() if not (self.folder.parent / n).exists()}
        self._copy(self._new_pack()[0], counting)
        self._delete([pack.path for pack in merged])
        return True

    def _copy(self, path: Path, files: Mapping[str, Pack]) -> None:
        """Write a pack of files of others; if there are none, there is to be no pack."""
        if files:
            self._write(path, ((name, pack.read(name)) for name, pack in sorted(files.items())))
        else:
            self._delete([path])

    def _write(self, path: Path, files: Iterable[tuple[str, PackedFile]]) -> None:
        with durable(path, gate=self.gate) as stream, zipfile.ZipFile(stream, "w") as pack:
            for name, file in files:
                moment = time.gmtime(file.mtime_ns // 10**9)[:6]
                info = zipfile.ZipInfo(name, min(max(moment, _EARLIEST), _LATEST))
                info.comment = f"{file.order} {file.mtime_ns}".encode()
                pack.writestr(info, file.data, zipfile.ZIP_DEFLATED, _LEVEL)

    def _delete(self, paths: Collection[Path]) -> None:
        for path in paths:
            self.gate()
            path.unlink(missing_ok=True)
        for folder in {path.parent for path in paths if path.parent.exists()}:
            sync_folder(folder)

    def _new_pack(self) -> tuple[Path, int]:
        """Return the path of a pack that is to come, and its number, the greatest of all."""
        matches = (_NAME.fullmatch(pack.path.name) for pack in opened_packs(self.folder))
        number = 1 + max((int(match[1]) for match in matches if match), default=0)
        return self.folder / f"pack-{number:06}.zip", number


def _loose(path: Path, order: int) -> PackedFile:
    return PackedFile(path.read_bytes(), order, path.stat().st_mtime_ns)
