"""The providers that `batchata reconcile` asks: those with a key; what cannot be asked is noted."""

from __future__ import annotations

from typing import TYPE_CHECKING

from batchata_tasks.common.errors import CredentialsError, InputError
from batchata_tasks.providers import known_providers, provider_type

if TYPE_CHECKING:
    from batchata_tasks.common.errors import BatchataError
    from batchata_tasks.ledger import Chunk
    from batchata_tasks.operations.reconcile_report import ReconcileReport
    from batchata_tasks.providers import Adapter


class Asked:
    """The adapters by provider, and the first error of each that does not answer."""

    def __init__(self, report: ReconcileReport) -> None:
        self._report = report
        self.adapters: dict[str, Adapter] = {}
        self.errors: dict[str, BatchataError] = {}
        for name in known_providers():
            try:
                self.adapters[name] = provider_type(name)()
            except InputError as error:  # no key, or an address that cannot be right
                report.notes.append(f"{name} was not asked: {error}")

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

    def of(self, chunk: Chunk) -> Adapter:
        """Return the adapter of a chunk's provider; raise CredentialsError if it has no key."""
        if chunk.provider not in self.adapters:
            name = provider_type(chunk.provider).name
            message = f"{chunk.id} was sent to {name}, whose API key is not set; set it."
            raise CredentialsError(message)
        return self.adapters[chunk.provider]

    def failed(self, name: str, error: BatchataError) -> None:
        """Note that a provider cannot be asked; the others are."""
        if name not in self.errors:
            self.errors[name] = error
            self._report.notes.append(f"{name} could not be asked: {error}")
            self._report.unasked.append(name)
