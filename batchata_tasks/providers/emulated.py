"""Emulators: servers that say of themselves, on every answer, that their answers are made up."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass

import httpx2

from batchata_tasks.common.errors import BatchataError

# its value is another one each time that an emulator is started: what an earlier one had is gone
_SAYS = "x-batchata-emulator"
_LONGEST = 64  # characters of a value that are kept
_TIMEOUT = 5.0  # seconds for which a server is asked who it is


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

    def ask(self, client: httpx2.Client, address: str) -> bool | None:
        """Return whether an emulator answers at an address; it is asked if no answer came yet.

        No key is sent. None if the server cannot be reached.
        """
        if self.emulator is None:
            with suppress(httpx2.HTTPError, httpx2.InvalidURL, BatchataError):
                client.get(address, timeout=_TIMEOUT, follow_redirects=False)
        return None if self.emulator is None else bool(self.emulator)
