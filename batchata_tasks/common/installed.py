"""What is installed beside this package, found once in a process.

Looking for entry points reads a file of each installed package, of which there may be hundreds.
"""

from __future__ import annotations

from functools import cache
from importlib.metadata import EntryPoints, entry_points, version
from typing import cast


def entry_points_of(group: str) -> EntryPoints:
    """Return what installed packages name in a group."""
    return _all_entry_points().select(group=group)


@cache
def version_of(package: str) -> str:
    """Return the version of an installed package."""
    return version(package)


@cache
def _all_entry_points() -> EntryPoints:
    return cast("EntryPoints", entry_points())  # Python 3.11 has another class for all of them
