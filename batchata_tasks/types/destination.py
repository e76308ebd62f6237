"""Where requests are sent."""

from __future__ import annotations

from typing import NamedTuple


class Destination(NamedTuple):
    """Where requests are sent; those of one destination may share a batch."""

    provider: str
    model: str
    endpoint: str

    @property
    def key(self) -> str:
        """The name of prices and corrections of bounds, which all endpoints of a model share."""
        return f"{self.provider}/{self.model}"
