"""Emulators: servers that say of themselves, on every answer, that their answers are made up."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import httpx2

# its value is another one each time that an emulator is started: what an earlier one had is gone
_SAYS = "x-batchata-emulator"
_LONGEST = 64  # characters of a value that are kept


@dataclass(slots=True)
class Answering:
    """Who answers at an address, as far as its answers have told.

    `emulator` is the id of the emulator that answers there, empty if none does, None as long as
    there was no answer.
    """

    emulator: str | None = None

    def note(self, response: httpx2.Response) -> None:
        """Response hook of an SDK's HTTP client: note what an answer says."""
        self.emulator = response.headers.get(_SAYS, "")[:_LONGEST]
