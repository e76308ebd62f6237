"""What names a file of a repository in all of its checkouts alike."""

from __future__ import annotations

import re
from platform import node
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

_ORIGIN = re.compile(
    r'^\s*\[remote "origin"\]\s*$(?P<keys>.*?)(?=^\s*\[|\Z)', re.MULTILINE | re.DOTALL
)
_URL = re.compile(r"^\s*url\s*=\s*(?P<url>\S+)\s*$", re.MULTILINE)
# scheme://user:password@host:port/path, or user@host:path; a user or password may be a token
_PLACE = re.compile(
    r"(?P<scheme>[a-z][a-z0-9+]*://)?(?:[^/@]*@)?(?P<host>[^/@:?#]+\.[^/@:?#]+)"
    r"(?::(?P<port>[0-9]+)(?=/))?[/:](?P<path>[^@?#]+)",
    re.IGNORECASE,
)
_USUAL_PORTS = ("22", "80", "443")


def shared_name(path: Path) -> str:
    """Return a name of a file that is the same wherever its repository was cloned to.

    That is its path in the repository with the address that the repository was cloned from; its
    whole path on this machine if there is no such address.
    """
    path = path.resolve()
    for folder in path.parents:
        if (folder / ".git").exists():
            if (origin := _origin(folder / ".git" / "config")) is not None:
                return f"{path.relative_to(folder).as_posix()} of {origin}"
            break
    return f"{path} on {node()}"


def _origin(config: Path) -> str | None:
    """Return the address of `origin` without scheme and user: that of SSH is that of HTTPS.

    None if it is no address that means the same everywhere: a path, a name of this machine alone
    (an alias), or anything that is not understood.
    """
    try:
        text = config.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):  # no clone; a work tree, whose `.git` is a file
        return None
    section = _ORIGIN.search(text)
    url = None if section is None else _URL.search(section["keys"])
    place = None if url is None else _PLACE.fullmatch(url["url"])
    if place is None or place["host"].startswith("."):
        return None
    port = place["port"]
    host = place["host"] if port is None or port in _USUAL_PORTS else f"{place['host']}:{port}"
    return f"{host}/{place['path'].strip('/').removesuffix('.git')}"
