"""The way itself: plan → chunk → guard → submit → poll → collect → land → receipt."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from batchata_tasks.common.settings import Settings
from batchata_tasks.execution.cleanup import discard_uploads
from batchata_tasks.execution.handle import LiveRun
from batchata_tasks.execution.held_dataset import hold_dataset
from batchata_tasks.execution.run_context import RunContext, active
from batchata_tasks.ledger import UNFINISHED, ChunkState
from batchata_tasks.pipeline.finish import finish, leave_open
from batchata_tasks.pipeline.pilot import PilotFailedError, send_pilot
from batchata_tasks.pipeline.recover import recover
from batchata_tasks.pipeline.scheduler import run_chunks
from batchata_tasks.pipeline.start import start_run, unfinished_run
from batchata_tasks.pipeline.steps import Steps
from batchata_tasks.planning.prepare import prepare_run
from batchata_tasks.planning.summary import Options
from batchata_tasks.types.outcome import Outcome

if TYPE_CHECKING:
    from collections.abc import Generator

    from batchata_tasks.execution.held_dataset import HeldDataset
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

    A run of the same spec that died is carried on, with what remains of its limits. `run` names what this
    process works for (a flow run, say), so that others can tell who holds the dataset.

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
) -> Receipt:
    """Run one enrichment that is prepared already, as `enrich` does."""
    steps, options = steps or Steps(), options or Options()
    output, settings = ready.spec.output, ready.settings
    with hold_dataset(output, settings, progress, run) as held, _followed(held) as handle:
        held.recovery = recover(held)
        while (old := unfinished_run(held, ready, options)) is not None:
            with active(old):
                _land_unfinished_run(old, steps)
        with active(start_run(held, ready, options)) as context:
            handle.show(context)
            steps.plan(context.run_id)
            _tell_plan(context)
            try:
                receipt = finish(context, stopped_by_limit=_work(context, steps))
            except PilotFailedError as error:
                receipt = leave_open(context, str(error))
            held.progress.receipt = receipt.to_json()
            return receipt


@contextmanager
def _followed(held: HeldDataset) -> Generator[LiveRun, None, None]:
    """Let people look at the run while it works, and stop it, also while it waits for what earlier ones left."""
    handle = LiveRun(held)
    held.progress.follow(handle)
    try:
        yield handle
    finally:
        held.progress.follow(None)


def _work(context: RunContext, steps: Steps) -> bool:
    """Bring the run's chunks home, round after round; True when the cost limit stopped it."""
    if context.plan().pilot and send_pilot(context, steps):
        return True
    while True:
        chunks = context.ledger.chunks(context.run_id, (*UNFINISHED, ChunkState.PLANNED))
        if run_chunks(context, steps, chunks):
            return True
        if (
            context.stop_reason() is not None
            or not _some_failed(context)
            or not steps.next_round(context.run_id)["chunks"]
        ):
            return False


def _land_unfinished_run(old: RunContext, steps: Steps) -> None:
    """Bring home what a run of another spec left at the provider; what it never sent is dropped."""
    lost = old.held.recovery.claims if old.held.recovery is not None else {}
    if chunks := [
        chunk for chunk in old.ledger.chunks(old.run_id, UNFINISHED) if chunk.id not in lost
    ]:
        old.log("an earlier run left batches open: landing them first.")
        run_chunks(old, steps, chunks)
    old.ledger.close_run(old.lease, old.run_id, old.ledger.run(old.run_id).result or "abandoned")
    discard_uploads(old)
    old.folder.drop_run_folder(old.run_id)


def _some_failed(context: RunContext) -> bool:
    tallies = context.ledger.outcomes(context.run_id)
    return any(
        tally.rows
        for outcome, tally in tallies.items()
        if outcome not in (Outcome.SUCCEEDED, Outcome.REFUSED)
    )


def _tell_plan(context: RunContext) -> None:
    plan = context.plan()
    context.held.progress.planned(plan.requests, plan.batches, plan.up_to_date)
