"""Commands that sentences name: with the spec or folder that a command was given, if one was."""

from __future__ import annotations

import re
import shlex

from batchata_tasks.common.files import is_folder

_COMMAND = re.compile(r"`batchata (\w+) SPEC\b")
_TAKE_FOLDERS = ("status", "show", "forget")


def naming(text: str, given: str | None) -> str:
    """Return a text whose commands name SPEC as it was `given`: most sentences do not know that.

    A dataset's folder is named by the commands that take one; of others nothing is known then.
    """
    if given is None:
        return text
    # else a name that begins with a dash would be an option
    name = shlex.quote(f"./{given}" if given.startswith("-") else given)
    of_folder = is_folder(given)

    def named(command: re.Match[str]) -> str:
        fits = not of_folder or command[1] in _TAKE_FOLDERS
        return f"`batchata {command[1]} {name}" if fits else command[0]

    return _COMMAND.sub(named, text)
