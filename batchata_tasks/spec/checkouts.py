"""What names a file of a repository in all of its checkouts alike."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

_ORIGIN = re.compile(
    r'^\s*\[remote "origin"\]\s*$(?P<keys>.*?)(?=^\s*\[|\Z)', re.MULTILINE | re.DOTALL
)
_URL = re.compile(r"^\s*url\s*=\s*(?P<url>\S+)\s*$", re.MULTILINE)
# without scheme, user and password (which may be a token), and without what follows the path
_PLACE = re.compile(r"(?:[a-z][a-z0-9+.-]*://)?(?:[^/]*@)?(?P<place>[^?#]+)", re.IGNORECASE)


def shared_name(path: Path) -> str:
    """Return a name of a file that is the same wherever its repository was cloned to.

    That is its path in the repository with the address that the repository was cloned from; its
    whole path if there is no such address.
    """
    path = path.resolve()
    for folder in path.parents:
        if (folder / ".git").exists():
            if (origin := _origin(folder / ".git" / "config")) is not None:
                return f"{path.relative_to(folder).as_posix()} of {origin}"
            break
    return str(path)


def _origin(config: Path) -> str | None:
    """Return the address of `origin` without scheme and user: that of SSH is that of HTTPS."""
    try:
        text = config.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):  # no clone; a work tree, whose `.git` is a file
        return None
    section = _ORIGIN.search(text)
    url = None if section is None else _URL.search(section["keys"])
    place = None if url is None else _PLACE.fullmatch(url["url"].partition("?")[0])
    if place is None or "@" in place["place"] or place["place"].startswith("."):
        return None  # what is not understood is not shown; a relative path means another folder
    address = re.sub(r":([0-9]+/)?", "/", place["place"], count=1)
    return address.rstrip("/").removesuffix(".git")
