"""The adapters that a run has made: their connections are closed once no call uses them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from batchata_tasks.providers import Adapter


@dataclass
class OpenAdapters:
    """Adapters in use. If calls were `left` under way, they stay open.

    A run that is left does not wait for an answer that may never come; to close the connection of a
    create would put it in doubt.
    """

    adapters: list[Adapter] = field(default_factory=list["Adapter"])
    left: bool = False

    def add(self, adapter: Adapter) -> Adapter:
        """Close this adapter with the others; return it."""
        self.adapters.append(adapter)
        return adapter

    def close(self) -> None:
        """Close all, unless calls were left under way."""
        if not self.left:
            for adapter in self.adapters:
                adapter.close()
