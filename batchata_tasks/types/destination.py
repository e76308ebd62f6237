"""Where requests go that may share a batch."""

from __future__ import annotations

from typing import NamedTuple


class Destination(NamedTuple):
    """Where requests go that may share a batch."""

    provider: str
    model: str
    endpoint: str

    @property
    def key(self) -> str:
        """What prices and corrections of bounds are kept by: endpoints share both."""
        return f"{self.provider}/{self.model}"
