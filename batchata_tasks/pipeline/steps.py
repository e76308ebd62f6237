"""The steps of the way, each a plain function of ids, so that Prefect can put a task around it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from batchata_tasks.common.files import write_json
from batchata_tasks.common.text import counted
from batchata_tasks.dataset.manifest import plan_bodies, write_chunk_manifest
from batchata_tasks.execution.land import collect_and_land, emptying
from batchata_tasks.execution.poll import poll
from batchata_tasks.execution.recovery import Recovery
from batchata_tasks.execution.run_context import Session, session_of
from batchata_tasks.execution.submit import submit
from batchata_tasks.ledger import PLANNED, Chunk
from batchata_tasks.pipeline.recover import land_recovered
from batchata_tasks.pipeline.rounds import plan_round
from batchata_tasks.pipeline.scheduler import ChunkSteps, Step
from batchata_tasks.pipeline.start import in_flight_keys
from batchata_tasks.planning.estimate import foresee, measures
from batchata_tasks.planning.planner import Planner
from batchata_tasks.planning.summary import Options, PlanSummary
from batchata_tasks.providers.request_file import write_request_file
from batchata_tasks.types.ids import chunk_token

if TYPE_CHECKING:
    from collections.abc import Callable

    from batchata_tasks.planning.packing import Span
    from batchata_tasks.planning.table import Table

ROUND = 1


def plan_step(run_id: str) -> dict[str, Any]:
    """Read the source, decide row by row, fix the run's chunk list in the ledger."""
    session = session_of(run_id)
    run = session.ledger.run(run_id)
    if run.state == "open" or session.table is None:
        return PlanSummary().to_json() if run.plan is None else {"resumed": True}
    options = Options(run.refresh_before, bool(run.retry_failed))
    session.table.dataset.gate, session.table.dataset.emptied = session.must_hold, emptying(session)
    recovery, recovered = session.site.recovery, 0
    if recovery is not None:  # first, so that what comes back is planned like anything else
        recovered = _planned(session, session.table, options, recovery)[0].summary.recovered
        land_recovered(session, recovery)
    planner, spans = _planned(session, session.table, options)
    planner.summary.recovered = recovered
    expected = _expected(session, planner.summary, spans)
    chunks = [_chunk_of(session, span, cost) for span, cost in zip(spans, expected, strict=True)]
    if planner.summary.too_large:
        chunks.append(_local_chunk(session, planner.summary.too_large))
    session.ledger.check_lease(session.lease)  # right before files change
    if chunks:
        write_json(session.folder.specs / f"{run_id}.json", {"format": 1, "name": run.name, "spec": run.spec})
    session.ledger.fix_plan(session.lease, run_id, planner.summary.to_json(), chunks)
    return planner.summary.to_json()


def _chunk_of(session: Session, span: Span, expected: int | None) -> Chunk:
    assert session.table is not None  # noqa: S101 - a run that plans has one
    route = session.table.builder.routes[span.route]
    return Chunk(
        chunk_token(session.run_id, ROUND, span.start, "batch"), session.run_id, session.lease.dataset_id, ROUND, "batch",
        *route.destination, span.start, span.stop, span.bytes, span.bound if route.rates is not None else None, PLANNED,
        expected=expected,
    )


def _local_chunk(session: Session, rows: int) -> Chunk:
    """Return the chunk of the rows that cannot be sent at all."""
    token, to = chunk_token(session.run_id, ROUND, 0, "local"), session.spec.destinations()[0]
    bound = 0 if session.rates(to) is not None else None
    return Chunk(token, session.run_id, session.lease.dataset_id, ROUND, "local", *to, 0, rows, 0, bound, PLANNED)


def _planned(session: Session, table: Table, options: Options, recovery: Recovery | None = None) -> tuple[Planner, list[Span]]:
    """Make a planning pass, with the rows that `recovery` has answers for apart; bring the dataset up to date with it."""
    claims, dataset_id = recovery or Recovery({}), session.lease.dataset_id
    folder, progress = session.folder.run_folder(session.run_id), session.site.progress.planning
    planner = Planner(table, folder, dataset_id, options, progress, claims.row_ids)
    spans = planner.run(in_flight_keys(session.folder, session.ledger, dataset_id, session.run_id, session.spec.key, claims.claims))
    session.ledger.check_lease(session.lease)  # right before files change
    table.dataset.tidy()
    table.dataset.supersede(planner.doubled)
    table.dataset.conform()
    table.dataset.carry(planner.carried)
    return planner, spans


def _expected(session: Session, summary: PlanSummary, spans: list[Span]) -> list[int | None]:
    """Note what a plan is likely to cost, and return the same of each span."""
    assert session.table is not None  # noqa: S101 - a run that plans has one
    plan = session.folder.run_folder(session.run_id)
    return foresee(summary, spans, measures(session.ledger, session.table, spans, plan))


def round_step(run_id: str) -> dict[str, Any]:
    """Plan the run's next round: rows that are worth another attempt."""
    session = session_of(run_id)
    chunks = plan_round(session)
    if chunks:
        rows = counted(sum(chunk.rows for chunk in chunks), "row is", "rows are")
        session.say(f"round {chunks[0].round}: {rows} worth another attempt.")
    return {"chunks": len(chunks), "rows": sum(chunk.rows for chunk in chunks)}


def chunk_step(run_id: str, chunk_id: str) -> dict[str, Any]:
    """Write a chunk's request file and manifest from its rows of the plan."""
    session = session_of(run_id)
    chunk = session.ledger.chunk(chunk_id)
    plan_folder = session.folder.run_folder(run_id)
    write_chunk_manifest(plan_folder, chunk, session.folder.intents / f"{chunk.id}.arrow")
    if chunk.kind == "batch":
        framing = session.at(chunk).provider.framing
        write_request_file(session.request_file(chunk), framing, chunk.id, plan_bodies(plan_folder, chunk))
    return {"chunk": chunk.id, "rows": chunk.rows, "bytes": chunk.bytes}


def submit_step(run_id: str, chunk_id: str) -> dict[str, Any]:
    """Send a chunk, once; its batch id, none where the run is to stop before that."""
    session = session_of(run_id)
    chunk = session.ledger.chunk(chunk_id)
    batch_id = chunk.batch_id or submit(session.at(chunk), chunk, session.request_file(chunk))
    return {"chunk": chunk.id, "batch_id": batch_id}


def poll_step(run_id: str, chunk_id: str) -> dict[str, Any]:
    """Wait for a chunk's batch to end."""
    session = session_of(run_id)
    chunk = session.ledger.chunk(chunk_id)
    look = poll(session.at(chunk), chunk.batch_id or "")
    return {"batch_id": look.batch_id, "status": look.status, "no_room": look.no_room}


def collect_step(run_id: str, chunk_id: str) -> dict[str, Any]:
    """Stream a chunk's results home, settle its money, land its rows."""
    session = session_of(run_id)
    chunk = session.ledger.chunk(chunk_id)
    outcomes = collect_and_land(session.at(chunk), chunk)
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
