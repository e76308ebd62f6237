"""Finishes a run: makes its receipt from ledger and commits, closes it, deletes its leftovers."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from batchata_tasks.common.clock import now_us
from batchata_tasks.common.money import exact
from batchata_tasks.common.text import pluralize
from batchata_tasks.execution.bound_corrections import OUTGROWN
from batchata_tasks.execution.cleanup import discard_left_results, discard_uploads
from batchata_tasks.execution.held import held_chunk
from batchata_tasks.execution.land import commit_of
from batchata_tasks.execution.overdue import held_rows as told_rows
from batchata_tasks.execution.overdue import remedy, why_overdue
from batchata_tasks.execution.twice import look_back, told
from batchata_tasks.ledger import ChunkState, RunPhase, StopReason
from batchata_tasks.pipeline.raw_files import drop_raw_files
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
from batchata_tasks.pipeline.this_start import start_facts
from batchata_tasks.pipeline.trouble import frequent_errors
from batchata_tasks.types.outcome import Outcome

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from batchata_tasks.execution.run_context import RunContext
    from batchata_tasks.ledger import Chunk, OutcomeTotals
    from batchata_tasks.pipeline.trouble import StoppedError

_NAMED = 5  # batches that a receipt names
_ERRORS = 5
_STOPPED: dict[str, RunResult] = {
    StopReason.TIME_LIMIT: RunResult.TIME_LIMIT_REACHED,
    StopReason.CANCEL: RunResult.CANCELLED,
    StopReason.SHUTDOWN: RunResult.CANCELLED,
    StopReason.OVER_BOUND: RunResult.COST_LIMIT_REACHED,
}


def finish(
    run: RunContext,
    stopped: RunResult | None = None,
    reason: str | None = None,
    untold: Callable[[Receipt], str] | None = None,
) -> Receipt:
    """Close the run in the ledger, drop its plan, return its receipt.

    `stopped` says what stopped it, if the ledger does not. `untold` returns what Prefect's server
    is still to be told of its end; the ledger has that from the moment at which the run is closed.
    """
    look_back(run)
    receipt = replace(_receipt(run, stopped), reason=reason)
    noted = None if untold is None else untold(receipt)
    run.ledger.close_run(run.lease, run.run_id, receipt.result, noted)
    # only now, since closing gives back what was not sent
    receipt = replace(receipt, budget=budget_facts(run))
    discard_uploads(run)
    discard_left_results(run)
    run.folder.drop_run_folder(run.run_id)
    receipt = replace(receipt, deleted_files=drop_raw_files(run))
    if untold is not None:
        run.ledger.note_untold(run.run_id, untold(receipt))
    return receipt


def stop(run: RunContext, error: StoppedError) -> Receipt:
    """Return the receipt of a run that stopped for good, or until the account is mended.

    The run stays open, so that it does no more than it may when it is started again. It ends if a
    limit, or a person, stopped it as well, or if it sent all that it planned and its account serves
    other rows: then the next run sends what met trouble of the account.
    """
    if error.is_done:
        return finish(run, error.result, str(error))
    if error.result == RunResult.ACCOUNT_TROUBLE and run.stop_reason() != error.result:
        return finish(run, error.result, str(error))
    look_back(run)
    run.ledger.note_result(run.lease, run.run_id, error.result)
    run.ledger.release_unsent(run.lease, run.run_id)
    receipt = _receipt(run, error.result)
    return replace(receipt, reason=str(error), budget=budget_facts(run))


def so_far(run: RunContext) -> Receipt:
    """Return the receipt of a run that stays open: what of it has landed until now.

    Its result is `open`, unless a limit has stopped it already.
    """
    receipt = replace(_receipt(run, None), budget=budget_facts(run))
    return (
        receipt if run.stop_reason() in _STOPPED else replace(receipt, result=RunPhase.OPEN.value)
    )


def _receipt(run: RunContext, stopped: RunResult | None) -> Receipt:
    plan = run.plan()
    chunks = run.ledger.chunks(run.run_id)
    totals = run.ledger.outcomes(run.run_id)
    outcomes = rows_by_outcome(totals)
    failed = sum(rows for name, rows in outcomes.items() if name != Outcome.SUCCEEDED)
    share = failed / max(sum(outcomes.values()), 1)
    held, overdue = _set_aside(run, ChunkState.HELD), _set_aside(run, ChunkState.OVERDUE)
    abandoned = [chunk for chunk in chunks if chunk.state == ChunkState.ABANDONED]
    held_rows = sum(chunk.rows for chunk in (*held, *overdue))
    twice = told(run.folder, run.run_id)
    some_failed = bool(failed or plan.exhausted or held_rows or abandoned or twice)
    result = stopped or _result(run, some_failed=some_failed)
    limit = run.spec.fail_if.failed_share
    priced = run.priced and cost_is_known(chunks, totals)
    commits = [commit_of(run.folder, c.id) for c in chunks if c.state == ChunkState.LANDED]
    warnings = [
        *_few(twice),
        *_warnings(commits),
        *_left_warnings(run, chunks),
        *_held_warnings(run, held, overdue),
    ]
    return Receipt(
        name=run.spec.name,
        run_id=run.run_id,
        result=result,
        exit_code=EXIT_CODES[result],
        dataset=str(run.folder.data),
        provider=run.spec.providers,
        model=run.spec.models,
        continued=run.continued and run.run_id not in run.held.letting_go.before,
        rehearsal=run.rehearsal,
        seconds=max(round((now_us() - run.begun.started_at) / 1e6, 1), 0.0),
        plan=plan.facts(),
        outcomes=outcomes,
        failed_share=share,
        failed_above_limit=limit is not None and share > limit,
        batches=sum(1 for chunk in chunks if chunk.batch_id),
        input_tokens=sum(total.input_tokens for total in totals.values()),
        output_tokens=sum(total.output_tokens for total in totals.values()),
        **cache_facts(totals, commits, priced=priced),
        upper_bound_usd=exact(plan.bound) if priced else None,
        upper_bound_of_all_attempts_usd=exact(plan.most) if priced else None,
        least_bound_usd=exact(plan.least) if priced and plan.requests else None,
        cost_limit_usd=exact(run.limit),
        price_source=run.begun.price_source,
        unsent_rows=_unsent_rows(chunks),
        rounds=max((chunk.round for chunk in chunks), default=0),
        held_rows=held_rows,
        accepted_twice=len(twice),
        **money_facts(run, totals, priced=priced),
        waits=run.state.waits,
        errors=frequent_errors(commits, _ERRORS),
        this_start=start_facts(run, chunks, priced=priced),
        warnings=warnings + _outgrown(run, commits) + _cache_warnings(run, totals),
    )


def _result(run: RunContext, *, some_failed: bool) -> RunResult:
    """Return how a run ended of which the ledger knows what stopped it, if anything did."""
    reason = run.stop_reason()
    if reason in _STOPPED:
        return _STOPPED[reason]
    return RunResult.SOME_ROWS_FAILED if some_failed else RunResult.SUCCEEDED


def _set_aside(run: RunContext, state: ChunkState) -> list[Chunk]:
    """Return the chunks of the dataset whose rows are held, whichever run sent them."""
    return run.ledger.dataset_chunks(run.lease.dataset_id, (state,))


def _unsent_rows(chunks: list[Chunk]) -> int:
    """Count the rows that the next run takes: never sent, or sent in a batch that was given up."""
    unsent = (ChunkState.PLANNED, ChunkState.DROPPED, ChunkState.ABANDONED)
    return sum(chunk.rows for chunk in chunks if chunk.round == 1 and chunk.state in unsent)


def _outgrown(run: RunContext, commits: list[dict[str, Any]]) -> list[str]:
    own = any(commit.get("over_bound", 0) for commit in commits)
    if own or run.stop_reason() != StopReason.OVER_BOUND:
        return []
    return [f"{OUTGROWN}; the next run plans with larger ones"]


def _cache_warnings(run: RunContext, totals: Mapping[str, OutcomeTotals]) -> list[str]:
    cached = any(total.cache_read_tokens or total.cache_write_tokens for total in totals.values())
    if cached or not run.spec.cache or not any(t.input_tokens for t in totals.values()):
        return []
    return [f"`cache` is set, but nothing was read from a cache or written to one: {CACHE_MINIMUM}"]


_COUNTED = {
    "unreadable": (
        "request",
        (
            "without a readable result line or usage; "
            "the most that can have been billed counts as spent"
        ),
    ),
    "unknown_lines": ("result line", "that nobody sent (what was billed counts as overhead)"),
    "doubled_lines": ("result line", "that came twice (counted once)"),
    "unbelieved": (
        "answer",
        "with a usage that cannot be, which is not believed: its upper bound counts as its cost",
    ),
    "kept": ("row", "kept the earlier answer: the new attempt brought none that can be used"),
    "over_bound": (
        "answer",
        (
            "above the upper bound: the model's bounds are larger now; "
            "under a limit nothing more was sent"
        ),
    ),
}
"""What commits count that people should know, as (noun, the rest of the sentence)."""


def _warnings(commits: list[dict[str, Any]]) -> list[str]:
    counts = {key: sum(commit.get(key, 0) for commit in commits) for key in _COUNTED}
    return [
        f"{pluralize(counts[key], noun)} {text}"
        for key, (noun, text) in _COUNTED.items()
        if counts[key]
    ]


def _left_warnings(run: RunContext, chunks: list[Chunk]) -> list[str]:
    """Tell of rows that stay as they were; the next round, if there is one, asks for them again."""
    landed = [chunk for chunk in chunks if chunk.state == ChunkState.LANDED]
    last = max((chunk.round for chunk in landed), default=0)
    commits = (commit_of(run.folder, chunk.id) for chunk in landed if chunk.round == last)
    rows = sum(one.get("left", 0) for one in commits)
    if not rows:
        return []
    text = "as before, since what it asks by now did not run; the next run asks it"
    if rows > 1:
        text = "as before, since what they ask by now did not run; the next run asks it"
    return [f"{pluralize(rows, 'row')} stayed {text}"]


def _held_warnings(run: RunContext, held: list[Chunk], overdue: list[Chunk]) -> list[str]:
    warnings = [
        f"{why_overdue(run.folder, chunk)} The batch is {chunk.batch_id}, of chunk {chunk.id}: "
        f"{told_rows(chunk)} {remedy(chunk, run.folder)}"
        for chunk in overdue[:_NAMED]
    ]
    if others := overdue[_NAMED:]:
        rows = pluralize(sum(chunk.rows for chunk in others), "row")
        warnings.append(
            f"{pluralize(len(others), 'further batch', 'further batches')} brought no results in "
            f"time, with {rows}: `batchata reconcile` lists them"
        )
    warnings += [held_chunk(run.folder, chunk) for chunk in held[:_NAMED]]
    if others := held[_NAMED:]:
        rows = pluralize(sum(chunk.rows for chunk in others), "further row is", "further rows are")
        warnings.append(
            f"{rows} held in {pluralize(len(others), 'chunk')}: `batchata reconcile` lists them"
        )
    return warnings


def _few(twice: list[str]) -> list[str]:
    """Return the sentences about second batches, not too many."""
    others = len(twice) - _NAMED
    more = f"{pluralize(others, 'further batch', 'further batches')} of creates accepted twice"
    lists = [f"{more}: `batchata reconcile` lists them"] if others > 0 else []
    return twice[:_NAMED] + lists
