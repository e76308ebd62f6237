"""The accounts that `batchata reconcile` asks; what cannot be asked is noted.

They are those of the keys in the environment, and those of the blocks of credentials that batches
were sent with.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from batchata_tasks.common.clock import now_us
from batchata_tasks.common.errors import CredentialsError, InputError
from batchata_tasks.execution.elsewhere import sent_with
from batchata_tasks.providers import block_of, known_providers, open_adapter, provider_type

if TYPE_CHECKING:
    from batchata_tasks.common.errors import BatchataError
    from batchata_tasks.ledger import Chunk, Ledger
    from batchata_tasks.operations.reconcile_report import ReconcileReport
    from batchata_tasks.providers import Adapter

_DAY = 86400 * 1_000_000  # microseconds


class Asked:
    """The adapters by account, and the first error of each that does not answer.

    An account is named by its provider, and by the block that its key comes from.
    """

    def __init__(self, report: ReconcileReport, ledger: Ledger, days: float) -> None:
        self._report = report
        self._ledger = ledger
        self.adapters: dict[str, Adapter] = {}
        self.errors: dict[str, BatchataError] = {}
        self._not_opened: dict[str, InputError] = {}
        self._same: dict[str, str] = {}  # names of accounts that have another name already
        scopes = ledger.scopes_since(int(now_us() - days * _DAY))
        used = {(provider, block_of(scope)) for provider, scope in scopes}
        named = sorted((name, block) for name, block in used if block is not None)
        for name in known_providers():
            by_block = [place for place in named if place[0] == name]
            self._open(name, None, is_needed=(name, None) in used or not by_block)
        for name, block in named:
            self._open(name, block)

    def _open(self, provider: str, block: str | None, *, is_needed: bool = True) -> None:
        name = _name(provider, block)
        try:
            adapter = open_adapter(provider, block=block)
        except InputError as error:  # no key, no such block, or an address that cannot be right
            self._not_opened[name] = error
            if is_needed:
                self._report.notes.append(f"{name} was not asked: {error}")
            return
        account = adapter.account(self._ledger.id)
        for other, opened in self.adapters.items():
            if opened.account(self._ledger.id) == account:
                self._same[name] = other
                adapter.close()
                return
        self.adapters[name] = adapter

    def close(self) -> None:
        """Close the connections to the providers."""
        for adapter in self.adapters.values():
            adapter.close()

    def require_any(self) -> None:
        """Raise CredentialsError if there is no provider to ask, and nothing was done without."""
        if not self.adapters and not self._report.abandoned:
            message = f"nothing was compared with the ledger: {' '.join(self._report.notes)}"
            raise CredentialsError(message)

    def require_answers(self) -> None:
        """Raise the first error if no provider answered, and nothing was done without."""
        if self.errors.keys() >= self.adapters.keys() and not self._report.abandoned:
            for error in self.errors.values():
                raise error

    def name_of(self, chunk: Chunk) -> str:
        """Return the name of the account that a chunk was sent to."""
        name = _name(chunk.provider, sent_with(self._ledger, chunk))
        return self._same.get(name, name)

    def find(self, chunk: Chunk) -> Adapter | None:
        """Return the adapter to the account of a chunk; None if that cannot be asked."""
        return self.adapters.get(self.name_of(chunk))

    def of(self, chunk: Chunk) -> Adapter:
        """Return the same; raise CredentialsError if it cannot be asked."""
        if (adapter := self.find(chunk)) is not None:
            return adapter
        name = self.name_of(chunk)
        if sent_with(self._ledger, chunk) is None:
            provider = provider_type(chunk.provider).name
            message = f"{chunk.id} was sent to {provider}, whose API key is not set; set it."
        else:
            reason = self._not_opened.get(name, "its block is not read")
            message = f"{chunk.id} was sent to {name}: {reason}"
        raise CredentialsError(message)

    def failed(self, name: str, error: BatchataError) -> None:
        """Note that an account cannot be asked; the others are."""
        if name not in self.errors:
            self.errors[name] = error
            self._report.notes.append(f"{name} could not be asked: {error}")
            self._report.unasked.append(name)


def _name(provider: str, block: str | None) -> str:
    return provider if block is None else f"{provider} (block {block!r})"
