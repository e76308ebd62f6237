"""An open run whose batches are at the provider, and when it is time to go on with it."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

from batchata_tasks.common.clock import now_us
from batchata_tasks.common.errors import BatchataError, InputError
from batchata_tasks.common.text import duration, pluralize
from batchata_tasks.dataset.folder import DatasetFolder
from batchata_tasks.execution.contexts import answers_of
from batchata_tasks.execution.guard import waits_for_others
from batchata_tasks.execution.observed_dataset import observe
from batchata_tasks.execution.overdue import Wait
from batchata_tasks.ledger import SENDING_ENDS, ChunkKind, ChunkState, RunPhase
from batchata_tasks.operations.looks import Looks

if TYPE_CHECKING:
    from batchata_tasks.common.settings import Settings
    from batchata_tasks.execution.run_context import RunContext
    from batchata_tasks.ledger import AwaitedBatch, Chunk, Ledger, OpenWork, RunRow
    from batchata_tasks.schema.answers import AnswerSchemas


@dataclass
class WatchedRun:
    """A run of the ledger that waits for batches: `ended` tells when each was seen to have ended.

    That is in microseconds since 1970. `waits` are for those that have not; of them the provider
    does not know `unknown`, and this process has no key for the account of `unseen`.
    It `has_news` if a batch is not as it was seen last. `queued` says that it waits for room in a
    provider's queue, and `has_room` that there is some. It waits for money of its budget if it
    `lacks_money`: what is unsent cannot be paid for before other runs give money back.
    """

    context: RunContext
    ended: list[int] = field(default_factory=list[int])
    waits: list[Wait] = field(default_factory=list[Wait])
    unknown: int = 0
    unseen: int = 0
    has_news: bool = False
    queued: bool = False
    has_room: bool = False

    @property
    def is_idle(self) -> bool:
        """Whether none of its batches is open."""
        return not self.waits and not self.ended

    @cached_property
    def lacks_money(self) -> bool:
        """See the class."""
        context = self.context
        return self.is_idle and waits_for_others(
            context.ledger,
            self.unsent,
            context.limits,
            context.plan().requests,
            context.columns_of,
        )

    @cached_property
    def unsent(self) -> list[Chunk]:
        """Its chunks that are not sent, in order."""
        chunks = self.context.ledger.chunks(self.id, (ChunkState.PLANNED,))
        return [chunk for chunk in chunks if chunk.kind == ChunkKind.BATCH]

    @property
    def id(self) -> str:
        """Its id in the ledger."""
        return self.context.run_id

    @property
    def name(self) -> str:
        """The name of its spec."""
        return self.context.spec.name

    def why_due(self, gathered: float) -> str | None:
        """Return why it is time to go on with the run; None if there is nothing to do yet.

        Ended batches wait `gathered` seconds for others, unless they make room for what is unsent.
        """
        stop = self.context.stop_reason()  # a time limit that is over counts from here on
        cancels = stop not in (None, *SENDING_ENDS)
        if self.is_idle:
            return f"it is to stop ({_worded(stop)})" if cancels else None
        if not self.waits:
            return f"{_batches(len(self.ended))} ended"
        if any(wait.left() <= 0 for wait in self.waits):
            return "a batch did not end in time"
        if self.unknown:
            return f"the provider does not know {_batches(self.unknown)}"
        if cancels and not all(wait.cancel_asked for wait in self.waits):
            return f"it is to stop ({_worded(stop)})"
        return self._some_ended(stop, gathered) if self.ended else None

    def _some_ended(self, stop: str | None, gathered: float) -> str | None:
        ended = f"{_batches(len(self.ended))} of {len(self.ended) + len(self.waits)} ended"
        if stop is None and self.context.ledger.chunks(self.id, (ChunkState.PLANNED,)):
            return f"{ended}, which makes room for the next"
        waited = (now_us() - min(self.ended)) / 1e6
        return f"{ended}, {duration(waited)} ago" if waited >= gathered else None

    def answers(self, settings: Settings) -> AnswerSchemas | None:
        """Return what checks the run's answers; None if this process lacks the spec's own code."""
        stored = json.loads(self.context.begun.spec)
        try:
            return answers_of(stored, self.context.spec, settings)
        except InputError:
            return None


def _worded(stop: str | None) -> str:
    return str(stop).replace("_", " ")


def _batches(number: int) -> str:
    return pluralize(number, "batch", "batches")


def watched_runs(
    ledger: Ledger, settings: Settings, work: OpenWork, looks: Looks
) -> list[WatchedRun]:
    """Return the runs that wait for batches, for room, or to be ended; record how batches are.

    Runs of datasets whose folder is not there, or another ledger's, are left out; and so are those
    whose files cannot be read, of which a note tells.
    """
    batches = dict[str, list["AwaitedBatch"]]()
    for batch in work.batches:
        batches.setdefault(batch.chunk.run_id, []).append(batch)

    def read(run_id: str) -> WatchedRun | None:
        row = ledger.run(run_id)
        try:
            return _watched(ledger, settings, row, batches.get(run_id, []), looks)
        except BatchataError as error:  # the others are seen to all the same
            looks.notes.append(f"{row.name}: {error}")
            return None

    runs = {run_id: read(run_id) for run_id in dict.fromkeys([*batches, *work.cancelled])}
    for queue in ledger.standings():  # read now, since batches that were seen to end make room
        for run_id in queue.waiting:
            if run_id not in runs:
                runs[run_id] = read(run_id)
            if (run := runs[run_id]) is not None:
                run.queued, run.has_room = True, run.has_room or run_id in queue.may_go
    return [run for run in runs.values() if run is not None]


def without_batches(ledger: Ledger, settings: Settings, run_id: str) -> WatchedRun | None:
    """Return a run that has no batch open, and shares a budget; None if it is no such run.

    If it let go of its dataset, it waits for money that other runs have reserved.

    Raises:
        BatchataError: its files cannot be read.
    """
    row = ledger.find_run(run_id)
    if row is None or row.state != RunPhase.OPEN or ledger.returning(run_id):
        return None
    run = _watched(ledger, settings, row, [], Looks())
    if run is None or run.context.limits.budget is None or not run.unsent:
        return None
    return run


def any_run(ledger: Ledger, settings: Settings, run_id: str) -> WatchedRun | None:
    """Return a run, also one that has ended, to be shown; None if its dataset is not there.

    Raises:
        BatchataError: its files cannot be read.
    """
    if (row := ledger.find_run(run_id)) is None:
        return None
    if (run := _watched(ledger, settings, row, [], Looks())) is not None:
        run.context.state.stopping = row.stop
    return run


def _watched(
    ledger: Ledger, settings: Settings, row: RunRow, batches: list[AwaitedBatch], looks: Looks
) -> WatchedRun | None:
    url = ledger.dataset_url(row.dataset_id)
    if url is None:
        return None
    folder = DatasetFolder.at_url(url)
    if (folder.owner() or {}).get("ledger_id") != ledger.id:
        return None
    run = WatchedRun(observe(ledger, folder, row, settings))
    for batch in batches:
        _add(run, batch, looks)
    return run


def _add(run: WatchedRun, batch: AwaitedBatch, looks: Looks) -> None:
    if batch.ended_at is not None or batch.chunk.state == ChunkState.COLLECTED:
        run.ended.append(batch.ended_at or now_us())
        return
    recorded = None if batch.status is None else (batch.status, batch.done)
    wait = Wait(run.context, batch.chunk, recorded)
    if (look := looks.by_id.get(batch.batch_id)) is not None:
        wait.saw(look)
        run.has_news |= look.ended or recorded != (look.status, look.done)
        if look.ended:
            run.ended.append(now_us())
            return
    run.waits.append(wait)
    run.unknown += batch.batch_id in looks.unknown
    run.unseen += batch.batch_id in looks.unseen
