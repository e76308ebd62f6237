"""The way itself: plan → chunk → guard → submit → poll → collect → land → next round → receipt."""

from __future__ import annotations

from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from batchata_tasks.common.clock import awake_clock
from batchata_tasks.common.errors import InputError
from batchata_tasks.common.settings import Settings
from batchata_tasks.common.text import pluralize
from batchata_tasks.dataset.renames import Renames
from batchata_tasks.execution.changes import agree_on_changes
from batchata_tasks.execution.checked import code_changed, grade_changed, note_checked
from batchata_tasks.execution.cleanup import discard_uploads
from batchata_tasks.execution.contexts import active
from batchata_tasks.execution.filled_by import note_spec, require_own_spec
from batchata_tasks.execution.handle import LiveRun
from batchata_tasks.execution.held_dataset import hold_dataset
from batchata_tasks.execution.intent_files import require_current_budgets
from batchata_tasks.execution.land import emptying
from batchata_tasks.execution.last_error import keep, kept_errors
from batchata_tasks.execution.lost_files import write_anew
from batchata_tasks.execution.missing import finish_deletion
from batchata_tasks.execution.open_adapters import OpenAdapters
from batchata_tasks.execution.renaming import finish_renaming, restore_renames
from batchata_tasks.execution.twice import look_back, recount
from batchata_tasks.ledger import UNFINISHED, ChunkKind, ChunkState, RunEnd
from batchata_tasks.pipeline.finish import finish, stop
from batchata_tasks.pipeline.merge import merge_small_files
from batchata_tasks.pipeline.outdated import (
    OutdatedRoundError,
    ends_as,
    has_stopped,
    outdated_run,
    require_current_round,
)
from batchata_tasks.pipeline.overdue import find_lost_rows, land_overdue
from batchata_tasks.pipeline.pilot import PilotUnjudgedError, send_pilot
from batchata_tasks.pipeline.receipt import RunResult
from batchata_tasks.pipeline.recover import recover
from batchata_tasks.pipeline.refresh import without_done
from batchata_tasks.pipeline.rehearsals import end_rehearsals
from batchata_tasks.pipeline.results_lacking import waits_for_results
from batchata_tasks.pipeline.revalidation import read_again
from batchata_tasks.pipeline.scheduler import run_chunks
from batchata_tasks.pipeline.spending import announce, close_unsent
from batchata_tasks.pipeline.start import start_run, unfinished_run
from batchata_tasks.pipeline.steps import Steps
from batchata_tasks.pipeline.this_start import before, sent_again
from batchata_tasks.pipeline.trouble import StoppedError, judge
from batchata_tasks.pipeline.ways import code_changed_words, grade_changed_words
from batchata_tasks.planning.prepare import prepare_run
from batchata_tasks.planning.summary import Options
from batchata_tasks.types.outcome import Outcome

if TYPE_CHECKING:
    from collections.abc import Generator

    from batchata_tasks.dataset.parts import Dataset
    from batchata_tasks.execution.held_dataset import LettingGo, OwnDataset
    from batchata_tasks.execution.run_context import RunContext
    from batchata_tasks.pipeline.planning_run import Before, PlanningRun, Recovery
    from batchata_tasks.pipeline.receipt import Receipt
    from batchata_tasks.planning.prepare import PreparedRun
    from batchata_tasks.progress.listener import Progress
    from batchata_tasks.spec.run import RunSpec


def enrich(
    spec: RunSpec,
    options: Options | None = None,
    steps: Steps | None = None,
    progress: Progress | None = None,
    settings: Settings | None = None,
    run: str | None = None,
) -> Receipt:
    """Run one enrichment to its end and return the receipt.

    A run of the same spec that died is carried on, with what remains of its limits. `run` names
    what this process works for (a flow run, say), so that others can tell who holds the dataset.

    Raises:
        InputError: the spec or the source is wrong; nothing was sent.
        AlreadyRunningError: another run holds the dataset.
        BatchataError: something else stopped the run; the next one carries on.
    """
    return run_prepared(prepare_run(spec, settings or Settings()), options, steps, progress, run)


def run_prepared(
    ready: PreparedRun,
    options: Options | None = None,
    steps: Steps | None = None,
    progress: Progress | None = None,
    run: str | None = None,
    letting_go: LettingGo | None = None,
) -> Receipt:
    """Run one enrichment that is prepared already, as `enrich` does.

    Raises:
        SuspendedRunError: it let go of the dataset, as `letting_go` allows; the same call goes on.
    """
    steps, options = steps or Steps(), options or Options()
    output, settings = ready.spec.output, ready.settings
    adapters = OpenAdapters(list(ready.adapters))
    with (
        hold_dataset(output, settings, progress, run, adapters) as held,
        kept_errors(held),
        _followed(held) as handle,
    ):
        held.letting_go = letting_go or held.letting_go
        held.makes_parts = steps.makes_parts
        options = without_done(held, ready, options)
        if not options.take_over:
            require_own_spec(held.folder, held.ledger, held.lease.dataset_id, ready.spec)
        ready = _under_todays_names(held, ready, adapters)
        begun = _taken_in_hand(held, ready)
        recovery = recover(held, ready.table)
        receipt = None
        while receipt is None:
            options = _others_ended(held, ready, options, steps, recovery)
            land_overdue(held)
            agree_on_changes(held, ready.table.dataset)
            read_again(held, ready.table)
            context = start_run(held, ready, options, recovery)
            context.before = begun
            with active(context), suppress(OutdatedRoundError):
                handle.show(context)
                receipt = _run(context, steps)
                merge_small_files(context)
        if receipt.reason is not None and receipt.exit_code == 1:
            keep(held, receipt.reason)
        held.progress.receipt = receipt.to_json()
        return receipt


def _under_todays_names(
    held: OwnDataset, ready: PreparedRun, adapters: OpenAdapters
) -> PreparedRun:
    """Return what was prepared, by the names that the dataset's columns have now."""
    finish_renaming(held)
    restore_renames(held)
    # another process may have renamed a column since
    if Renames.read(held.folder).all != ready.renames.all:
        ready = prepare_run(ready.spec, ready.settings)
        for adapter in ready.adapters:
            adapters.add(adapter)
    return ready


def _taken_in_hand(held: OwnDataset, ready: PreparedRun) -> Before:
    """Bring a dataset's files to the state that the ledger has; return what stood there before."""
    _hand_over(ready.table.dataset, held)
    held.answers = ready.table.answers
    for text in ready.notes:
        held.progress.note(text)
    end_rehearsals(held, ready)
    begun = before(held)
    if ready.spec.budget is not None:
        require_current_budgets(held.ledger)
    write_anew(held)
    recount(held.ledger, held.lease, held.folder)
    find_lost_rows(held)
    return begun


def _others_ended(
    held: OwnDataset,
    ready: PreparedRun,
    options: Options,
    steps: Steps,
    recovery: Recovery | None,
) -> Options:
    """Land and end unfinished runs that are not carried on; return the options from then on."""
    while (old := unfinished_run(held, ready, options, recovery)) is not None:
        with active(old):
            _land_sent(old, ready, steps, recovery)
            _end(old, ends_as(old, ready))
        options = without_done(held, ready, options)  # it may have been cancelled before
    if (old := outdated_run(held, ready)) is not None:
        with active(old):
            _land_sent(old, ready, steps, recovery)
            if not has_stopped(old):  # else it is carried on, and sends nothing
                _end(old, RunEnd.OUTDATED)
        options = without_done(held, ready, options)
    return options


def _hand_over(dataset: Dataset, held: OwnDataset) -> None:
    """Let a dataset be changed by the run that holds it, and finish what a dead one had begun."""
    dataset.gate, dataset.emptied = held.require_lease, emptying(held)
    dataset.tidy()
    finish_deletion(held, dataset)


def _run(context: PlanningRun, steps: Steps) -> Receipt:
    """Plan a run, send its chunks and land them, round after round; return the receipt."""
    try:
        steps.plan(context.ref)
    except InputError:
        close_unsent(context, RunEnd.REFUSED)
        raise
    note_spec(context.held.folder, context.spec)  # a run that is refused takes nothing over
    context.state.no_results = waits_for_results(context)
    _report_plan(context)
    if code_changed(context.folder, context.answers):
        context.log(f"{code_changed_words(context.spec)}.")
    if grade_changed(context.folder, context.answers):
        context.log(f"{grade_changed_words(context.spec, lowered=False)}.")
    announce(context)
    if context.plan().requests:
        note_checked(context.held, context.answers)
    try:
        limit_reached = send_pilot(context, steps) or _send_rounds(context, steps)
        judge(context)
    except StoppedError as error:
        return stop(context, error)
    except PilotUnjudgedError as error:
        context.log(str(error))
        limit_reached = False
    return finish(context, RunResult.COST_LIMIT_REACHED if limit_reached else None)


def _send_rounds(context: PlanningRun, steps: Steps) -> bool:
    """Send all rows, then those worth another attempt; return whether the cost limit stopped it.

    Raises:
        OutdatedRoundError: these are otherwise in the source by now, so that it is to be ended.
    """
    while True:
        chunks = context.ledger.chunks(context.run_id, (*UNFINISHED, ChunkState.PLANNED))
        # of each chunk: chunk → guard → submit → poll → collect → land (see one_chunk.py)
        if run_chunks(context, steps, chunks):
            return True
        if context.stop_reason() is not None or context.state.no_results:
            return False
        if not _some_failed(context):
            return False
        judge(context)
        context.raise_if_left()
        if not steps.next_round(context.ref)["chunks"]:
            return False
        if context.continued:  # its rows may have been planned hours ago
            require_current_round(context.held, context.table)


def _some_failed(context: RunContext) -> bool:
    """Whether another attempt may turn out better for some rows."""
    settled = (Outcome.SUCCEEDED, Outcome.REFUSED)
    totals = context.ledger.outcomes(context.run_id)
    return any(total.rows for outcome, total in totals.items() if outcome not in settled)


def _land_sent(
    old: RunContext, ready: PreparedRun, steps: Steps, recovery: Recovery | None
) -> None:
    """Land what an earlier run left at the provider.

    It is waited for no longer than the time limit of the run that is to come.
    """
    if (seconds := ready.spec.time_limit_seconds) is not None:
        old.until = awake_clock() + seconds
    lost = recovery.claims if recovery is not None else {}
    chunks = old.ledger.chunks(old.run_id, UNFINISHED)
    if landable := [chunk for chunk in chunks if chunk.id not in lost]:
        old.log("an earlier run left batches open: landing them first.")
        run_chunks(old, steps, landable)
    look_back(old)


def _end(old: RunContext, end: str) -> None:
    """Drop the rows that an earlier run has not sent, and close it."""
    old.ledger.close_run(old.lease, old.run_id, end)
    discard_uploads(old)
    old.folder.drop_run_folder(old.run_id)


def _stand(context: RunContext) -> str:
    """Return in words how far an earlier start of the run came."""
    chunks = context.ledger.chunks(context.run_id)
    batches = [chunk for chunk in chunks if chunk.kind == ChunkKind.BATCH]
    counts = {
        "landed": sum(chunk.state == ChunkState.LANDED for chunk in batches),
        "sent before": sum(chunk.state in UNFINISHED for chunk in batches),
        "not sent yet": sum(chunk.state == ChunkState.PLANNED for chunk in batches),
    }
    parts = [f"{pluralize(number, 'batch')} {what}" for what, number in counts.items() if number]
    return ", ".join(parts) or "nothing is left to send"


@contextmanager
def _followed(held: OwnDataset) -> Generator[LiveRun, None, None]:
    """Let people look at the run and stop it, also while it waits for what earlier ones left."""
    handle = LiveRun(held)
    held.progress.follow(handle)
    try:
        yield handle
    finally:
        held.progress.follow(None)


def _report_plan(context: PlanningRun) -> None:
    plan = context.plan()
    if context.continued:
        context.log(f"going on with {pluralize(plan.requests, 'request')}: {_stand(context)}.")
        return
    if (text := sent_again(context)) is not None:
        context.log(f"{text}.")
    context.held.progress.planned(plan.requests, plan.batches, plan.up_to_date)
