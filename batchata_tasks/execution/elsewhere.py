"""What is to be set again to see a batch that was sent under another account than the present one.

It is told from the ledger alone: no look under the present key and settings shows such a batch.
"""

from __future__ import annotations

from contextlib import ExitStack, closing
from typing import TYPE_CHECKING

from batchata_tasks.common.errors import InputError
from batchata_tasks.providers import (
    block_of,
    describe_change,
    is_other_scope,
    names_of_account,
    open_adapter,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from batchata_tasks.ledger import Chunk, Ledger
    from batchata_tasks.providers import Adapter


def what_to_set(adapter: Adapter, ledger: Ledger, chunk: Chunk) -> str | None:
    """Return what is to be set again to see the batch of a chunk that was sent, as a clause.

    None if it was sent under the present key and settings.
    """
    account, scope = _sent_under(ledger, chunk)
    if account in names_of_account(adapter, ledger.id) and not is_other_scope(
        adapter, ledger.id, scope
    ):
        return None
    return describe_change(adapter, ledger.id, scope)


def what_environment_lacks(ledger: Ledger, chunks: Iterable[Chunk]) -> str | None:
    """Return the same for the first of some chunks that cannot be seen with its own credentials.

    The key may be missing from the environment, or the block from the Prefect server.
    """
    with ExitStack() as stack:
        adapters = dict[tuple[str, str | None], "Adapter"]()
        for chunk in chunks:
            place = chunk.provider, sent_with(ledger, chunk)
            try:
                if place not in adapters:
                    adapter = open_adapter(chunk.provider, block=place[1])
                    adapters[place] = stack.enter_context(closing(adapter))
            except InputError as error:  # no key, or an address that cannot be right
                return str(error).removesuffix(".")
            if (text := what_to_set(adapters[place], ledger, chunk)) is not None:
                return text
    return None


def sent_with(ledger: Ledger, chunk: Chunk) -> str | None:
    """Return the block of credentials that a chunk was sent with; None: the environment's."""
    return block_of(_sent_under(ledger, chunk)[1])


def _sent_under(ledger: Ledger, chunk: Chunk) -> tuple[str | None, str | None]:
    """Return the account that a chunk was sent to, and the settings that select it."""
    if chunk.batch_id is not None:
        return ledger.sent_under(chunk.batch_id)
    intent = ledger.intent(chunk.id)  # nobody knows whether it was accepted
    return intent.account, intent.scope
