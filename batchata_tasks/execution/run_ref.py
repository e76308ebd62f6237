"""What a step of a run is given: the name of the run, wherever the step is done."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from batchata_tasks.ledger import Lease


@dataclass(frozen=True)
class RunRef:
    """Names a run: which ledger, which run, which dataset, under which lease.

    A workflow engine carries it between processes and shows it to people, so it can be pickled and
    holds neither a password nor a key: a process that is given one takes those from its own
    environment (see `contexts.py`).
    """

    ledger_id: str
    ledger_place: str  # for people: a file, or host, port and name
    run_id: str
    output: str  # the dataset's folder
    lease: Lease  # a process that took over the run has another one
    sends: bool  # False: only what an earlier run sent is landed
