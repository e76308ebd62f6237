"""`batchata status --follow`: an open run, watched from another process, until it ends.

All comes from the ledger, and nothing is written there: whoever looks on disturbs nothing.
"""

from __future__ import annotations

import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from batchata_tasks.common.errors import LedgerError
from batchata_tasks.dataset.folder import DatasetFolder
from batchata_tasks.execution.held_dataset import find_dataset, require_owner
from batchata_tasks.execution.observed_dataset import observe
from batchata_tasks.execution.snapshot import snapshot
from batchata_tasks.ledger import ChunkState, RunPhase, ledger_exists, opened_ledger
from batchata_tasks.pipeline.receipt import EXIT_CODES
from batchata_tasks.reports.status import describe

if TYPE_CHECKING:
    from collections.abc import Generator

    from batchata_tasks.common.settings import Settings
    from batchata_tasks.execution.run_context import RunContext
    from batchata_tasks.ledger import Ledger, RunRow
    from batchata_tasks.progress.listener import Progress
    from batchata_tasks.progress.snapshot import Snapshot
    from batchata_tasks.reports.shown_dataset import ShownDataset

_PAUSE = 0.5  # seconds between two looks at the ledger
_WORDS: dict[str, str] = {
    ChunkState.UNCLEAR: "sending",
    ChunkState.SUBMITTED: "at the provider",
    ChunkState.COLLECTED: "landing",
    ChunkState.LANDED: "landed",
    ChunkState.HELD: "held",
    ChunkState.OVERDUE: "overdue",
    ChunkState.ABANDONED: "given up",
}
_STOPPED = 1


@dataclass(frozen=True)
class Followed:
    """What became of a run that was followed: as `status` has it; None if none was open."""

    name: str
    run: dict[str, Any] | None = None
    ended: bool = False  # by itself; else its process is gone, or was before

    @property
    def exit_code(self) -> int:
        """The exit code of the run; 0 if none was open, 1 if its process ended before it."""
        if self.run is None:
            return 0
        return EXIT_CODES.get(self.run["result"], _STOPPED) if self.ended else _STOPPED

    def text(self) -> str | None:
        """Return a sentence if there is no end of a run to tell."""
        if self.run is None:
            return f"No run of {self.name} is open."
        if not self.ended:
            return (
                f"No process is at work on the open run of {self.name}: start it again, and it "
                "carries on."
            )
        return None


class _Run:
    """A run to look at; see RunHandle. It can be neither stopped nor left from here."""

    def __init__(self, context: RunContext) -> None:
        self._context = context

    def snapshot(self) -> Snapshot:
        """Return where it stands."""
        return snapshot(self._context)

    def request_stop(self, reason: str) -> None:
        """Do nothing."""
        del reason

    def abandon(self) -> None:
        """Do nothing."""

    def give_back(self) -> None:
        """Do nothing."""


def follow(spec: ShownDataset, settings: Settings, progress: Progress) -> Followed:
    """Show the open run of a dataset until it ends.

    Raises:
        WrongLedgerError: another ledger owns the dataset.
    """
    if not ledger_exists(settings.ledger_url):
        return Followed(spec.name)
    with opened_ledger(settings.ledger_url, read_only=True) as ledger:
        folder = DatasetFolder(spec.output)
        require_owner(folder, ledger)
        dataset_id = find_dataset(folder, ledger)
        row = None if dataset_id is None else ledger.open_run(dataset_id)
        if row is None:
            return Followed(spec.name)
        with _shown(observe(ledger, folder, row, settings), progress) as context:
            ended = _watch(context, row, progress)
        return Followed(spec.name, describe(ledger, ledger.run(row.id)), ended)


@contextmanager
def _shown(context: RunContext, progress: Progress) -> Generator[RunContext, None, None]:
    progress.follow(_Run(context))
    try:
        yield context
    finally:
        progress.follow(None)


def _watch(context: RunContext, row: RunRow, progress: Progress) -> bool:
    """Report what changes until the run ends; return whether it did by itself."""
    told, is_planned = dict[str, str](), False
    while True:
        # before the looks: a process that has gone meanwhile has left all there is to see
        goes_on = _goes_on(context.ledger, row)
        try:
            now = context.ledger.run(row.id)
            if not is_planned and now.plan is not None:
                plan, is_planned = context.plan(), True
                progress.planned(plan.requests, plan.batches, plan.up_to_date)
            _report(context, told, progress)
        except LedgerError:  # a busy database; the next look may be luckier
            time.sleep(_PAUSE)
            continue
        if now.state == RunPhase.CLOSED or not goes_on:
            # a run that stopped for somebody to look stays open, with its result
            return now.state == RunPhase.CLOSED or now.result is not None
        time.sleep(_PAUSE)


def _goes_on(ledger: Ledger, row: RunRow) -> bool:
    """Whether a process is at work on the run, or a flow run comes back to it, being suspended."""
    try:
        if ledger.is_held(row.dataset_id):
            return True
        return ledger.left_by(row.dataset_id) is not None and ledger.run(row.id).result is None
    except LedgerError:
        return True


def _report(context: RunContext, told: dict[str, str], progress: Progress) -> None:
    """Report the batches whose state is another one than was told."""
    numbers = context.state.batch_numbers
    chunks = context.ledger.batch_chunks(context.run_id)
    for chunk in chunks:
        word = _WORDS.get(chunk.state)
        if word is None or told.get(chunk.id) == word:
            continue
        told[chunk.id] = word
        number = numbers.setdefault(chunk.id, len(numbers) + 1)
        progress.chunk(number, chunk.stop - chunk.start, word)
