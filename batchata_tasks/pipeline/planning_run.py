"""A run in the process that plans it."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import chain
from typing import TYPE_CHECKING

from batchata_tasks.common.errors import SpecError
from batchata_tasks.execution.contexts import context_of
from batchata_tasks.execution.run_context import RunContext

if TYPE_CHECKING:
    from batchata_tasks.execution.run_ref import RunRef
    from batchata_tasks.planning.table import PreparedTable


@dataclass(frozen=True)
class Recovery:
    """The recovered chunks, in the order of sending, and the rows that each has answers for.

    `reread` are the parts of fingerprints of other response models under which these may have been
    asked for, if the dataset's answers were read by today's.
    """

    claims: dict[str, set[str]]
    reread: tuple[str, ...] = ()

    @property
    def row_ids(self) -> set[str]:
        """The rows for which nothing needs to be sent."""
        return set(chain.from_iterable(self.claims.values()))


@dataclass(frozen=True)
class Before:
    """What stood in the ledger when this start took the dataset."""

    at: int  # microseconds since 1970
    landed: frozenset[str]  # chunks of the run that was open
    sent: frozenset[str]  # its batches
    unlanded: tuple[str, ...]  # the dataset's chunks that were sent, or may have been


@dataclass
class PlanningRun(RunContext):
    """A run in the process that holds the dataset and prepared the spec: it can plan.

    Planning stays in that process: it streams the whole source, changes the dataset's files before
    anything is sent, and happens once per round, so another process would only have to prepare the
    same table again. For a Batch it could not even do that: the classes that check the answers of
    its jobs exist in the process that made the jobs alone.
    """

    table: PreparedTable = field(kw_only=True)
    recovery: Recovery | None = field(kw_only=True)
    before: Before | None = field(default=None, kw_only=True)  # how the ledger stood at its start


def planning_run(ref: RunRef) -> PlanningRun:
    """Return the run that is to be planned.

    Raises:
        SpecError: this process is not the one that holds the run's dataset.
    """
    run = context_of(ref)
    if not isinstance(run, PlanningRun):
        message = (
            "the steps `plan` and `next round` belong in the process that began the run; "
            "only chunk, submit, poll and collect can be done in another one."
        )
        raise SpecError(message)
    return run
