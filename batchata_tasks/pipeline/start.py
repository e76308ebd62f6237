"""Begins a run, or carries on one that died."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from batchata_tasks.common.canonical import key_digest
from batchata_tasks.common.clock import now_us
from batchata_tasks.common.errors import HeldError
from batchata_tasks.common.money import dollars
from batchata_tasks.dataset.columns import keys_of
from batchata_tasks.dataset.manifest import read_chunk_manifest
from batchata_tasks.dataset.packs import is_kept
from batchata_tasks.execution.run_context import RunContext, RunState, restored_context
from batchata_tasks.ledger import SET_ASIDE, ChunkState, Ledger, RunEnd, RunPhase
from batchata_tasks.pipeline.going_on import may_go_on, taken_over
from batchata_tasks.pipeline.planning_run import PlanningRun
from batchata_tasks.pipeline.receipt import RunResult
from batchata_tasks.pipeline.refresh import going_on, going_on_words
from batchata_tasks.pipeline.results_lacking import require_results
from batchata_tasks.planning.key_arrays import SentRow
from batchata_tasks.planning.limits import budget_member, limits_of, overruled

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterator

    import pyarrow as pa

    from batchata_tasks.dataset.folder import DatasetFolder
    from batchata_tasks.execution.held_dataset import HeldDataset
    from batchata_tasks.pipeline.planning_run import Recovery
    from batchata_tasks.planning.prepare import PreparedRun
    from batchata_tasks.planning.route import Route
    from batchata_tasks.planning.summary import Options
    from batchata_tasks.planning.table import PreparedTable
    from batchata_tasks.types.budget import BudgetTerms
    from batchata_tasks.types.destination import Destination


def start_run(
    held: HeldDataset, ready: PreparedRun, options: Options, recovery: Recovery | None
) -> PlanningRun:
    """Begin a run, or carry on a dead one of the same spec, whose plan then stands.

    Raises:
        HeldError: results of earlier runs' batches cannot be had, so that a person is to look.
    """
    dead = held.ledger.open_run(held.lease.dataset_id)
    if dead is not None and may_go_on(held.folder, held.ledger, dead, ready, options, recovery):
        _tell_overruled(held, ready)
        run = _planning_run(held, dead.id, ready.table, recovery, continued=True)
        if dead.result == RunResult.ACCOUNT_TROUBLE:
            held.ledger.resume(held.lease, dead.id)
            run.state.one_at_a_time = True
        for route in ready.table.builder.routes:
            route.factor = run.planned_factor(route.destination)
            route.rates = run.rates(route.destination)
        return run
    if recovery is None and not options.retry_failed:
        require_results(held, ready.spec)
    correct_bounds(held.ledger, ready.table)
    if dead is not None:  # it died while planning: nothing was sent
        held.folder.drop_run_folder(dead.id)
        held.ledger.close_run(held.lease, dead.id, RunEnd.ABANDONED)
    run_id = _begin(held, ready, options)
    run = _planning_run(held, run_id, ready.table, recovery, continued=False)
    run.state.one_at_a_time = run.predecessor is not None and run.predecessor.troubled
    return run


def _begin(held: HeldDataset, ready: PreparedRun, options: Options) -> str:
    """Write a new run to the ledger; return its id."""
    spec, ledger = ready.spec, held.ledger
    dataset_id, anew = held.lease.dataset_id, options
    options, before = taken_over(ledger, dataset_id, ready, options)
    if before is None:
        options = going_on(ledger, dataset_id, ready, options)
        if options.refresh_before is not None and options != anew:
            held.progress.note(f"{going_on_words(options.refresh_before)}.")
    rehearsal = ready.table.rehearsal
    limits = limits_of(spec, rehearsal=rehearsal)
    if limits.budget is not None:
        _agree_budget(held, limits.budget, budget_member(spec))
        _tell_overruled(held, ready)
    values = {
        **ready.record,
        "refresh_before": options.refresh_before,
        "retry_failed": int(options.retry_failed),
        "cost_limit": limits.run,
        "rehearsal": int(rehearsal),
        "price_source": price_source(ready.table),
    }
    if before is not None:
        values["spec"] = before.noted_in(ready.record["spec"])
        if limits.run is not None:
            spent = f"{dollars(before.spent)} of its limit of {dollars(limits.run)}"
            held.progress.note(f"it goes on as a run that was planned anew: {spent} is used up.")
    run_id = ledger.begin_run(held.lease, values)
    held.folder.sweep(_jobs_in_use(held))
    return run_id


def _agree_budget(held: HeldDataset, terms: BudgetTerms, member: str) -> None:
    """Record a spec's terms for a budget; say so if they change those that bind every spec.

    Nobody sees it otherwise if two folders, or machines, have different files of budgets.
    """
    before = held.ledger.binding(terms)
    held.ledger.agree_budget(terms, member)
    if (now := held.ledger.binding(terms)) != before:
        change = f"{now.in_words()} from now on; it was {before.in_words()}"
        who = terms.file or "this spec"
        held.progress.note(f"budget {terms.label!r}: {change}. So says {who}.")


def _tell_overruled(held: HeldDataset, ready: PreparedRun) -> None:
    """Say so if a limit that was set by hand holds, and not the one that the spec states."""
    terms = limits_of(ready.spec, rehearsal=ready.table.rehearsal).budget
    if terms is not None and (text := overruled(terms, held.ledger.binding(terms))) is not None:
        held.progress.note(f"budget {terms.label!r}: {text}.")


def _jobs_in_use(held: HeldDataset) -> set[str]:
    """Return the names of the job files of the ledger's runs: a state file leads to them."""
    if not held.folder.jobs.exists():
        return set()
    specs = [json.loads(text)["spec"] for text in held.ledger.specs_of(held.lease.dataset_id)]
    return {Path(spec["jobs"]).name for spec in specs if "jobs" in spec}


def correct_bounds(ledger: Ledger, table: PreparedTable) -> None:
    """Multiply the bounds of models of which an answer once cost more than its bound."""
    for route in table.builder.routes:
        route.factor = ledger.bounds_factor(
            route.provider.name, route.model, rehearsal=table.rehearsal
        )


def price_source(table: PreparedTable) -> str | None:
    """Return where the prices of a plan come from; None if no price is known."""
    rates = [route.rates for route in table.builder.routes if route.rates is not None]
    return "; ".join(dict.fromkeys(rate.source for rate in rates)) or None


def _planning_run(
    held: HeldDataset,
    run_id: str,
    table: PreparedTable,
    recovery: Recovery | None,
    *,
    continued: bool,
) -> PlanningRun:
    return PlanningRun(
        held,
        run_id,
        table.spec,
        table.answers,
        continued=continued,
        state=RunState(routes=_routes(table)),
        table=table,
        recovery=recovery,
    )


def _routes(table: PreparedTable) -> dict[tuple[Destination, str | None], Route]:
    """Return the routes of a table as a run keeps them, by block of credentials, too."""
    routes = table.builder.routes
    return {(route.destination, route.provider.credentials.block): route for route in routes}


def unfinished_run(
    held: HeldDataset, ready: PreparedRun, options: Options, recovery: Recovery | None
) -> RunContext | None:
    """Return an unfinished run that this one cannot continue, if there is one.

    It has another spec, an older text of this one, or narrower options. Its rows land under its own
    spec and response model, as the ledger keeps them.
    """
    dead = held.ledger.open_run(held.lease.dataset_id)
    if (
        dead is None
        or dead.state != RunPhase.OPEN
        or may_go_on(held.folder, held.ledger, dead, ready, options, recovery)
    ):
        return None
    return restored_context(held, dead)


def rows_in_flight(
    folder: DatasetFolder,
    ledger: Ledger,
    dataset_id: str,
    but_run: str,
    key: list[str],
    but_chunks: Container[str] = (),
    check: Callable[[pa.Schema], None] | None = None,
) -> Iterator[SentRow]:
    """Yield the rows that other runs sent and nobody landed yet.

    One is held if it is set aside, so that no run waits for it.

    `check` raises if the columns of such rows have another key than the present one.
    """
    for chunk in ledger.unfinished_chunks(dataset_id, but_run):
        if chunk.id in but_chunks:
            continue
        if chunk.state in SET_ASIDE and not is_kept(folder.manifest(chunk.id)):
            remedy = (
                f"`batchata reconcile --adopt {chunk.id}=BATCH` or `batchata reconcile --resend "
                f"{chunk.id}`, after a look into the "
                "provider's console,"
            )
            if chunk.state == ChunkState.OVERDUE:
                remedy = f"`batchata reconcile --abandon {chunk.batch_id}`"
            message = (
                f"the rows of chunk {chunk.id} are held, and which ones they are is lost: "
                f"decide with {remedy} first."
            )
            raise HeldError(message)
        manifest = read_chunk_manifest(folder.manifest(chunk.id))
        if check is not None:
            check(manifest.schema)
        is_held = chunk.state in SET_ASIDE
        prints: list[str] = manifest["_fingerprint"].to_pylist()
        for row_key, text in zip(keys_of(manifest, key), prints, strict=True):
            yield SentRow(key_digest(row_key), is_held, text)


def refresh_mark(refresh: bool) -> int | None:  # noqa: FBT001 - a yes or no of the command line
    """Return the moment before which landed rows count as not landed."""
    return now_us() if refresh else None
