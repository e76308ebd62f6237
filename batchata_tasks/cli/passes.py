"""The passes of `batchata watch`: one, or one every minute."""

from __future__ import annotations

import time
from importlib import import_module
from typing import TYPE_CHECKING

from batchata_tasks.common.errors import BatchataError
from batchata_tasks.common.settings import Settings
from batchata_tasks.operations.watch import WatchReport, watch

if TYPE_CHECKING:
    from collections.abc import Iterator

    from batchata_tasks.operations.flow_runs import FlowRuns
    from batchata_tasks.progress.listener import Progress

_EVERY = 60.0  # seconds
# imported by name: Prefect takes seconds to import
_FLOWS = "batchata_tasks.flows.watch"


def passes(gathered: float, progress: Progress, *, once: bool) -> Iterator[WatchReport]:
    """Look at all open batches, again and again, or once; yield what each pass saw and did.

    Raises:
        BatchataError: the ledger or Prefect's server cannot be used; after the first pass that is
            told, and the next one tries again.
    """
    settings = Settings()
    flow_runs: FlowRuns = import_module(_FLOWS).flow_runs(repeated=not once)
    yield watch(settings, flow_runs, gathered=gathered, progress=progress)
    while not once:
        time.sleep(_EVERY)
        try:
            yield watch(settings, flow_runs, gathered=gathered, progress=progress)
        except BatchataError as error:
            progress.note(str(error))
