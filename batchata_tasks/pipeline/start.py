"""Beginning a run, carrying on one that died, and bringing home what one of another spec left."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from batchata_tasks.common.canonical import key_digest
from batchata_tasks.common.clock import now_us
from batchata_tasks.common.errors import HeldError
from batchata_tasks.dataset.columns import keys_of
from batchata_tasks.dataset.manifest import has_plan, read_chunk_manifest
from batchata_tasks.execution.run_context import RunContext, RunState
from batchata_tasks.ledger import ChunkState, Ledger, RunPhase
from batchata_tasks.pipeline.receipt import RunResult
from batchata_tasks.planning.limits import budget_member, limits_of
from batchata_tasks.schema.answers import AnswerSchemas
from batchata_tasks.spec.jobs import JobsSpec
from batchata_tasks.spec.loading import parse_spec

if TYPE_CHECKING:
    from collections.abc import Container, Iterator

    from batchata_tasks.dataset.folder import DatasetFolder
    from batchata_tasks.execution.held_dataset import HeldDataset
    from batchata_tasks.ledger import RunRow
    from batchata_tasks.planning.prepare import PreparedRun
    from batchata_tasks.planning.summary import Options
    from batchata_tasks.planning.table import PreparedTable


def start_run(held: HeldDataset, ready: PreparedRun, options: Options) -> RunContext:
    """Begin a run, or carry on a dead one of the same spec, whose plan then stands."""
    spec, table, ledger = ready.spec, ready.table, held.ledger
    dead = ledger.open_run(held.lease.dataset_id)
    if dead is not None and _may_go_on(held, dead, ready, options):
        context = _context(held, dead.id, table, continued=True)
        factors = context.plan().factors
        for route in table.builder.routes:
            route.factor, route.rates = (
                factors.get(route.destination.key, 10**6),
                context.rates(route.destination),
            )
        return context
    correct_bounds(ledger, table)
    if dead is not None:  # it died while planning: nothing was sent
        held.folder.drop_run_folder(dead.id)
        ledger.close_run(held.lease, dead.id, "abandoned")
    if spec.budget is not None:
        ledger.agree_budget(spec.budget.terms(), budget_member(spec))
    values = {
        **ready.record,
        "refresh_before": options.refresh_before,
        "retry_failed": int(options.retry_failed),
        "cost_limit": limits_of(spec).run,
        "price_source": price_source(table),
    }
    run_id = ledger.begin_run(held.lease, values)
    held.folder.sweep(_jobs_in_use(held))
    return _context(held, run_id, table, continued=False)


def _jobs_in_use(held: HeldDataset) -> set[str]:
    """Return the names of the files of jobs that the ledger's runs name: a state file leads to them."""
    if not held.folder.jobs.exists():
        return set()
    specs = [json.loads(text)["spec"] for text in held.ledger.specs_of(held.lease.dataset_id)]
    return {Path(spec["jobs"]).name for spec in specs if "jobs" in spec}


def correct_bounds(ledger: Ledger, table: PreparedTable) -> None:
    """Multiply bounds of models with what answers above them taught."""
    for route in table.builder.routes:
        route.factor = ledger.bounds_factor(route.provider.name, route.model)


def price_source(table: PreparedTable) -> str | None:
    """Say where the prices of a plan are from; None where none is known."""
    sources = dict.fromkeys(
        route.rates.source for route in table.builder.routes if route.rates is not None
    )
    return "; ".join(sources) or None


def _context(
    held: HeldDataset, run_id: str, table: PreparedTable, *, continued: bool
) -> RunContext:
    state = RunState(routes={route.destination: route for route in table.builder.routes})
    return RunContext(
        held, run_id, table.spec, table.answers, continued=continued, table=table, state=state
    )


def unfinished_run(held: HeldDataset, ready: PreparedRun, options: Options) -> RunContext | None:
    """Return a dead run of another spec, of an older text of this one, or one that was to send less, if there is one.

    Its rows land under its own spec and response model, as the ledger keeps them.
    """
    dead = held.ledger.open_run(held.lease.dataset_id)
    if dead is None or dead.state != RunPhase.OPEN or _may_go_on(held, dead, ready, options):
        return None
    return restored_context(held, dead)


def _may_go_on(held: HeldDataset, dead: RunRow, ready: PreparedRun, options: Options) -> bool:
    """Whether a dead run is carried on: the same spec, what is to be sent again was to be by then, and its plan is still there.

    One whose pilot did not hold is, so that it sends nothing, whatever is to be sent again.
    """
    same = (
        dead.state == RunPhase.OPEN
        and held.recovery is None
        and dead.spec_digest == ready.record["spec_digest"]
    )
    refreshes = options.refresh_before is None or dead.refresh_before is not None
    again = (
        refreshes and dead.retry_failed >= options.retry_failed
    ) or dead.result == RunResult.PILOT_FAILED
    return same and again and has_plan(held.folder.run_folder(dead.id), held.ledger.chunks(dead.id))


def restored_context(held: HeldDataset, run: RunRow) -> RunContext:
    """Return a context that lands what a run sent, under its own spec and response model; it sends nothing."""
    stored = json.loads(run.spec)
    kept = stored["spec"]
    spec = (
        JobsSpec.model_validate(kept)
        if kept.get("kind") == "jobs"
        else parse_spec(kept, "the ledger's copy of the spec")
    )
    return RunContext(
        held, run.id, spec, AnswerSchemas.from_json(stored), continued=True, sends=False
    )


def in_flight_keys(
    folder: DatasetFolder,
    ledger: Ledger,
    dataset_id: str,
    but_run: str,
    key: list[str],
    but_chunks: Container[str] = (),
) -> Iterator[bytes]:
    """Yield the keys (digests) of rows that other runs sent and nobody landed yet."""
    for chunk in ledger.unfinished_chunks(dataset_id, but_run):
        if chunk.id in but_chunks:
            continue
        if chunk.state == ChunkState.HELD and not folder.manifest(chunk.id).exists():
            message = f"the rows of chunk {chunk.id} are held, and which ones they are is lost: decide with `batchata reconcile` first."
            raise HeldError(message)
        manifest = read_chunk_manifest(folder.manifest(chunk.id))
        yield from map(key_digest, keys_of(manifest, key))


def refresh_mark(refresh: bool) -> int | None:  # noqa: FBT001 - a yes or no of the command line
    """Return the moment before which landed rows count as not landed."""
    return now_us() if refresh else None
