"""What is to be set again to see a batch that was sent under another account than the present one.

It is told from the ledger alone: no look under the present key and settings shows such a batch.
"""

from __future__ import annotations

from contextlib import ExitStack, closing
from typing import TYPE_CHECKING

from batchata_tasks.common.errors import InputError
from batchata_tasks.providers import (
    describe_change,
    is_other_scope,
    names_of_account,
    provider_type,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from batchata_tasks.ledger import Chunk, Ledger
    from batchata_tasks.providers import Adapter


def what_to_set(adapter: Adapter, ledger: Ledger, chunk: Chunk) -> str | None:
    """Return what is to be set again to see the batch of a chunk that was sent, as a clause.

    None if it was sent under the present key and settings.
    """
    if chunk.batch_id is not None:
        account, scope = ledger.sent_under(chunk.batch_id)
    else:  # nobody knows whether it was accepted
        intent = ledger.intent(chunk.id)
        account, scope = intent.account, intent.scope
    if account in names_of_account(adapter, ledger.id) and not is_other_scope(
        adapter, ledger.id, scope
    ):
        return None
    return describe_change(adapter, ledger.id, scope)


def what_environment_lacks(ledger: Ledger, chunks: Iterable[Chunk]) -> str | None:
    """Return the same for the first of some chunks that the environment does not let see.

    Its key may be missing.
    """
    with ExitStack() as stack:
        adapters = dict[str, "Adapter"]()
        for chunk in chunks:
            try:
                if chunk.provider not in adapters:
                    adapter = provider_type(chunk.provider)()
                    adapters[chunk.provider] = stack.enter_context(closing(adapter))
            except InputError as error:  # no key, or an address that cannot be right
                return str(error).removesuffix(".")
            if (text := what_to_set(adapters[chunk.provider], ledger, chunk)) is not None:
                return text
    return None
