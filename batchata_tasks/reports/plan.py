"""`batchata plan`: what a run would send, cost, and hit as limits. Sends and spends nothing."""

from __future__ import annotations

import json
import tempfile
from collections import Counter
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from batchata_tasks.dataset.folder import DatasetFolder
from batchata_tasks.execution.checked import code_changed, grade_changed, grade_lowered
from batchata_tasks.execution.elsewhere import what_environment_lacks
from batchata_tasks.execution.filled_by import require_own_spec
from batchata_tasks.execution.held_dataset import another_ledgers, find_dataset
from batchata_tasks.execution.intent_files import require_current, require_current_budgets
from batchata_tasks.execution.renaming import require_one_name
from batchata_tasks.ledger import (
    SET_ASIDE,
    UNFINISHED,
    UNTIL_LOOKED_AT,
    ChunkState,
    StopReason,
    ledger_exists,
    opened_ledger,
)
from batchata_tasks.pipeline.brought_up import as_brought_up
from batchata_tasks.pipeline.forecast import look_ahead
from batchata_tasks.pipeline.going_on import goes_on
from batchata_tasks.pipeline.lost import LostRows, in_flight, lost_rows
from batchata_tasks.pipeline.refresh import going_on, going_on_words
from batchata_tasks.pipeline.rehearsals import is_of_other_kind
from batchata_tasks.pipeline.results_lacking import what_lacks
from batchata_tasks.pipeline.revalidation import by_now, is_to_be_read
from batchata_tasks.pipeline.start import correct_bounds, price_source, rows_in_flight
from batchata_tasks.planning.estimate import forecast_costs, measures
from batchata_tasks.planning.fingerprint import schema_part_of
from batchata_tasks.planning.missing import require_whole_source
from batchata_tasks.planning.planner import Planner
from batchata_tasks.planning.prepare import prepare_run
from batchata_tasks.planning.rehearsal import replaces_answers
from batchata_tasks.planning.renamed import note_renamed, require_known_key
from batchata_tasks.planning.settle import settle
from batchata_tasks.planning.summary import NOTHING_SENT, Options, PlanSummary, SentBefore
from batchata_tasks.providers import unset_key, without_keys_set
from batchata_tasks.reports.preview import STOPPED_FIRST, PilotSent, Preview, Stands
from batchata_tasks.reports.queues import queueing
from batchata_tasks.reports.sample import sample_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from batchata_tasks.common.settings import Settings
    from batchata_tasks.execution.predecessor import Predecessor
    from batchata_tasks.ledger import Chunk, Ledger, RunRow
    from batchata_tasks.planning.key_arrays import SentRow
    from batchata_tasks.planning.packing import PlannedChunk
    from batchata_tasks.planning.prepare import PreparedRun
    from batchata_tasks.spec.run import RunSpec


def preview(
    spec: RunSpec, settings: Settings, options: Options | None = None, *, sample: int = 0
) -> Preview:
    """Plan without running: the same pass as a run with these options makes, its files thrown away.

    `sample` is the number of requests to show as they would be sent.

    Raises:
        InputError: what a run would refuse, in the same words; so a ledger that is older than the
            dataset.
    """
    with without_keys_set():
        ready, options = prepare_run(spec, settings), options or Options()
    with ExitStack() as stack:
        stack.callback(ready.close)
        ledger = None
        if ledger_exists(settings.ledger_url):
            ledger = stack.enter_context(opened_ledger(settings.ledger_url, read_only=True))
            correct_bounds(ledger, ready.table)
        scratch = stack.enter_context(tempfile.TemporaryDirectory(prefix="batchata-plan-"))
        folder = Path(scratch) / "plan"
        dataset_id, ahead, sent = _look_at_dataset(ready, ledger, take_over=options.take_over)
        if ledger is not None:
            table = as_brought_up(ready.table, DatasetFolder(spec.output), ledger, dataset_id)
            ready = replace(ready, table=table)
        options, before, notes = _going_on(ready, ledger, dataset_id, options)
        unfinished = [] if ledger is None else _unfinished(ready, ledger, dataset_id)
        sent_before = NOTHING_SENT
        if ledger is not None and before is not None:
            sent_before = before.sent(ledger)
        open_run, stop = _open_run(ready, ledger, dataset_id)
        pilot = _pilot_of(ready, ledger, open_run)
        planner = _planner(
            ready, folder, dataset_id, ahead, unfinished, options, sent_before, pilots=pilot is None
        )
        chunks, summary = planner.run(sent), planner.summary
        if ledger is not None and summary.further is not None:
            summary.further += _further_of(ledger, unfinished)
        note_renamed(ready.table, DatasetFolder(spec.output), summary)
        require_whole_source(ready.table, planner.missing, summary)
        usage = measures(ledger, ready.table, chunks, folder)
        sampled = sample_of(folder, sample, ready.table, chunks, usage) if sample else None
        chunks = _without_rows(chunks, ahead.uncertain_rows)
        likely = forecast_costs(summary, chunks, usage)
        costs = [one.cost for one in likely]
        routes, rehearsal = ready.table.builder.routes, ready.table.rehearsal
        limits = look_ahead(
            spec,
            ledger,
            chunks,
            costs,
            summary,
            routes,
            dataset_id=dataset_id,
            rehearsal=rehearsal,
            used=0 if ledger is None or before is None else before.likely_spent(ledger),
        )
        queues = queueing(routes, ledger, chunks, likely, settings)
        held = [chunk for chunk in unfinished if chunk.state in SET_ASIDE]
        ways = _in_the_way(ready, ledger, dataset_id, unfinished, options)
        answers = by_now(ready.table, summary)
        stands = _stands(ledger, dataset_id, open_run)
        held_since = None if ledger is None else _sent_first(ledger, held)
    return Preview(
        spec=spec,
        summary=summary,
        price_source=price_source(ready.table),
        limits=limits,
        queues=queues,
        stopped=_stopped(ready, open_run, options),
        in_the_way=(*_unset_keys(ready), *ways),
        valid_by_now=answers.taken,
        no_longer_valid=answers.refused,
        model_changed=code_changed(DatasetFolder(spec.output), ready.table.answers),
        grade_changed=grade_changed(DatasetFolder(spec.output), ready.table.answers),
        grade_lowered=grade_lowered(DatasetFolder(spec.output), ready.table.answers),
        cancel_asked=stop == StopReason.CANCEL,
        pilot_sent=pilot,
        stands=stands,
        open_batches=sum(
            chunk.state not in SET_ASIDE and chunk.id not in ahead.chunks for chunk in unfinished
        ),
        recoverable=ahead.uncertain_rows,
        still_open=ahead.open_rows,
        in_flight=in_flight(unfinished),
        held=in_flight(held),
        held_since=held_since,
        notes=(*ready.notes, *notes),
        sample=sampled,
    )


def _open_run(
    ready: PreparedRun, ledger: Ledger | None, dataset_id: str
) -> tuple[RunRow | None, str | None]:
    """Return the dataset's open run, and why it is to stop before its end, if it is."""
    run = None if ledger is None else ledger.open_run(dataset_id)
    if ledger is None or run is None or is_of_other_kind(run, ready.table):
        return None, None  # one of the other kind is ended first
    return run, ledger.stop_reason(run.id)


def _pilot_of(ready: PreparedRun, ledger: Ledger | None, run: RunRow | None) -> PilotSent | None:
    """Return the pilot that the open run has sent, if a run of this very spec carries that on."""
    if ledger is None or run is None or run.spec_digest != ready.record["spec_digest"]:
        return None
    rows = int(json.loads(run.plan or "{}").get("pilot", 0))
    pilot = [chunk for chunk in ledger.chunks(run.id) if chunk.round == 1 and chunk.stop <= rows]
    unsent = (ChunkState.PLANNED, ChunkState.DROPPED)
    if not pilot or any(chunk.state in unsent for chunk in pilot):
        return None
    return PilotSent(rows, in_flight=any(chunk.state in UNFINISHED for chunk in pilot))


def _further_of(ledger: Ledger, unfinished: Iterable[Chunk]) -> int:
    """Return the most that further attempts at the rows of open batches may cost, in picodollars.

    Each has its share of what the plan of its run says.
    """
    rows = Counter[str]()
    for chunk in unfinished:
        if chunk.state in UNFINISHED:
            rows[chunk.run_id] += chunk.rows
    further = 0
    for run_id, count in rows.items():
        plan = PlanSummary.from_json(json.loads(ledger.run(run_id).plan or "{}"))
        further += -(-(plan.further or 0) * count // max(plan.requests, 1))
    return further


def _stands(ledger: Ledger | None, dataset_id: str, run: RunRow | None) -> Stands:
    """Return how the open run of a dataset stands."""
    if ledger is not None and ledger.is_held(dataset_id):
        return Stands.AT_WORK
    has_ended = run is None or run.result is not None
    if ledger is None or has_ended or ledger.left_by(dataset_id) is None:
        return Stands.STOPPED
    return Stands.SUSPENDED


def _going_on(
    ready: PreparedRun, ledger: Ledger | None, dataset_id: str, options: Options
) -> tuple[Options, Predecessor | None, tuple[str, ...]]:
    """Return the options with which a run would plan, and what an unfinished one has used.

    Last comes what is to be told of a refresh that goes on.
    """
    if ledger is None:
        return options, None, ()
    going, before = goes_on(ledger, DatasetFolder(ready.spec.output), dataset_id, ready, options)
    if before is None:
        going = going_on(ledger, dataset_id, ready, options)
    if going.refresh_before in (None, options.refresh_before):
        return going, before, ()
    return going, before, (going_on_words(going.refresh_before),)


def _planner(
    ready: PreparedRun,
    folder: Path,
    dataset_id: str,
    ahead: LostRows,
    unfinished: list[Chunk],
    options: Options,
    sent_before: SentBefore,
    *,
    pilots: bool,
) -> Planner:
    """Return a planner of the types that hold from now on."""
    unlanded = [chunk.id for chunk in unfinished]
    require_known_key(ready.table, DatasetFolder(ready.spec.output))
    settled = settle(ready.table, DatasetFolder(ready.spec.output), unlanded)
    claimed, legacy = ahead.row_ids, settled.declared.legacy()
    planner = Planner(
        ready.table,
        folder,
        dataset_id,
        options,
        claimed=claimed,
        legacy=legacy,
        lands_first=True,
        sent_before=sent_before,
        pilots=pilots,
    )
    settled.note(planner.summary)
    return planner


def _stopped(ready: PreparedRun, run: RunRow | None, options: Options) -> str | None:
    """Return why a run of this very spec stopped, if that keeps the next one from sending."""
    if run is None or run.spec_digest != ready.record["spec_digest"]:
        return None
    if options.retry_failed and run.result in UNTIL_LOOKED_AT:
        return None
    return run.result if run.result in STOPPED_FIRST else None


def _look_at_dataset(
    ready: PreparedRun, ledger: Ledger | None, *, take_over: bool
) -> tuple[str, LostRows, Iterable[SentRow]]:
    """Return a dataset's id, what a run would recover, and the rows at the provider."""
    folder = DatasetFolder(ready.spec.output)
    owner = folder.owner()
    if owner is not None and (ledger is None or owner["ledger_id"] != ledger.id):
        raise another_ledgers(folder)
    require_one_name(folder, ledger)
    if ledger is not None:
        require_current(folder, ledger)
        if ready.spec.budget is not None:
            require_current_budgets(ledger)
    dataset_id = None if ledger is None else find_dataset(folder, ledger)
    if not take_over:
        require_own_spec(folder, ledger, dataset_id, ready.spec)
    if dataset_id is None or ledger is None:
        return "preview", LostRows(), ()
    if ready.table.rehearsal and ledger.sent_for_real(dataset_id):
        raise replaces_answers(ready.spec.output)
    ended = _ended_first(ready, ledger, dataset_id)
    is_older = is_to_be_read(ready.table, folder, ledger, dataset_id)
    reread = [schema_part_of(ready.table.answers.common)] if is_older else []
    ahead = lost_rows(ledger, folder, dataset_id, ready.spec.key, ended, reread)
    check = ready.table.dataset.check_key
    unfinished = ledger.unfinished_chunks(dataset_id, "")
    not_waited = {chunk.id for chunk in unfinished if chunk.run_id in ended} | ahead.chunks
    sent = rows_in_flight(folder, ledger, dataset_id, "", ready.spec.key, not_waited, check)
    return dataset_id, ahead, sent


def _unset_keys(ready: PreparedRun) -> list[str]:
    """Return what a run needs, though a plan does not: the keys that are not set."""
    names = [unset_key(adapter.key_variables, adapter.credentials) for adapter in ready.adapters]
    return [f"{name} is not set: `run` needs it" for name in dict.fromkeys(names) if name]


def _ended_first(ready: PreparedRun, ledger: Ledger, dataset_id: str) -> set[str]:
    """Return the runs that a run of the spec ends without a wait: rehearsals, if it is real."""
    return set() if ready.table.rehearsal else ledger.rehearsals(dataset_id)


def _unfinished(ready: PreparedRun, ledger: Ledger, dataset_id: str) -> list[Chunk]:
    ended = _ended_first(ready, ledger, dataset_id)
    chunks = ledger.unfinished_chunks(dataset_id, "")
    return [chunk for chunk in chunks if chunk.run_id not in ended]


def _in_the_way(
    ready: PreparedRun,
    ledger: Ledger | None,
    dataset_id: str,
    unfinished: list[Chunk],
    options: Options,
) -> tuple[str, ...]:
    """Return sentences on what a run of the spec would end with before it sends anything."""
    if ledger is None:
        return ()
    texts, folder = list[str](), DatasetFolder(ready.spec.output)
    sent = [chunk for chunk in unfinished if chunk.state not in SET_ASIDE]
    if not ledger.is_held(dataset_id) and (change := what_environment_lacks(ledger, sent)):
        texts.append(
            f"open batches of an earlier run are not to be seen now: {change}; until then `run` "
            "ends with that as an error"
        )
    reason = what_lacks(folder, ledger, dataset_id, ready.spec)
    if reason is not None and not options.retry_failed:
        texts.append(f"`run` looks once more, and else sends nothing: {reason.removesuffix('.')}")
    return tuple(texts)


def _sent_first(ledger: Ledger, chunks: Iterable[Chunk]) -> float | None:
    """Return when the oldest of some chunks was sent, in seconds since 1970."""
    times = [
        ledger.intent(chunk.id).sent_at
        if chunk.batch_id is None
        else ledger.submitted_at(chunk.batch_id)
        for chunk in chunks
    ]
    return min((moment / 1e6 for moment in times if moment is not None), default=None)


def _without_rows(chunks: list[PlannedChunk], rows: int) -> list[PlannedChunk]:
    """Return chunks without their first `rows` rows, each counted as the mean of its chunk."""
    remaining: list[PlannedChunk] = []
    for chunk in chunks:
        count = chunk.stop - chunk.start
        removed = min(rows, count)
        rows -= removed
        if removed == count:
            continue
        size = chunk.bytes * (count - removed) // count
        bound = chunk.bound * (count - removed) // count
        start = chunk.start + removed
        remaining.append(replace(chunk, start=start, bytes=size, bound=bound))
    return remaining
