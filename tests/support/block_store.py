"""Blocks of credentials in memory: what a Prefect server keeps, without the server.

It takes the place of the module that reads them from one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from batchata_tasks.common.errors import CredentialsError

if TYPE_CHECKING:
    from batchata_tasks.emulator import Emulator

_BLOCKS = dict[tuple[str, str], dict[str, str]]()


def fields_of(provider: str, name: str) -> dict[str, str]:
    """Return what a block holds, as the real one does."""
    if (provider, name) not in _BLOCKS:
        message = f"credentials: the block {name!r} is not on the Prefect server; save it there."
        raise CredentialsError(message)
    return _BLOCKS[provider, name]


class BlockStore:
    """The blocks of a test, whose accounts are an emulator's."""

    def __init__(self, emulator: Emulator) -> None:
        self._addresses = {"anthropic": emulator.anthropic_url, "openai": emulator.openai_url}

    def save(self, name: str, key: str, **fields: str) -> None:
        """Save a block for each provider, in place of one of the same name."""
        for provider, address in self._addresses.items():
            _BLOCKS[provider, name] = {"api_key": key, "base_url": address, **fields}

    def delete(self, name: str) -> None:
        for provider in self._addresses:
            del _BLOCKS[provider, name]

    def clear(self) -> None:
        _BLOCKS.clear()
