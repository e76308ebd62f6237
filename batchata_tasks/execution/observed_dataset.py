"""A dataset that another process holds, only to look at a run of it."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from batchata_tasks.common.errors import LeaseError
from batchata_tasks.execution.held_dataset import HeldDataset
from batchata_tasks.execution.run_context import RunContext, stored_spec
from batchata_tasks.ledger import Lease
from batchata_tasks.progress.listener import silent
from batchata_tasks.schema.answers import AnswerSchemas

if TYPE_CHECKING:
    from batchata_tasks.common.settings import Settings
    from batchata_tasks.dataset.folder import DatasetFolder
    from batchata_tasks.ledger import Ledger, RunRow


@dataclass
class ObservedDataset(HeldDataset):
    """A dataset that this process does not hold, and so may neither send for nor change."""

    def require_own(self) -> None:
        """See HeldDataset."""
        self.require_lease()

    def require_lease(self) -> None:
        """See HeldDataset."""
        message = "this process only looks at the run of another one."
        raise LeaseError(message)

    def raise_if_left(self) -> None:
        """See HeldDataset."""

    def sleep(self, seconds: float) -> None:
        """See HeldDataset."""
        time.sleep(seconds)


def observe(ledger: Ledger, folder: DatasetFolder, run: RunRow, settings: Settings) -> RunContext:
    """Return the context of a run that another process works on; nothing can be done with it."""
    lease = Lease(run.dataset_id, 0, "")
    held = ObservedDataset(folder, ledger, lease, settings, silent())
    spec = stored_spec(json.loads(run.spec))
    return RunContext(held, run.id, spec, AnswerSchemas(None), continued=True, sends=False)
