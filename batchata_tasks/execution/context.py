"""What sending and looking need of a run, and the patience with which they call."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Protocol, TypeVar

from batchata_tasks.common.errors import TransientError

if TYPE_CHECKING:
    from collections.abc import Callable

    from batchata_tasks.common.settings import Settings
    from batchata_tasks.dataset.folder import DatasetFolder
    from batchata_tasks.ledger import Lease, Ledger
    from batchata_tasks.providers import Adapter

T = TypeVar("T")


class ProviderContext(Protocol):
    """What looking for a batch needs."""

    @property
    def ledger(self) -> Ledger:
        """Where intents are written."""
        ...

    @property
    def lease(self) -> Lease:
        """The right to write for the dataset."""
        ...

    @property
    def provider(self) -> Adapter:
        """Where chunks go."""
        ...

    @property
    def settings(self) -> Settings:
        """How long to wait for what."""
        ...

    def sleep(self, seconds: float) -> None:
        """Wait; raises when the run is to stop at once."""
        ...

    def log(self, text: str) -> None:
        """Tell people what goes on."""
        ...


class SubmitContext(ProviderContext, Protocol):
    """What submitting needs of a run."""

    @property
    def folder(self) -> DatasetFolder:
        """The dataset's folder."""
        ...

    def require_lease(self) -> None:
        """Raise LeaseError unless this process is sure to hold the dataset at this moment."""
        ...

    def stop_reason(self) -> str | None:
        """Why nothing more is to be sent and open batches are to be cancelled; None while the run goes on."""
        ...

    def seconds_left(self) -> float:
        """Return the time until `stop_reason` may change by itself; infinite where nothing is set."""
        ...


def retry_transient(context: ProviderContext, call: Callable[[], T], times: int = 1) -> T:
    """Call until it goes through; TransientErrors are ridden out for `times` the set patience."""
    deadline = time.monotonic() + context.settings.patience * times
    wait = 0.5
    while True:
        try:
            return call()
        except TransientError as error:
            pause = max(error.retry_after or 0, wait)
            if time.monotonic() + pause > deadline:
                raise
            context.log(f"{error} Trying again in {pause:.1f} s.")
            context.sleep(pause)
            wait = min(wait * 2, 30.0)
