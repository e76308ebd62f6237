"""Watching: one look at every open batch of a ledger, and whatever there is to do then is done.

Flow runs that were suspended until their batches end are resumed. What a person cancelled is
cancelled at the provider. What no flow run is there for lands here. Nothing is sent, and nothing is
waited for: the next pass goes on.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from batchata_tasks.common.clock import now_us
from batchata_tasks.common.errors import BatchataError, LeaseError
from batchata_tasks.common.text import pluralize
from batchata_tasks.dataset.packs import is_kept
from batchata_tasks.execution.contexts import active
from batchata_tasks.execution.held_dataset import LettingGo, SuspendedRunError, hold_dataset
from batchata_tasks.execution.queue_room import KEPT
from batchata_tasks.execution.run_context import restored_context
from batchata_tasks.execution.snapshot import snapshot
from batchata_tasks.ledger import WATCHING, ChunkState, RunPhase, StopReason, opened_ledger
from batchata_tasks.operations.cancel import end_run
from batchata_tasks.operations.flow_runs import Fate, NoFlowRuns, Untold, Waiters
from batchata_tasks.operations.looks import look_at
from batchata_tasks.operations.watched import any_run, watched_runs, without_batches
from batchata_tasks.pipeline.finish import so_far
from batchata_tasks.pipeline.scheduler import run_chunks
from batchata_tasks.pipeline.steps import Steps
from batchata_tasks.progress.listener import silent

if TYPE_CHECKING:
    from collections.abc import Callable

    from batchata_tasks.common.settings import Settings
    from batchata_tasks.execution.held_dataset import OwnDataset
    from batchata_tasks.ledger import Ledger, OpenWork
    from batchata_tasks.operations.flow_runs import FlowRuns
    from batchata_tasks.operations.watched import WatchedRun
    from batchata_tasks.pipeline.receipt import Receipt
    from batchata_tasks.progress.listener import Progress

GATHERED = 600.0
"""Seconds for which ended batches of a run wait for its others, so that they land together."""


_MINUTE = 60 * 1_000_000  # microseconds
_STARTS = 600.0  # seconds that a flow run may take from its resumption until it asks for room
_SENT = (ChunkState.SUBMITTED, ChunkState.COLLECTED)  # what may land
_TOLD_LATE = 24 * 60 * _MINUTE  # for which passes try again to tell what they did
_SILENT = 30.0  # seconds after the end of its lease until a process counts as lost


@dataclass
class WatchReport:
    """What a pass saw and did.

    Of the open batches it tells how many `ended`, and how many `calls` of providers that took.
    `resumed` are flow runs, and `taken_up` those of lost processes that are started again; `landed`
    and `cancelled` are runs of the ledger.
    """

    batches: int = 0
    ended: int = 0
    calls: int = 0
    resumed: list[str] = field(default_factory=list[str])
    landed: list[str] = field(default_factory=list[str])
    cancelled: list[str] = field(default_factory=list[str])
    taken_up: list[str] = field(default_factory=list[str])
    notes: list[str] = field(default_factory=list[str])

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return asdict(self)

    def lines(self) -> list[tuple[str, str]]:
        """Return it for people, as (label, value)."""
        return [("Watch", self.in_words()), *(("Note", note) for note in self.notes)]

    def in_words(self) -> str:
        """Return in a line what was seen and done."""
        text = "no batch is open"
        if self.batches:
            text = f"{pluralize(self.batches, 'open batch', 'open batches')}, {self.ended} ended"
        done = [
            (self.resumed, "flow run", "resumed"),
            (self.taken_up, "lost flow run", "started again"),
            (self.landed, "run", "landed"),
            (self.cancelled, "run", "cancelled"),
        ]
        return text + "".join(
            f"; {pluralize(len(which), noun)} {verb}" for which, noun, verb in done if which
        )


def watch(
    settings: Settings,
    flow_runs: FlowRuns | None = None,
    *,
    gathered: float = GATHERED,
    progress: Progress | None = None,
) -> WatchReport:
    """Look once at every open batch of the ledger, and do what there is to do.

    Raises:
        BatchataError: the ledger cannot be used.
    """
    report = WatchReport()
    with opened_ledger(settings.ledger_url) as ledger:
        watching = _Watching(
            ledger, settings, flow_runs or NoFlowRuns(), progress or silent(), report
        )
        watching.run(gathered)
    return report


@dataclass
class _Watching:
    """One pass."""

    ledger: Ledger
    settings: Settings
    flow_runs: FlowRuns
    progress: Progress
    report: WatchReport

    def run(self, gathered: float) -> None:
        """Take up what was lost, look, then see to each run."""
        if self.flow_runs.is_there:
            self._make_up()
        work = self.ledger.open_work(_SILENT)
        try:
            self._take_up(work)
        except BatchataError as error:  # batches are looked at all the same
            self._note(f"Lost flow runs are not taken up: {error}")
        looks = look_at([one for one in work.batches if one.ended_at is None], self.ledger)
        runs = watched_runs(self.ledger, self.settings, work, looks)
        self.report.batches, self.report.calls = len(work.batches), looks.calls
        self.report.ended = sum(len(run.ended) for run in runs)
        for note in looks.notes:
            self._note(note)
        waiters = self._waiters([run.id for run in runs], work)
        unseen = {run.id for run in runs if run.unseen}
        for run in runs:
            try:
                self._see_to(run, waiters.get(run.id, Waiters()), gathered)
            except BatchataError as error:  # the others are seen to all the same
                self._note(f"{run.name}: {error}")
        for run_id in waiters.keys() - {run.id for run in runs}:
            try:
                unseen |= self._see_to_idle(run_id, waiters[run_id], gathered)
            except BatchataError as error:
                self._note(f"What waits for the run {run_id} is not resumed: {error}")
        if self.flow_runs.repeated:
            suspended = {one for waits in waiters.values() for one in waits.suspended}
            waiting = len(suspended.difference(self.report.resumed))
            self.flow_runs.leave_sign(self.ledger.id, unseen, waiting)
            self.ledger.note_watched()

    def _waiters(self, runs: list[str], work: OpenWork) -> dict[str, Waiters]:
        """Return the flow runs that wait for runs, and those that a person cancelled; see FlowRuns.

        Those that are suspended, and those that let go of a run, are told for all runs.
        """
        found = dict(self.flow_runs.waiters(self.ledger.id, runs))
        for run_id, by in self._cancelled(work).items():
            who = found.get(run_id, Waiters())
            found[run_id] = replace(who, cancelled=(*who.cancelled, *by))
        return found

    def _see_to_idle(self, run_id: str, waiters: Waiters, gathered: float) -> set[str]:
        """See to a run of which nothing is open, or nothing is seen.

        It is returned if it cannot be seen from here.
        """
        try:
            if (run := without_batches(self.ledger, self.settings, run_id)) is not None:
                self._see_to(run, waiters, gathered)
                return set()
        except BatchataError as error:
            self._note(f"The run {run_id} is not seen: {error}")
        return self._resume_unseen(run_id, waiters)

    def _resume_unseen(self, run_id: str, waiters: Waiters) -> set[str]:
        """Resume what waits for a run that another process ended, or that cannot be seen from here.

        Return the run in the second case, in which it waits in its own process from then on.
        """
        if not waiters.suspended or self._is_held(run_id):
            return set()
        self._resume(waiters)
        row = self.ledger.find_run(run_id)
        return set() if row is not None and row.state == RunPhase.CLOSED else {run_id}

    def _see_to(self, run: WatchedRun, waiters: Waiters, gathered: float) -> None:
        """Do what there is to do for a run: by a flow run that waits for it, or else here."""
        if waiters.under_way or self._is_held(run.id):
            return
        if waiters.cancelled and not waiters.suspended:
            self.ledger.request_stop(run.id, StopReason.CANCEL)
        reason = self._why_resumed(run, gathered) if waiters.suspended else run.why_due(gathered)
        if reason is None:
            if run.has_news or (waiters.suspended and _is_shown_anew()):
                self._show(run, waiters)
            return
        self.progress.note(f"{run.name}: {reason}.")
        if waiters.suspended and self._resume(waiters):
            return
        if waiters.suspended:  # nobody comes back for its places, so nobody is to wait behind them
            self.ledger.leave_queues(run.id)
        self._do(run, waiters)

    def _why_resumed(self, run: WatchedRun, gathered: float) -> str | None:
        """Return why it is time to resume the flow run that waits for a run; None if it is not.

        One that waits for money holds up nobody in the line for room.
        """
        reason = run.why_due(gathered)
        if run.unseen:
            reason = "its batches cannot be looked at from here, so it waits in its own process"
        if reason is None and run.lacks_money:
            if run.queued:
                self.ledger.unkeep_places(run.id)
            return None
        if reason is None and run.has_room:
            reason = "there is room for it in the provider's queue"
        elif reason is None and run.is_idle and not run.queued:
            reason = "there is money for it in its budget, or none that it could wait for"
        if run.queued:
            self.ledger.keep_places(run.id, KEPT if reason is None else _STARTS)
        return reason

    def _cancelled(self, work: OpenWork) -> dict[str, tuple[str, ...]]:
        """Return by run the flow run that let go of it, if a person cancelled that."""
        cancelled = self.flow_runs.cancelled(set(work.left.values()))
        left = [(self.ledger.open_run(one), by) for one, by in work.left.items() if by in cancelled]
        return {run.id: (by,) for run, by in left if run is not None}

    def _do(self, run: WatchedRun, waiters: Waiters) -> None:
        """Do here what there is to do for a run: end it, or land what has ended; tell of it."""
        cancels, sent = run.context.stop_reason() == StopReason.CANCEL, self._sent(run)
        to_cancel = [wait for wait in run.waits if cancels and not wait.cancel_asked]
        work = self._begun_by(run, waiters)
        end = partial(end_run, work=work, told=self.flow_runs.is_there)
        try:
            receipt = self._at(run, end if cancels else _land)
        except LeaseError:
            return
        if not cancels and self._sent(run) == sent:
            return
        (self.report.cancelled if cancels else self.report.landed).append(run.id)
        untold = None
        if receipt is not None and self.flow_runs.is_there:
            untold = Untold(work, run.context.spec.key, cancels, receipt)
            if not cancels:  # else the ledger has it since the run was closed
                self.ledger.note_untold(run.id, untold.to_json())
        if work is not None and to_cancel:
            batches = pluralize(len(to_cancel), "batch", "batches")
            self.flow_runs.log(work, f"`watch` asked the provider to cancel {batches}.")
        if untold is not None:
            self._tell(run, untold)
        elif work is not None:
            self.flow_runs.show(work, run.name, snapshot(run.context))

    def _tell(self, run: WatchedRun, untold: Untold) -> None:
        """Tell Prefect's server what was done for a run here; the next pass does what fails."""
        work, receipt = untold.work, untold.receipt
        self.flow_runs.tell(work, receipt, untold.key, ended=untold.ended)
        if work is not None:
            self.flow_runs.show(work, run.name, snapshot(run.context))
        self.ledger.note_told(run.id)

    def _make_up(self) -> None:
        """Tell what an earlier pass could not: the server was away, or the pass was killed."""
        for run_id, facts in self.ledger.untold().items():
            untold = Untold.from_json(facts)
            try:
                run = any_run(self.ledger, self.settings, run_id)
                if run is None or untold is None or now_us() - untold.at > _TOLD_LATE:
                    self.ledger.note_told(run_id)
                else:
                    self._tell(run, untold)
            except BatchataError as error:
                self._note(f"The end of the run {run_id} is not told on Prefect's server: {error}")

    def _show(self, run: WatchedRun, waiters: Waiters) -> None:
        """Show how a run stands to those who look at the flow run that began it."""
        if (work := self._begun_by(run, waiters)) is not None:
            self.flow_runs.show(work, run.name, snapshot(run.context))

    def _begun_by(self, run: WatchedRun, waiters: Waiters) -> str | None:
        """Return the flow run that let go of a run last, as far as it is known."""
        last = self.ledger.left_by(self.ledger.run(run.id).dataset_id)
        begun = (*waiters.suspended, *waiters.cancelled)
        if not begun or (last is not None and any(one in last for one in begun)):
            return last
        return begun[0]

    def _sent(self, run: WatchedRun) -> set[tuple[str, str]]:
        """Return a run's chunks that may land here, and how they stand."""
        chunks = self.ledger.chunks(run.id, _SENT)
        return {(chunk.id, chunk.state) for chunk in chunks}

    def _take_up(self, work: OpenWork) -> None:
        """Have lost flow runs started again, and end what a person cancelled of them."""
        for dataset_id, lost in work.lost.items():
            fate = self.flow_runs.take_up(lost)
            if fate is Fate.STARTED:
                self._note_taken_up(lost)
            elif fate is Fate.CANCELLED and (run := self.ledger.open_run(dataset_id)) is not None:
                self.ledger.request_stop(run.id, StopReason.CANCEL)
        for lost in self.flow_runs.take_up_lost(work.at_work):
            self._note_taken_up(lost)

    def _note_taken_up(self, work: str) -> None:
        self.report.taken_up.append(work)
        self.progress.note(f"{work} was lost, and is started again.")

    def _is_held(self, run_id: str) -> bool:
        """Whether a process is at work on the dataset of a run."""
        row = self.ledger.find_run(run_id)
        return row is not None and self.ledger.is_held(row.dataset_id)

    def _resume(self, waiters: Waiters) -> bool:
        """Resume one of the flow runs that wait for a run; it lands the batches for all of them."""
        resumed = self.flow_runs.resume(waiters.suspended[0])
        if resumed:
            self.report.resumed.append(waiters.suspended[0])
        return resumed

    def _at(
        self, run: WatchedRun, work: Callable[[OwnDataset, str], Receipt | None]
    ) -> Receipt | None:
        """Do a run's work here, but wait for no batch; return its receipt, if there is one yet.

        Raises:
            LeaseError: another process does it.
        """
        output = str(run.context.folder.root)
        with hold_dataset(output, self.settings, self.progress, WATCHING) as held:
            held.letting_go = LettingGo(after=0, before=frozenset({run.id}), is_watched=True)
            held.answers = run.answers(self.settings)
            try:
                return work(held, run.id)
            except SuspendedRunError:  # other batches have not ended
                return None

    def _note(self, text: str) -> None:
        self.report.notes.append(text)
        self.progress.note(text)


def _is_shown_anew() -> bool:
    """Whether pages are brought up to date although nothing changed: they show that `watch` looks.

    Of passes that come every minute each fifteenth does that.
    """
    return now_us() // _MINUTE % 15 == 0


def _land(held: OwnDataset, run_id: str) -> Receipt | None:
    """Land the batches of a run that have ended; the next run of its spec does the rest.

    Return how the run stands then; None if it has ended.
    """
    run = held.ledger.run(run_id)
    if run.state != RunPhase.OPEN:
        return None
    context = restored_context(held, run)
    chunks = held.ledger.chunks(run_id, _SENT)
    with active(context):
        known = [chunk for chunk in chunks if is_kept(held.folder.manifest(chunk.id))]
        with suppress(SuspendedRunError):  # other batches have not ended
            run_chunks(context, Steps(), known)
        return so_far(context)
