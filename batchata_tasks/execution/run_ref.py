"""What a step of a run is given, wherever it is done: the name of the run, and what to make."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from batchata_tasks.ledger import Lease
    from batchata_tasks.providers import BatchLook


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


@dataclass(frozen=True)
class PartOrder:
    """What another process is told, beside the run's name, to make a part that is to land.

    `landed_at` is in microseconds since 1970, by the clock of the process that lands it. `code` is
    the digest of the response model's code there, None if there is none.
    """

    chunk_id: str
    look: BatchLook
    landed_at: int
    code: str | None


MakesParts = Callable[[RunRef, PartOrder], dict[str, Any] | None]
"""Makes a part in another process (see `made_part.py`); None if it is to be made in this one."""
