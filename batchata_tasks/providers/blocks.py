"""Blocks of credentials: read from a Prefect server when a spec names one, and not before."""

from __future__ import annotations

from contextlib import contextmanager
from contextvars import ContextVar
from importlib import import_module
from typing import TYPE_CHECKING

from batchata_tasks.common.errors import SpecError
from batchata_tasks.providers.credentials import FIELDS, Credentials
from batchata_tasks.providers.keys import mask_value

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping

# imported by name: Prefect takes seconds to import, and is a layer above
_BLOCKS = "batchata_tasks.flows.credentials"
_are_read = ContextVar("are_read", default=True)


def credentials_of(provider: str, block: str) -> Credentials:
    """Return what a block holds, as the Prefect server has it now.

    Raises:
        SpecError: there are no blocks for this provider.
        CredentialsError: there is no such block, or it cannot be read.
    """
    if (fields := FIELDS.get(provider)) is None:
        message = (
            f"credentials: there are blocks for {' and '.join(FIELDS)}, and none for {provider}, "
            "whose key is read from the environment; remove it."
        )
        raise SpecError(message)
    if not _are_read.get():
        return Credentials(block)
    read: Mapping[str, str | None] = import_module(_BLOCKS).fields_of(provider, block)
    mask_value(read.get("api_key"))
    return Credentials(block, {fields[name]: value for name, value in read.items() if value})


@contextmanager
def blocks_unread() -> Generator[None, None, None]:
    """Let blocks count as empty: for what asks no provider, which needs no server of Prefect."""
    token = _are_read.set(False)
    try:
        yield
    finally:
        _are_read.reset(token)
