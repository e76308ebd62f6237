"""The steps of the way, each a plain function of ids, so that Prefect can put a task around it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from batchata_tasks.common.files import write_json
from batchata_tasks.common.text import pluralize
from batchata_tasks.dataset.manifest import plan_bodies, write_chunk_manifest
from batchata_tasks.execution.held_dataset import Recovery
from batchata_tasks.execution.land import collect_and_land, emptying
from batchata_tasks.execution.poll import poll
from batchata_tasks.execution.run_context import RunContext, context_of
from batchata_tasks.execution.submit import submit
from batchata_tasks.ledger import Chunk, ChunkKind, ChunkState, RunPhase
from batchata_tasks.pipeline.recover import land_recovered
from batchata_tasks.pipeline.rounds import plan_round
from batchata_tasks.pipeline.scheduler import ChunkSteps, Step
from batchata_tasks.pipeline.start import in_flight_keys
from batchata_tasks.planning.estimate import forecast_costs, measures
from batchata_tasks.planning.planner import Planner
from batchata_tasks.planning.summary import Options, PlanSummary
from batchata_tasks.providers.request_file import write_request_file
from batchata_tasks.types.ids import chunk_token

if TYPE_CHECKING:
    from collections.abc import Callable

    from batchata_tasks.planning.packing import PlannedChunk
    from batchata_tasks.planning.table import PreparedTable

ROUND = 1


def plan_step(run_id: str) -> dict[str, Any]:
    """Read the source, decide row by row, fix the run's chunk list in the ledger."""
    context = context_of(run_id)
    run = context.ledger.run(run_id)
    if run.state == RunPhase.OPEN or context.table is None:
        return PlanSummary().to_json() if run.plan is None else {"resumed": True}
    options = Options(run.refresh_before, bool(run.retry_failed))
    context.table.dataset.gate, context.table.dataset.emptied = (
        context.require_lease,
        emptying(context),
    )
    recovery, recovered = context.held.recovery, 0
    if recovery is not None:  # first, so that what comes back is planned like anything else
        recovered = _planned(context, context.table, options, recovery)[0].summary.recovered
        land_recovered(context, recovery)
    planner, spans = _planned(context, context.table, options)
    planner.summary.recovered = recovered
    expected = _expected(context, planner.summary, spans)
    chunks = [_chunk_of(context, span, cost) for span, cost in zip(spans, expected, strict=True)]
    if planner.summary.too_large:
        chunks.append(_local_chunk(context, planner.summary.too_large))
    context.ledger.check_lease(context.lease)  # right before files change
    if chunks:
        write_json(
            context.folder.specs / f"{run_id}.json",
            {"format": 1, "name": run.name, "spec": run.spec},
        )
    context.ledger.fix_plan(context.lease, run_id, planner.summary.to_json(), chunks)
    return planner.summary.to_json()


def _chunk_of(context: RunContext, span: PlannedChunk, expected: int | None) -> Chunk:
    assert context.table is not None  # noqa: S101 - a run that plans has one
    route = context.table.builder.routes[span.route]
    return Chunk(
        chunk_token(context.run_id, ROUND, span.start, ChunkKind.BATCH),
        context.run_id,
        context.lease.dataset_id,
        ROUND,
        ChunkKind.BATCH,
        *route.destination,
        span.start,
        span.stop,
        span.bytes,
        span.bound if route.rates is not None else None,
        ChunkState.PLANNED,
        expected=expected,
    )


def _local_chunk(context: RunContext, rows: int) -> Chunk:
    """Return the chunk of the rows that cannot be sent at all."""
    token, to = (
        chunk_token(context.run_id, ROUND, 0, ChunkKind.LOCAL),
        context.spec.destinations()[0],
    )
    bound = 0 if context.rates(to) is not None else None
    return Chunk(
        token,
        context.run_id,
        context.lease.dataset_id,
        ROUND,
        ChunkKind.LOCAL,
        *to,
        0,
        rows,
        0,
        bound,
        ChunkState.PLANNED,
    )


def _planned(
    context: RunContext, table: PreparedTable, options: Options, recovery: Recovery | None = None
) -> tuple[Planner, list[PlannedChunk]]:
    """Make a planning pass, with the rows that `recovery` has answers for apart; bring the dataset up to date with it."""
    claims, dataset_id = recovery or Recovery({}), context.lease.dataset_id
    folder, progress = context.folder.run_folder(context.run_id), context.held.progress.planning
    planner = Planner(table, folder, dataset_id, options, progress, claims.row_ids)
    spans = planner.run(
        in_flight_keys(
            context.folder,
            context.ledger,
            dataset_id,
            context.run_id,
            context.spec.key,
            claims.claims,
        )
    )
    context.ledger.check_lease(context.lease)  # right before files change
    table.dataset.tidy()
    table.dataset.supersede(planner.doubled)
    table.dataset.conform()
    table.dataset.carry(planner.carried)
    return planner, spans


def _expected(
    context: RunContext, summary: PlanSummary, spans: list[PlannedChunk]
) -> list[int | None]:
    """Note what a plan is likely to cost, and return the same of each span."""
    assert context.table is not None  # noqa: S101 - a run that plans has one
    plan = context.folder.run_folder(context.run_id)
    return forecast_costs(summary, spans, measures(context.ledger, context.table, spans, plan))


def round_step(run_id: str) -> dict[str, Any]:
    """Plan the run's next round: rows that are worth another attempt."""
    context = context_of(run_id)
    chunks = plan_round(context)
    if chunks:
        rows = pluralize(sum(chunk.rows for chunk in chunks), "row is", "rows are")
        context.log(f"round {chunks[0].round}: {rows} worth another attempt.")
    return {"chunks": len(chunks), "rows": sum(chunk.rows for chunk in chunks)}


def chunk_step(run_id: str, chunk_id: str) -> dict[str, Any]:
    """Write a chunk's request file and manifest from its rows of the plan."""
    context = context_of(run_id)
    chunk = context.ledger.chunk(chunk_id)
    plan_folder = context.folder.run_folder(run_id)
    write_chunk_manifest(plan_folder, chunk, context.folder.manifest(chunk.id))
    if chunk.kind == ChunkKind.BATCH:
        framing = context.for_chunk(chunk).provider.framing
        write_request_file(
            context.request_file(chunk), framing, chunk.id, plan_bodies(plan_folder, chunk)
        )
    return {"chunk": chunk.id, "rows": chunk.rows, "bytes": chunk.bytes}


def submit_step(run_id: str, chunk_id: str) -> dict[str, Any]:
    """Send a chunk, once; its batch id, none where the run is to stop before that."""
    context = context_of(run_id)
    chunk = context.ledger.chunk(chunk_id)
    batch_id = chunk.batch_id or submit(
        context.for_chunk(chunk), chunk, context.request_file(chunk)
    )
    return {"chunk": chunk.id, "batch_id": batch_id}


def poll_step(run_id: str, chunk_id: str) -> dict[str, Any]:
    """Wait for a chunk's batch to end."""
    context = context_of(run_id)
    chunk = context.ledger.chunk(chunk_id)
    look = poll(context.for_chunk(chunk), chunk.batch_id or "")
    return {"batch_id": look.batch_id, "status": look.status, "no_room": look.no_room}


def collect_step(run_id: str, chunk_id: str) -> dict[str, Any]:
    """Stream a chunk's results home, settle its money, land its rows."""
    context = context_of(run_id)
    chunk = context.ledger.chunk(chunk_id)
    outcomes = collect_and_land(context.for_chunk(chunk), chunk)
    return {"chunk": chunk_id, "outcomes": outcomes}


@dataclass(frozen=True)
class Steps(ChunkSteps):
    """The steps of the way; a layer may replace each by one that does the same and tells about it."""

    plan: Callable[[str], dict[str, Any]] = plan_step
    next_round: Callable[[str], dict[str, Any]] = round_step
    chunk: Step = chunk_step
    submit: Step = submit_step
    poll: Step = poll_step
    collect: Step = collect_step
