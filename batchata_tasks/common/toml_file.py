"""A TOML file of an operator, which a setting names, or which lies in the working folder."""

from __future__ import annotations

import os
import tomllib
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from batchata_tasks.common.errors import SpecError
from batchata_tasks.common.files import from_home

if TYPE_CHECKING:
    from pathlib import Path


def read_toml(
    file: str | None, default: str, variable: str, what: str
) -> tuple[Path, dict[str, Any]] | None:
    """Return the path and the tables of a file, or else of `default` in the working folder.

    None if `file` is not given and there is no default one. Numbers with a fraction are Decimals.
    `variable` is the setting that names the file, and `what` is in it.

    Raises:
        SpecError: it cannot be read, or is not TOML.
    """
    path = from_home(file or default, variable)
    # a link that leads nowhere is an error: whoever made it counts on what is there
    if not file and not os.path.lexists(path):
        return None
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        message = f"{variable}: there is no file {path}; fix or unset the variable."
        if not file:
            message = f"{path}: the link leads nowhere; fix or remove it."
        raise SpecError(message) from None
    except OSError as error:
        message = (
            f"{path}: the {what} cannot be read: {error.strerror}; "
            f"fix that, or name another file in {variable}."
        )
        raise SpecError(message) from error
    try:
        # floats as they are written, never as binary ones
        return path, tomllib.loads(content.decode(), parse_float=Decimal)
    except (ValueError, ArithmeticError, RecursionError) as error:
        message = f"{path}: not valid TOML: {error}; fix the file."
        raise SpecError(message) from error
