"""What is installed beside this package, found once in a process.

Looking for entry points reads a file of each installed package, of which there may be hundreds.
"""

from __future__ import annotations

import site
import sysconfig
from functools import cache
from importlib.metadata import EntryPoints, entry_points, version
from pathlib import Path
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from types import ModuleType

_PLACES = [
    Path(folder)
    for folder in (
        *map(sysconfig.get_path, ("stdlib", "platstdlib", "purelib", "platlib")),
        *(*site.getsitepackages(), site.getusersitepackages()),
    )
]


def entry_points_of(group: str) -> EntryPoints:
    """Return what installed packages name in a group."""
    return _all_entry_points().select(group=group)


@cache
def version_of(package: str) -> str:
    """Return the version of an installed package."""
    return version(package)


def is_installed(module: ModuleType) -> bool:
    """Whether a module is of Python or of an installed package, and not of the user's own files."""
    place = place_of(module)
    return place is None or any(place.is_relative_to(installed) for installed in _PLACES)


def place_of(module: ModuleType) -> Path | None:
    """Return the file of a module, or the folder of a package that has none; None if built in."""
    place = getattr(module, "__file__", None) or next(iter(getattr(module, "__path__", ())), None)
    return None if place is None else Path(place)


@cache
def _all_entry_points() -> EntryPoints:
    return cast("EntryPoints", entry_points())  # Python 3.11 has another class for all of them
