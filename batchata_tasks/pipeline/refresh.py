"""A refresh that a limit stopped, or that died, is carried on by the next one.

So it gets to all rows. Those that landed since the first of them began count as refreshed. Once one
has ended by itself, the next begins anew.
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

from batchata_tasks.common.json import as_dict
from batchata_tasks.common.text import minute
from batchata_tasks.execution.held_dataset import CancelledRunError
from batchata_tasks.execution.predecessor import PREDECESSOR
from batchata_tasks.ledger import ChunkState, RunEnd, RunPhase, StopReason
from batchata_tasks.pipeline.receipt import RunResult
from batchata_tasks.spec.enrichment import EnrichmentSpec

if TYPE_CHECKING:
    from batchata_tasks.execution.held_dataset import HeldDataset
    from batchata_tasks.ledger import Ledger, RunRow
    from batchata_tasks.planning.prepare import PreparedRun
    from batchata_tasks.planning.summary import Options

# what ended a refresh before it got to all rows: a limit, or its process died
_STOPPED = (
    RunResult.COST_LIMIT_REACHED,
    RunResult.TIME_LIMIT_REACHED,
    RunEnd.ABANDONED,
    RunEnd.OUTDATED,
)
# of a spec; whoever raises one of them wants the rest
_LIMITS = ("cost_limit_usd", "budget", "time_limit")
# of a run's record: what does not say what is asked
_OTHER_FACTS = ("prices", "renames", "renames_since", PREDECESSOR)


def going_on(ledger: Ledger, dataset_id: str, ready: PreparedRun, options: Options) -> Options:
    """Return the options of a run, which carries on a refresh that has not got to all rows.

    Not if the spec differs in more than its limits, and not for the jobs of a Batch: without
    `reuse_state`, each of its runs asks for all of them.
    """
    if options.refresh_before is None or not isinstance(ready.spec, EnrichmentSpec):
        return options
    last = ledger.last_refresh(dataset_id, rehearsal=ready.table.rehearsal)
    if last is None or last.result not in _STOPPED:
        return options
    if _asked(last.spec) != _asked(ready.record["spec"]):
        return options
    return replace(options, refresh_before=last.refresh_before)


def without_done(held: HeldDataset, ready: PreparedRun, options: Options) -> Options:
    """Return the options of work that let go of runs, without what those have done, or do.

    To refresh rows, or to send failed ones again, a second time would be to pay twice for what was
    asked once. Another start may have finished them, and the spec may have been edited since.

    Raises:
        CancelledRunError: a person cancelled one of them.
    """
    for run_id in held.letting_go.before:
        run = held.ledger.find_run(run_id)
        if run is None:
            continue
        was_cancelled = run.stop == StopReason.CANCEL or run.result == RunResult.CANCELLED
        if run.state == RunPhase.CLOSED and was_cancelled:
            message = "the run was cancelled while it was suspended; nothing more is sent."
            raise CancelledRunError(message)
        if options.refresh_before is not None and run.refresh_before is not None:
            options = replace(options, refresh_before=run.refresh_before)
        if run.retry_failed and options.retry_failed:
            options = replace(options, retry_failed=False)
            _tell_unsent(held, ready, run)
    return options


def _tell_unsent(held: HeldDataset, ready: PreparedRun, run: RunRow) -> None:
    """Say so if failed rows are left that a run of an older spec was to send again."""
    is_other = run.spec_digest != ready.record["spec_digest"]
    if is_other and held.ledger.chunks(run.id, (ChunkState.PLANNED,)):
        held.progress.note(
            "the spec has changed since failed rows were asked for again: those that were not sent "
            "by then are left as they are, until you ask for them once more."
        )


def going_on_words(refresh_before: int) -> str:
    """Return the sentence about the refresh that is carried on, which began at this moment."""
    when = minute(refresh_before / 1e6)
    return (
        f"the refresh that began on {when}, and has not got to all rows, goes on: rows that landed "
        "since then count as refreshed"
    )


def _asked(record: str) -> dict[str, Any]:
    """Return what a run's record (JSON) says but for limits, prices and renamed columns."""
    facts = as_dict(cast("object", json.loads(record)))
    spec = as_dict(facts["spec"])
    spec = {name: value for name, value in spec.items() if name not in _LIMITS}
    others = {name: value for name, value in facts.items() if name not in _OTHER_FACTS}
    return {**others, "spec": spec}
