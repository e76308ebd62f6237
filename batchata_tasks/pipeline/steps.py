"""The steps of the way: plain functions of a run's name, so that each can be a Prefect task.

What a step returns is small: ids and counts. Its context is found by the name, in whichever
process the step is done (see `execution/contexts.py`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from batchata_tasks.common.errors import LedgerError
from batchata_tasks.common.text import pluralize
from batchata_tasks.dataset.manifest import plan_bodies, write_chunk_manifest
from batchata_tasks.dataset.part_files import part_of_chunk
from batchata_tasks.execution.contexts import context_of
from batchata_tasks.execution.land import collect_and_land
from batchata_tasks.execution.lost_files import write_spec
from batchata_tasks.execution.made_part import make_ordered
from batchata_tasks.execution.missing import follow_source
from batchata_tasks.execution.poll import poll
from batchata_tasks.execution.submit import submit
from batchata_tasks.ledger import Chunk, ChunkKind, ChunkState, RunPhase
from batchata_tasks.pipeline.one_chunk import ChunkSteps, Step
from batchata_tasks.pipeline.planning_run import Recovery, planning_run
from batchata_tasks.pipeline.recover import land_recovered
from batchata_tasks.pipeline.rounds import plan_round
from batchata_tasks.pipeline.start import rows_in_flight
from batchata_tasks.planning.estimate import forecast_costs, measures
from batchata_tasks.planning.missing import require_whole_source
from batchata_tasks.planning.planner import Planner
from batchata_tasks.planning.renamed import note_renamed, require_known_key
from batchata_tasks.planning.settle import settle
from batchata_tasks.planning.summary import NOTHING_SENT, Options, PlanSummary
from batchata_tasks.providers import provider_type
from batchata_tasks.providers.request_file import write_request_file
from batchata_tasks.types.ids import chunk_token

if TYPE_CHECKING:
    from batchata_tasks.execution.run_ref import MakesParts, PartOrder, RunRef
    from batchata_tasks.pipeline.planning_run import PlanningRun
    from batchata_tasks.planning.estimate import Estimate
    from batchata_tasks.planning.packing import PlannedChunk
    from batchata_tasks.planning.settle import Settled

RunStep = Callable[["RunRef"], dict[str, Any]]
"""A step of a whole run, given the run's name."""

_FIRST_ROUND = 1


def plan_step(ref: RunRef) -> dict[str, Any]:
    """Read the source, decide row by row, fix the run's chunk list in the ledger."""
    run = planning_run(ref)
    row = run.ledger.run(ref.run_id)
    if row.state == RunPhase.OPEN:
        return PlanSummary().to_json() if row.plan is None else {"resumed": True}
    tried_since = None if run.predecessor is None else run.predecessor.started_at
    options = Options(row.refresh_before, bool(row.retry_failed), tried_since)
    recovered = 0
    if run.recovery is not None:  # first, so that what comes back is planned like anything else
        recovered = _planned(run, options, run.recovery)[0].summary.recovered
        land_recovered(run, run.recovery)
    planner, spans = _planned(run, options)
    summary = planner.summary
    summary.recovered = recovered
    chunks = _chunks(run, summary, spans)
    run.ledger.check_lease(run.lease)  # right before files change
    # a Batch that was recovered is known by its newest spec, whose jobs are there
    if chunks or run.recovery is not None:
        write_spec(run.folder, row)
    run.ledger.fix_plan(run.lease, ref.run_id, summary.to_json(), chunks)
    return summary.to_json()


def _planned(
    run: PlanningRun, options: Options, recovery: Recovery | None = None
) -> tuple[Planner, list[PlannedChunk]]:
    """Make a planning pass, and bring the dataset up to date with it.

    The rows that `recovery` has answers for are planned apart.
    """
    table, is_last = run.table, recovery is None
    recovery = recovery or Recovery({})
    require_known_key(table, run.folder)
    unfinished = run.ledger.unfinished_chunks(run.lease.dataset_id, "")
    settled = settle(table, run.folder, [chunk.id for chunk in unfinished])
    planner = _planner(run, options, recovery, settled)
    for text in planner.summary.misfit_texts():
        run.log(f"answers: {text}.")
    in_flight = rows_in_flight(
        run.folder,
        run.ledger,
        run.lease.dataset_id,
        run.run_id,
        run.spec.key,
        recovery.claims,
        table.dataset.check_key,
    )
    spans = planner.run(in_flight)
    note_renamed(table, run.folder, planner.summary)
    if is_last and (text := planner.summary.textless_text()) is not None:
        run.log(f"enable_citations: {text}.")
    if is_last:
        require_whole_source(table, planner.missing, planner.summary)
    run.ledger.check_lease(run.lease)  # right before files change
    settled.declared.write(run.folder)  # before any part is rewritten
    table.dataset.tidy()
    table.dataset.supersede(planner.doubled)
    table.dataset.conform()
    table.dataset.carry(planner.carried)
    if is_last:
        follow_source(run.held, table, planner.missing)
    return planner, spans


def _planner(run: PlanningRun, options: Options, recovery: Recovery, settled: Settled) -> Planner:
    """Return a planner of the types that hold from now on."""

    def progress(rows: int) -> None:
        run.raise_if_left()
        run.held.progress.planning(rows)

    unlanded = () if run.before is None else run.before.unlanded
    before = run.predecessor
    planner = Planner(
        run.table,
        run.folder.run_folder(run.run_id),
        run.lease.dataset_id,
        options,
        progress,
        recovery.row_ids,
        settled.declared.legacy(),
        recovery.reread,
        frozenset(map(part_of_chunk, unlanded)),
        sent_before=NOTHING_SENT if before is None else before.sent(run.ledger),
        pilots=before is None or not before.piloted,
    )
    settled.note(planner.summary)
    return planner


def _chunks(run: PlanningRun, summary: PlanSummary, spans: list[PlannedChunk]) -> list[Chunk]:
    """Return the chunks of a plan, and note in its summary what they are likely to cost."""
    plan_folder = run.folder.run_folder(run.run_id)
    usages = measures(run.ledger, run.table, spans, plan_folder)
    likely = forecast_costs(summary, spans, usages)
    chunks = [_chunk_of(run, span, one) for span, one in zip(spans, likely, strict=True)]
    if summary.unsendable:
        chunks.append(_unsendable_chunk(run, summary.unsendable))
    return chunks


def _chunk_of(run: PlanningRun, span: PlannedChunk, likely: Estimate) -> Chunk:
    route = run.table.builder.routes[span.route]
    provider, model, endpoint = route.destination
    return Chunk(
        id=chunk_token(run.run_id, _FIRST_ROUND, span.start, ChunkKind.BATCH),
        run_id=run.run_id,
        dataset_id=run.lease.dataset_id,
        round=_FIRST_ROUND,
        kind=ChunkKind.BATCH,
        provider=provider,
        model=model,
        endpoint=endpoint,
        start=span.start,
        stop=span.stop,
        bytes=span.bytes,
        bound=span.bound if route.rates is not None else None,
        state=ChunkState.PLANNED,
        expected=likely.cost,
        tokens=likely.input_tokens,
    )


def _unsendable_chunk(run: PlanningRun, rows: int) -> Chunk:
    """Return the chunk of the rows that cannot be sent at all."""
    to = run.spec.destinations()[0]
    return Chunk(
        id=chunk_token(run.run_id, _FIRST_ROUND, 0, ChunkKind.LOCAL),
        run_id=run.run_id,
        dataset_id=run.lease.dataset_id,
        round=_FIRST_ROUND,
        kind=ChunkKind.LOCAL,
        provider=to.provider,
        model=to.model,
        endpoint=to.endpoint,
        start=0,
        stop=rows,
        bytes=0,
        bound=0 if run.rates(to) is not None else None,
        state=ChunkState.PLANNED,
    )


def round_step(ref: RunRef) -> dict[str, Any]:
    """Plan the run's next round: rows that are worth another attempt."""
    run = planning_run(ref)
    chunks = plan_round(run)
    rows = sum(chunk.rows for chunk in chunks)
    if chunks:
        worth = pluralize(rows, "row is", "rows are")
        run.log(f"round {chunks[0].round}: {worth} worth another attempt.")
    return {"chunks": len(chunks), "rows": rows}


def chunk_step(ref: RunRef, chunk_id: str) -> dict[str, Any]:
    """Write a chunk's request file and manifest from its rows of the plan."""
    run = context_of(ref)
    chunk = run.ledger.chunk(chunk_id)
    plan_folder = run.folder.run_folder(ref.run_id)

    def gate() -> None:
        """Refuse to put files in place that another process has made, and used, meanwhile."""
        if run.ledger.chunk(chunk_id) != chunk:
            message = f"the chunk {chunk_id} has changed since its files were begun; start again."
            raise LedgerError(message)

    with run.state.writing:
        run.raise_if_left()
        write_chunk_manifest(plan_folder, chunk, run.folder.manifest(chunk.id), gate)
        if chunk.kind == ChunkKind.BATCH:
            framing = provider_type(chunk.provider, chunk.endpoint).framing
            bodies = plan_bodies(plan_folder, chunk)
            write_request_file(run.request_file(chunk), framing, chunk.id, bodies, gate)
    return {"chunk": chunk.id, "rows": chunk.rows, "bytes": chunk.bytes}


def part_step(ref: RunRef, order: PartOrder) -> dict[str, Any] | None:
    """Make a chunk's part of its results, in another process than the one that lands it."""
    run = context_of(ref)
    made = make_ordered(run, order)
    return None if made is None else made.to_json()


def submit_step(ref: RunRef, chunk_id: str) -> dict[str, Any]:
    """Send a chunk, once; return its batch id, None if the run is to stop before that."""
    run = context_of(ref)
    chunk = run.ledger.chunk(chunk_id)
    batch_id = chunk.batch_id
    if batch_id is None:
        batch_id = submit(run.for_chunk(chunk), chunk, run.request_file(chunk))
    return {"chunk": chunk.id, "batch_id": batch_id}


def poll_step(ref: RunRef, chunk_id: str) -> dict[str, Any]:
    """Wait for a chunk's batch to end, unless it becomes overdue, or the run does not wait for it.

    Then it has not `ended`, and `waits` at the provider.
    """
    run = context_of(ref)
    chunk = run.ledger.chunk(chunk_id)
    look = poll(run.for_chunk(chunk), chunk, run.held.letting_go.after)
    if look is None:
        return {"batch_id": chunk.batch_id, "status": ChunkState.OVERDUE.value, "ended": False}
    facts = {"batch_id": look.batch_id, "status": look.status, "ended": look.ended}
    return facts | {
        "no_room": look.no_room,
        "queue_limit": look.queue_limit,
        "waits": not look.ended,
    }


def collect_step(ref: RunRef, chunk_id: str) -> dict[str, Any]:
    """Download a chunk's results, settle its money, land its rows."""
    run = context_of(ref)
    chunk = run.ledger.chunk(chunk_id)
    outcomes = collect_and_land(run.for_chunk(chunk), chunk)
    return {"chunk": chunk_id, "outcomes": outcomes}


@dataclass(frozen=True)
class Steps(ChunkSteps):
    """The steps of the way; a layer may replace each by one that does the same and reports it."""

    plan: RunStep = plan_step
    next_round: RunStep = round_step
    chunk: Step = chunk_step
    submit: Step = submit_step
    poll: Step = poll_step
    collect: Step = collect_step
    makes_parts: MakesParts | None = None  # of the results that are collected; None: `collect`
