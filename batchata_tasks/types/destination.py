"""Where requests go that may share a batch."""

from __future__ import annotations

from typing import NamedTuple


class Destination(NamedTuple):
    """Where requests go that may share a batch."""

    provider: str
    model: str
    endpoint: str
