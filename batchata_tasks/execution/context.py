"""The part of a run that sending and looking for batches need, and retries of their calls."""

from __future__ import annotations

import math
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

FIRST_PAUSE = 0.5  # seconds before a call that failed in passing is tried again; then longer


class ProviderContext(Protocol):
    """What looking for a batch needs of a run."""

    @property
    def ledger(self) -> Ledger:
        """The ledger, in which intents are written."""
        ...

    @property
    def lease(self) -> Lease:
        """The lease on the dataset."""
        ...

    @property
    def provider(self) -> Adapter:
        """The adapter to the provider that the chunk goes to."""
        ...

    @property
    def settings(self) -> Settings:
        """The settings."""
        ...

    def sleep(self, seconds: float) -> None:
        """Wait; raises when the run is to stop at once."""
        ...

    def log(self, text: str) -> None:
        """Report what goes on."""
        ...

    def seconds_left(self) -> float:
        """Return the seconds until the run may have to stop by itself, or infinity."""
        ...


class SubmitContext(ProviderContext, Protocol):
    """What submitting needs of a run."""

    @property
    def folder(self) -> DatasetFolder:
        """The dataset's folder."""
        ...

    @property
    def rehearsal(self) -> bool:
        """Whether an emulator answers the run."""
        ...

    def require_lease(self) -> None:
        """Raise LeaseError unless it is sure at this moment that the run holds the dataset."""
        ...

    def raise_if_left(self) -> None:
        """Raise InterruptedRunError if the run is to end at once; LeaseError without its lease."""
        ...

    def stop_reason(self) -> str | None:
        """Return why the run sends nothing more, or None; most reasons cancel open batches."""
        ...


def retry_transient(
    context: ProviderContext, call: Callable[[], T], times: int = 1, longest: float = math.inf
) -> T:
    """Repeat a call after TransientErrors, for `times` the seconds of `BATCHATA_PATIENCE`.

    It is not repeated beyond `longest` seconds. A wait that the provider asks for ends early at the
    run's time limit, when what the call is for may not be wanted any more.
    """
    deadline = time.monotonic() + min(context.settings.patience * times, longest)
    wait = FIRST_PAUSE
    while True:
        try:
            return call()
        except TransientError as error:
            pause = max(error.retry_after or 0, wait)
            if time.monotonic() + pause > deadline:
                if pause > wait:
                    context.log(f"{error} A wait of {pause:,.0f} s was asked for: not waited for.")
                raise
            pause = min(pause, max(context.seconds_left(), wait))
            context.log(f"{error} Trying again in {pause:.1f} s.")
            context.sleep(pause)
            wait = min(wait * 2, 30.0)
