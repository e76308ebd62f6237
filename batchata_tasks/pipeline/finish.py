"""Finishing: a run's receipt from what the ledger and the commits say, the run closed, its leftovers discarded."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from batchata_tasks.common.clock import now_us
from batchata_tasks.common.money import exact
from batchata_tasks.common.text import pluralize
from batchata_tasks.execution.bound_corrections import OUTGROWN
from batchata_tasks.execution.cleanup import discard_left_results, discard_uploads
from batchata_tasks.execution.land import commit_of
from batchata_tasks.ledger import ChunkState, StopReason
from batchata_tasks.pipeline.receipt import (
    CACHE_MINIMUM,
    EXIT_CODES,
    Receipt,
    RunResult,
    rows_by_outcome,
)
from batchata_tasks.pipeline.receipt_money import (
    budget_facts,
    cache_facts,
    cost_is_known,
    money_facts,
)
from batchata_tasks.types.outcome import Outcome

if TYPE_CHECKING:
    from collections.abc import Mapping

    from batchata_tasks.execution.run_context import RunContext
    from batchata_tasks.ledger import OutcomeTotals

_STOPPED: dict[str, RunResult] = {
    StopReason.TIME_LIMIT: RunResult.TIME_LIMIT_REACHED,
    StopReason.CANCEL: RunResult.CANCELLED,
    StopReason.SHUTDOWN: RunResult.CANCELLED,
    StopReason.OVER_BOUND: RunResult.COST_LIMIT_REACHED,
}


def finish(context: RunContext, *, stopped_by_limit: bool) -> Receipt:
    """Close the run in the ledger, drop its plan, return its receipt."""
    receipt = _receipt(context, RunResult.COST_LIMIT_REACHED if stopped_by_limit else None)
    context.ledger.close_run(context.lease, context.run_id, receipt.result)
    receipt = replace(
        receipt, budget=budget_facts(context)
    )  # now that what was not sent is given back
    discard_uploads(context)
    discard_left_results(context)
    context.folder.drop_run_folder(context.run_id)
    if not context.spec.raw_files:
        _drop_raw_files(context)
    return receipt


def leave_open(context: RunContext, reason: str) -> Receipt:
    """Return the receipt of a run whose pilot did not hold: it stays open, so that it sends nothing when it is started again."""
    context.ledger.note_result(context.lease, context.run_id, RunResult.PILOT_FAILED)
    return replace(
        _receipt(context, RunResult.PILOT_FAILED), reason=reason, budget=budget_facts(context)
    )


def _receipt(context: RunContext, stopped: RunResult | None) -> Receipt:
    run, plan = context.ledger.run(context.run_id), context.plan()
    chunks = context.ledger.chunks(context.run_id)
    tallies = context.ledger.outcomes(context.run_id)
    outcomes = rows_by_outcome(tallies)
    failed = sum(rows for name, rows in outcomes.items() if name != Outcome.SUCCEEDED)
    share = failed / max(sum(outcomes.values()), 1)
    held = sum(
        chunk.rows
        for chunk in context.ledger.chunks_in((ChunkState.HELD,))
        if chunk.dataset_id == context.lease.dataset_id
    )
    result = RunResult.SOME_ROWS_FAILED if failed or plan.exhausted or held else RunResult.SUCCEEDED
    result = _STOPPED.get(context.stop_reason() or "", result)
    result = stopped or result
    limit = context.spec.fail_if.failed_share
    priced = context.priced and cost_is_known(chunks, tallies)
    commits = [commit_of(context, chunk.id) for chunk in chunks if chunk.state == ChunkState.LANDED]
    errors: Counter[str] = Counter()
    for commit in commits:
        errors.update(commit.get("errors", {}))
        errors.subtract(commit.get("errors_before", {}))
    return Receipt(
        name=context.spec.name,
        run_id=context.run_id,
        result=result,
        exit_code=EXIT_CODES[result],
        dataset=str(context.folder.data),
        provider=context.spec.providers,
        model=context.spec.models,
        continued=context.continued,
        seconds=round((now_us() - run.started_at) / 1e6, 1),
        plan=plan.facts(),
        outcomes=outcomes,
        failed_share=share,
        failed_above_limit=limit is not None and share > limit,
        batches=sum(1 for chunk in chunks if chunk.batch_id),
        input_tokens=sum(t.input_tokens for t in tallies.values()),
        output_tokens=sum(t.output_tokens for t in tallies.values()),
        **cache_facts(tallies, commits, priced=priced),
        upper_bound_usd=exact(plan.bound) if priced else None,
        least_bound_usd=exact(plan.least) if priced and plan.requests else None,
        cost_limit_usd=exact(context.limit),
        price_source=run.price_source,
        unsent_rows=sum(
            chunk.rows
            for chunk in chunks
            if chunk.state in (ChunkState.PLANNED, ChunkState.DROPPED) and chunk.round == 1
        ),
        rounds=max((chunk.round for chunk in chunks), default=0),
        held_rows=held,
        **money_facts(context, chunks, tallies, priced=priced),
        waits=context.state.waits,
        errors={text: count for text, count in errors.most_common(5) if count > 0},
        warnings=_warnings(commits, held)
        + _outgrown(context, commits)
        + _cache_warnings(context, tallies),
    )


def _outgrown(context: RunContext, commits: list[dict[str, Any]]) -> list[str]:
    own = any(commit.get("over_bound", 0) for commit in commits)
    return (
        [f"{OUTGROWN}; the next run plans with larger ones"]
        if context.stop_reason() == StopReason.OVER_BOUND and not own
        else []
    )


def _cache_warnings(context: RunContext, tallies: Mapping[str, OutcomeTotals]) -> list[str]:
    used = any(tally.cache_read_tokens or tally.cache_write_tokens for tally in tallies.values())
    if used or not context.spec.cache or not any(tally.input_tokens for tally in tallies.values()):
        return []
    return [f"`cache` is set, but nothing was read from a cache or written to one: {CACHE_MINIMUM}"]


def _warnings(commits: list[dict[str, Any]], held: int) -> list[str]:
    told = {
        "unreadable": (
            "request",
            "without a readable result line; the most that can have been billed counts as spent",
        ),
        "unknown_lines": ("result line", "that nobody sent (what was billed counts as overhead)"),
        "doubled_lines": ("result line", "that came twice (counted once)"),
        "over_bound": (
            "answer",
            "above the upper bound: the model's bounds are larger now; under a limit nothing more was sent",
        ),
    }
    sums = {key: sum(commit.get(key, 0) for commit in commits) for key in told}
    warnings = [
        f"{pluralize(sums[key], noun)} {text}" for key, (noun, text) in told.items() if sums[key]
    ]
    if held:
        rows = pluralize(held, "row is held", "rows are held")
        warnings.append(
            f"{rows}, since nobody can tell whether their batch was accepted: decide with `batchata reconcile`"
        )
    return warnings


def _drop_raw_files(context: RunContext) -> None:
    for chunk in context.ledger.chunks(context.run_id):
        for folder in (context.folder.requests, context.folder.responses):
            for path in folder.glob(f"{chunk.id}*"):
                path.unlink(missing_ok=True)
