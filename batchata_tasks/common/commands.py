"""Commands that sentences name: with the spec or folder that a command was given, if one was."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

_COMMAND = re.compile(r"`batchata (\w+)[^`]*`")
_TAKE_FOLDERS = ("status", "show", "forget")


def naming(text: str, given: str | None) -> str:
    """Return a text whose commands name SPEC as it was `given`: most sentences do not know that.

    A dataset's folder is named by the commands that take one; of others nothing is known then.
    """
    if given is None:
        return text
    name, is_folder = shlex.quote(given), Path(given).is_dir()

    def named(command: re.Match[str]) -> str:
        fits = not is_folder or command[1] in _TAKE_FOLDERS
        return command[0].replace(" SPEC", f" {name}") if fits else command[0]

    return _COMMAND.sub(named, text)
