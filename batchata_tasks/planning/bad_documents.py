"""Documents that cannot be sent: noted row by row, and told together, so that all can be mended."""

from __future__ import annotations

from typing import TYPE_CHECKING

from batchata_tasks.common.text import printable

if TYPE_CHECKING:
    from batchata_tasks.common.errors import InputError

_NAMED = 20
_CHARS = 500  # of each sentence


class BadDocuments:
    """The rows of a planning pass whose documents stop it.

    `otherwise` says what else can be done about them, besides what each sentence says.
    """

    def __init__(self, otherwise: str | None) -> None:
        self._otherwise = otherwise
        self._named = list["InputError"]()
        self._rows = 0

    def note(self, error: InputError) -> None:
        """Note what is wrong with the documents of a row."""
        self._rows += 1
        if len(self._named) < _NAMED:
            self._named.append(error)

    def refuse(self) -> None:
        """Refuse the documents that were noted, if there are any.

        Raises:
            InputError: with a sentence for each of the first rows.
        """
        if self._named:
            raise type(self._named[0])(self._text())

    def _text(self) -> str:
        sentences = [printable(str(error)) for error in self._named]
        otherwise = "" if self._otherwise is None else f"or {self._otherwise}"
        if self._rows == 1:
            return f"{sentences[0].removesuffix('.')}; {otherwise}." if otherwise else sentences[0]
        more = [f"and {self._rows - _NAMED:,} more."] if self._rows > _NAMED else []
        remedy = f"mend them, {otherwise}" if otherwise else "mend them"
        head = f"{self._rows:,} rows have a document that cannot be sent; {remedy}:"
        return "\n  ".join([head, *(one[:_CHARS] for one in sentences), *more])
