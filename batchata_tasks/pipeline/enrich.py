"""The way itself: plan → chunk → guard → submit → poll → collect → land → receipt."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from batchata_tasks.common.settings import Settings
from batchata_tasks.execution.cleanup import discard_uploads
from batchata_tasks.execution.handle import LiveRun
from batchata_tasks.execution.held_dataset import open_site
from batchata_tasks.execution.run_context import Session, active
from batchata_tasks.ledger import PLANNED, UNFINISHED
from batchata_tasks.pipeline.finish import finish, leave_open
from batchata_tasks.pipeline.pilot import PilotFailedError, send_pilot
from batchata_tasks.pipeline.recover import recover
from batchata_tasks.pipeline.scheduler import bring_home
from batchata_tasks.pipeline.start import begin, dead_run
from batchata_tasks.pipeline.steps import Steps
from batchata_tasks.planning.prepare import make_ready
from batchata_tasks.planning.summary import Options
from batchata_tasks.types.outcome import Outcome

if TYPE_CHECKING:
    from collections.abc import Generator

    from batchata_tasks.execution.held_dataset import Site
    from batchata_tasks.pipeline.receipt import Receipt
    from batchata_tasks.progress.listener import Progress
    from batchata_tasks.spec.run import RunSpec


def enrich(
    spec: RunSpec, options: Options | None = None, steps: Steps | None = None,
    progress: Progress | None = None, settings: Settings | None = None, run: str | None = None,
) -> Receipt:
    """Run one enrichment to its end and return the receipt.

    A run of the same spec that died is carried on, with what remains of its limits. `run` names what this
    process works for (a flow run, say), so that others can tell who holds the dataset.

    Raises:
        InputError: the spec or the source is wrong; nothing was sent.
        AlreadyRunningError: another run holds the dataset.
        BatchataError: something else stopped the run; the next one carries on.
    """
    steps, settings, options = steps or Steps(), settings or Settings(), options or Options()
    ready = make_ready(spec, settings)
    with open_site(spec.output, settings, progress, run) as site, _followed(site) as handle:
        site.recovery = recover(site)
        while (old := dead_run(site, ready, options)) is not None:
            with active(old):
                _land_dead_run(old, steps)
        with active(begin(site, ready, options)) as session:
            handle.show(session)
            steps.plan(session.run_id)
            _tell_plan(session)
            try:
                receipt = finish(session, stopped_by_limit=_work(session, steps))
            except PilotFailedError as error:
                receipt = leave_open(session, str(error))
            site.progress.receipt = receipt.to_json()
            return receipt


@contextmanager
def _followed(site: Site) -> Generator[LiveRun, None, None]:
    """Let people look at the run while it works, and stop it, also while it waits for what earlier ones left."""
    handle = LiveRun(site)
    site.progress.follow(handle)
    try:
        yield handle
    finally:
        site.progress.follow(None)


def _work(session: Session, steps: Steps) -> bool:
    """Bring the run's chunks home, round after round; True when the cost limit stopped it."""
    if session.plan().pilot and send_pilot(session, steps):
        return True
    while True:
        chunks = session.ledger.chunks(session.run_id, (*UNFINISHED, PLANNED))
        if bring_home(session, steps, chunks):
            return True
        if session.stop_reason() is not None or not _some_failed(session) or not steps.next_round(session.run_id)["chunks"]:
            return False


def _land_dead_run(old: Session, steps: Steps) -> None:
    """Bring home what a run of another spec left at the provider; what it never sent is dropped."""
    lost = old.site.recovery.claims if old.site.recovery is not None else {}
    if chunks := [chunk for chunk in old.ledger.chunks(old.run_id, UNFINISHED) if chunk.id not in lost]:
        old.say("an earlier run left batches open: landing them first.")
        bring_home(old, steps, chunks)
    old.ledger.close_run(old.lease, old.run_id, old.ledger.run(old.run_id).result or "abandoned")
    discard_uploads(old)
    old.folder.drop_run_folder(old.run_id)


def _some_failed(session: Session) -> bool:
    tallies = session.ledger.outcomes(session.run_id)
    return any(tally.rows for outcome, tally in tallies.items() if outcome not in (Outcome.SUCCEEDED, Outcome.REFUSED))


def _tell_plan(session: Session) -> None:
    plan = session.plan()
    session.site.progress.planned(plan.requests, plan.batches, plan.up_to_date)
