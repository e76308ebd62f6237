"""Whether the plan of an unfinished run still holds, and what a run takes over whose does not.

Hours may pass until a run that was suspended, or died, goes on. What the source has otherwise by
then is neither sent nor paid for as it was: what is at the provider lands, the run ends, and
another one of the same spec plans today's rows. To whoever asked it is one run still, so the other
one has what remains of its limits (see `execution/predecessor.py`).
"""

from __future__ import annotations

import tempfile
from contextlib import suppress
from copy import copy
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from batchata_tasks.common.canonical import key_digest
from batchata_tasks.common.errors import BatchataError, HeldError, InputError
from batchata_tasks.common.text import pluralize
from batchata_tasks.dataset.columns import keys_of
from batchata_tasks.dataset.manifest import plan_rows
from batchata_tasks.execution.predecessor import Predecessor
from batchata_tasks.execution.run_context import restored_context
from batchata_tasks.ledger import ChunkKind, ChunkState, RunEnd, RunPhase
from batchata_tasks.pipeline.going_on import inherited, leaves_limits
from batchata_tasks.pipeline.pilot import has_failed
from batchata_tasks.pipeline.receipt import RunResult
from batchata_tasks.pipeline.start import rows_in_flight
from batchata_tasks.pipeline.trouble import StoppedError, judge
from batchata_tasks.planning.key_arrays import SentRow
from batchata_tasks.planning.plan_check import Difference, PlanCheck
from batchata_tasks.planning.settle import settle
from batchata_tasks.spec.enrichment import EnrichmentSpec

if TYPE_CHECKING:
    from collections.abc import Iterator

    from batchata_tasks.dataset.folder import DatasetFolder
    from batchata_tasks.execution.held_dataset import HeldDataset
    from batchata_tasks.execution.run_context import RunContext
    from batchata_tasks.ledger import Chunk, Ledger, RunRow
    from batchata_tasks.planning.prepare import PreparedRun
    from batchata_tasks.planning.table import PreparedTable

# results of a run, and reasons to stop, with which it sends again when it is started again
_SENDS = {None, RunResult.ACCOUNT_TROUBLE.value}


class OutdatedRoundError(BatchataError):
    """The rows of a run's next round are otherwise in the source by now: the run is to be ended."""


def require_current_round(held: HeldDataset, table: PreparedTable) -> None:
    """Raise OutdatedRoundError if the plan of the open run's next round does not hold any more."""
    run = held.ledger.open_run(held.lease.dataset_id)
    if run is not None and _why_outdated(held, table, run) is not None:
        raise OutdatedRoundError


def outdated_run(held: HeldDataset, ready: PreparedRun) -> RunContext | None:
    """Return the unfinished run, which may be carried on, if its plan does not hold any more.

    It lands what it sent, and sends nothing.
    """
    run = held.ledger.open_run(held.lease.dataset_id)
    if run is None or run.state != RunPhase.OPEN:
        return None
    if (why := _why_outdated(held, ready.table, run)) is None:
        return None
    held.progress.note(
        f"the unfinished run is planned anew, with what is left of its limits: {why}."
    )
    return restored_context(held, run)


def _why_outdated(held: HeldDataset, table: PreparedTable, run: RunRow) -> str | None:
    """Return why the plan of an unfinished run does not hold any more, None if it does.

    A run that comes back to what it let go of goes on with its rows while they are as they were;
    what is new since is for the next one. Any other start is asked for today's source.
    """
    planned = _unsent(held.ledger, run)
    comes_back = run.id in held.letting_go.before
    if not isinstance(table.spec, EnrichmentSpec) or (comes_back and not planned):
        return None  # jobs are stored as they were
    if _stays_stopped(held.ledger, run.id):
        return None
    try:
        found = _difference(held, table, run, planned)
    except (InputError, HeldError):
        return "its rows cannot be compared with those of the source"  # planning tells why
    if not found.stale and (comes_back or not found.more):
        return None
    parts = list[str]()
    if found.stale:
        rows = pluralize(found.stale, "row that was not sent yet", "rows that were not sent yet")
        parts.append(f"{rows} changed or left the source")
    if found.more:
        parts.append(f"{pluralize(found.more, 'row is', 'rows are')} new or changed")
    return ", ".join(parts)


def has_stopped(run: RunContext) -> bool:
    """Whether a run that has landed what it sent stops for that, or was stopped meanwhile."""
    with suppress(StoppedError):
        judge(run)
    if has_failed(run):
        run.ledger.note_result(run.lease, run.run_id, RunResult.PILOT_FAILED)
    return _stays_stopped(run.ledger, run.run_id)


def _stays_stopped(ledger: Ledger, run_id: str) -> bool:
    """Whether a run sends nothing more, also when it is started again."""
    return bool({ledger.run(run_id).result, ledger.stop_reason(run_id)} - _SENDS)


def _unsent(ledger: Ledger, run: RunRow) -> list[Chunk]:
    planned = ledger.chunks(run.id, (ChunkState.PLANNED,))
    return [chunk for chunk in planned if chunk.kind == ChunkKind.BATCH]


def _difference(
    held: HeldDataset, table: PreparedTable, run: RunRow, planned: list[Chunk]
) -> Difference:
    """Compare what a run has not sent with today's source.

    Raises:
        InputError, HeldError: the source cannot be planned as it is.
    """
    ledger, folder, dataset_id = held.ledger, held.folder, held.lease.dataset_id
    key = table.spec.key
    unfinished = [chunk.id for chunk in ledger.unfinished_chunks(dataset_id, "")]
    # a copy: a run that is carried on keeps the types that it was planned with
    table = replace(table, dataset=copy(table.dataset))
    settled = settle(table, folder, unfinished)

    def progress(rows: int) -> None:
        held.raise_if_left()
        held.progress.planning(rows)

    before = Predecessor.of(ledger, run)
    rows = sum(chunk.rows for chunk in planned)
    first = sum(chunk.rows for chunk in planned if chunk.round == 1)
    sent_before = replace(before.sent(ledger), rows=before.rows + first)
    with tempfile.TemporaryDirectory(prefix="batchata-check-") as scratch:
        check = PlanCheck(
            table,
            Path(scratch) / "plan",
            dataset_id,
            inherited(run, before),
            progress,
            settled.declared.legacy(),
            sent_before,
        )
        sent = rows_in_flight(folder, ledger, dataset_id, "", key)
        return check.compare(chain(sent, _planned_rows(folder, run, planned, key)), rows)


def _planned_rows(
    folder: DatasetFolder, run: RunRow, chunks: list[Chunk], key: list[str]
) -> Iterator[SentRow]:
    for chunk in chunks:
        for batch in plan_rows(folder.run_folder(run.id), chunk):
            prints: list[str] = batch.column("_fingerprint").to_pylist()
            for row_key, text in zip(keys_of(batch, key), prints, strict=True):
                yield SentRow(key_digest(row_key), is_held=False, fingerprint=text, is_planned=True)


def ends_as(run: RunContext, ready: PreparedRun) -> str:
    """Return as what a run is closed that cannot be carried on.

    If its plan is lost, what is left of its limits holds for the next run of the same spec.
    """
    row = run.ledger.run(run.run_id)
    if leaves_limits(row, ready):
        return RunEnd.OUTDATED
    return row.result or RunEnd.ABANDONED
