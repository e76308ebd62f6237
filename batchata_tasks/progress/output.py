"""Writes to streams that may not know each character, and that nobody may read any more."""

from __future__ import annotations

import os
from contextlib import contextmanager, suppress
from typing import IO, TYPE_CHECKING

from batchata_tasks.common.errors import StorageError
from batchata_tasks.common.text import encodable

if TYPE_CHECKING:
    from collections.abc import Generator

    from rich.console import Console, RenderableType


def write_text(stream: IO[str] | None, text: str) -> None:
    """Write a text at once; a pipe that nobody reads any more (`| head -1`) takes it, too.

    Raises:
        OSError: the stream cannot be written, for another reason.
    """
    if stream is None or stream.closed:  # a program may have been started without it
        return
    try:
        stream.write(encodable(text, getattr(stream, "encoding", None)))
        stream.flush()
    except BrokenPipeError:
        _give_up(stream)


def _give_up(stream: IO[str]) -> None:
    """Lead a stream nowhere: what it still holds would fail again at the end of the program."""
    with suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)


def print_on(console: Console, what: RenderableType, *, wraps: bool = False) -> None:
    """Print on a console by `write_text`: rich itself ends the program if nobody reads any more.

    If it `wraps`, lines are cut into ones that fit.

    Raises:
        StorageError: the standard output cannot be written; others do not matter.
    """
    with _told(console):
        with console.capture() as captured:
            console.print(what, highlight=False, markup=False, soft_wrap=not wraps)
        write_text(console.file, captured.get())


def write_on(console: Console, text: str) -> None:
    """Write a text to a console's stream as it is; raises as `print_on`."""
    with _told(console):
        write_text(console.file, text)


@contextmanager
def _told(console: Console) -> Generator[None, None, None]:
    try:
        yield
    except OSError as error:
        if not console.stderr:
            message = f"the output cannot be written: {error.strerror}."
            raise StorageError(message) from error
