"""Whether an unfinished run is carried on, and what a run takes over of one that was outdated.

An outdated run had not sent rows that the source has otherwise by now (see `outdated.py`).
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from batchata_tasks.common.clock import now_us
from batchata_tasks.dataset.manifest import has_plan
from batchata_tasks.execution.predecessor import Predecessor, began_at
from batchata_tasks.ledger import UNTIL_LOOKED_AT, RunEnd, RunPhase
from batchata_tasks.pipeline.receipt import RunResult
from batchata_tasks.pipeline.rehearsals import is_of_other_kind
from batchata_tasks.planning.summary import Options

if TYPE_CHECKING:
    from batchata_tasks.dataset.folder import DatasetFolder
    from batchata_tasks.ledger import Ledger, RunRow
    from batchata_tasks.pipeline.planning_run import Recovery
    from batchata_tasks.planning.prepare import PreparedRun


def may_go_on(
    folder: DatasetFolder,
    ledger: Ledger,
    dead: RunRow,
    ready: PreparedRun,
    options: Options,
    recovery: Recovery | None,
) -> bool:
    """Whether a dead run is carried on: its spec is the same, its plan is there, it sends enough.

    One that stopped for good is carried on whatever is to be sent again, so that it sends nothing;
    but to ask for its failed rows is what it waits for.
    """
    if dead.state != RunPhase.OPEN or recovery is not None:
        return False
    if is_of_other_kind(dead, ready.table) or dead.spec_digest != ready.record["spec_digest"]:
        return False
    if dead.result in UNTIL_LOOKED_AT:
        return not options.retry_failed
    if dead.result == RunResult.ACCOUNT_TROUBLE and _is_over(dead, ready):
        return False
    if not sends_enough(dead, options) and dead.result != RunResult.PILOT_FAILED:
        return False
    return has_plan(folder.run_folder(dead.id), ledger.chunks(dead.id))


def sends_enough(run: RunRow, options: Options) -> bool:
    """Whether a run sends all rows that these options ask for."""
    refreshes = options.refresh_before is None or run.refresh_before is not None
    return refreshes and run.retry_failed >= options.retry_failed


def _is_over(dead: RunRow, ready: PreparedRun) -> bool:
    """Whether the time limit of a run was reached while its account was being mended."""
    seconds = ready.spec.time_limit_seconds
    return seconds is not None and now_us() >= began_at(dead) + int(seconds * 1e6)


def leaves_limits(run: RunRow, ready: PreparedRun) -> bool:
    """Whether what is left of an open run's limits holds for the next run, if it is ended.

    It does for one of the same spec that would have sent more.
    """
    if run.state != RunPhase.OPEN or run.spec_digest != ready.record["spec_digest"]:
        return False
    troubled = run.result == RunResult.ACCOUNT_TROUBLE
    return run.result is None or (troubled and not _is_over(run, ready))


def inherited(run: RunRow, before: Predecessor) -> Options:
    """Return the options of the run that takes the place of another one."""
    tried_since = before.started_at if run.retry_failed else None
    return Options(run.refresh_before, bool(run.retry_failed), tried_since)


def taken_over(
    ledger: Ledger, dataset_id: str, ready: PreparedRun, options: Options
) -> tuple[Options, Predecessor | None]:
    """Return the options of a run, and what it takes over of an outdated one, if there is one.

    That one is the dataset's newest run that could send anything. It may have ended in an earlier
    start, which died, was refused or declined.
    """
    run = ledger.last_that_planned(dataset_id)
    if run is None or run.result != RunEnd.OUTDATED or run.state != RunPhase.CLOSED:
        return options, None
    return _in_place_of(ledger, run, ready, options)


def goes_on(
    ledger: Ledger, folder: DatasetFolder, dataset_id: str, ready: PreparedRun, options: Options
) -> tuple[Options, Predecessor | None]:
    """Return the options with which a start would go on with an unfinished run, and what that used.

    As `taken_over` if there is none.
    """
    run = ledger.open_run(dataset_id)
    if run is None or not (
        leaves_limits(run, ready) or may_go_on(folder, ledger, run, ready, options, None)
    ):
        return taken_over(ledger, dataset_id, ready, options)
    return _in_place_of(ledger, run, ready, options)


def _in_place_of(
    ledger: Ledger, run: RunRow, ready: PreparedRun, options: Options
) -> tuple[Options, Predecessor | None]:
    is_same = run.spec_digest == ready.record["spec_digest"]
    if not is_same or is_of_other_kind(run, ready.table) or not sends_enough(run, options):
        return options, None
    before = Predecessor.of(ledger, run)
    return replace(inherited(run, before), take_over=options.take_over), before
