"""Finishing: a run's receipt from what the ledger and the commits say, the run closed, its leftovers discarded."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from batchata_tasks.common.clock import now_us
from batchata_tasks.common.money import exact
from batchata_tasks.common.text import counted
from batchata_tasks.execution.bound_corrections import OUTGROWN
from batchata_tasks.execution.cleanup import discard_left_results, discard_uploads
from batchata_tasks.execution.land import commit_of
from batchata_tasks.execution.run_context import CANCEL, TIME_LIMIT
from batchata_tasks.ledger import DROPPED, HELD, LANDED, OVER_BOUND, PLANNED, SHUTDOWN
from batchata_tasks.pipeline.receipt import (
    CACHE_MINIMUM,
    CANCELLED,
    COST_LIMIT_REACHED,
    EXIT_CODES,
    PILOT_FAILED,
    SOME_ROWS_FAILED,
    SUCCEEDED,
    TIME_LIMIT_REACHED,
    Receipt,
    rows_by_outcome,
)
from batchata_tasks.pipeline.receipt_money import budget_facts, cache_facts, cost_is_known, money_facts
from batchata_tasks.types.outcome import Outcome

if TYPE_CHECKING:
    from collections.abc import Mapping

    from batchata_tasks.execution.run_context import Session
    from batchata_tasks.ledger import Tally

_STOPPED = {TIME_LIMIT: TIME_LIMIT_REACHED, CANCEL: CANCELLED, SHUTDOWN: CANCELLED, OVER_BOUND: COST_LIMIT_REACHED}


def finish(session: Session, *, stopped_by_limit: bool) -> Receipt:
    """Close the run in the ledger, drop its plan, return its receipt."""
    receipt = _receipt(session, COST_LIMIT_REACHED if stopped_by_limit else None)
    session.ledger.close_run(session.lease, session.run_id, receipt.result)
    receipt = replace(receipt, budget=budget_facts(session))  # now that what was not sent is given back
    discard_uploads(session)
    discard_left_results(session)
    session.folder.drop_run_folder(session.run_id)
    if not session.spec.raw_files:
        _drop_raw_files(session)
    return receipt


def leave_open(session: Session, reason: str) -> Receipt:
    """Return the receipt of a run whose pilot did not hold: it stays open, so that it sends nothing when it is started again."""
    session.ledger.note_result(session.lease, session.run_id, PILOT_FAILED)
    return replace(_receipt(session, PILOT_FAILED), reason=reason, budget=budget_facts(session))


def _receipt(session: Session, stopped: str | None) -> Receipt:
    run, plan = session.ledger.run(session.run_id), session.plan()
    chunks = session.ledger.chunks(session.run_id)
    tallies = session.ledger.outcomes(session.run_id)
    outcomes = rows_by_outcome(tallies)
    failed = sum(rows for name, rows in outcomes.items() if name != Outcome.SUCCEEDED)
    share = failed / max(sum(outcomes.values()), 1)
    held = sum(chunk.rows for chunk in session.ledger.chunks_in((HELD,)) if chunk.dataset_id == session.lease.dataset_id)
    result = SOME_ROWS_FAILED if failed or plan.exhausted or held else SUCCEEDED
    result = _STOPPED.get(session.stop_reason() or "", result)
    result = stopped or result
    limit = session.spec.fail_if.failed_share
    priced = session.priced and cost_is_known(chunks, tallies)
    commits = [commit_of(session, chunk.id) for chunk in chunks if chunk.state == LANDED]
    errors: Counter[str] = Counter()
    for commit in commits:
        errors.update(commit.get("errors", {}))
        errors.subtract(commit.get("errors_before", {}))
    return Receipt(
        name=session.spec.name, run_id=session.run_id, result=result, exit_code=EXIT_CODES[result],
        dataset=str(session.folder.data), provider=session.spec.providers, model=session.spec.models,
        continued=session.continued, seconds=round((now_us() - run.started_at) / 1e6, 1),
        plan=plan.facts(), outcomes=outcomes, failed_share=share,
        failed_above_limit=limit is not None and share > limit,
        batches=sum(1 for chunk in chunks if chunk.batch_id),
        input_tokens=sum(t.input_tokens for t in tallies.values()),
        output_tokens=sum(t.output_tokens for t in tallies.values()),
        **cache_facts(tallies, commits, priced=priced),
        upper_bound_usd=exact(plan.bound) if priced else None,
        least_bound_usd=exact(plan.least) if priced and plan.requests else None,
        cost_limit_usd=exact(session.limit), price_source=run.price_source,
        unsent_rows=sum(chunk.rows for chunk in chunks if chunk.state in (PLANNED, DROPPED) and chunk.round == 1),
        rounds=max((chunk.round for chunk in chunks), default=0), held_rows=held,
        **money_facts(session, chunks, tallies, priced=priced), waits=session.state.waits,
        errors={text: count for text, count in errors.most_common(5) if count > 0},
        warnings=_warnings(commits, held) + _outgrown(session, commits) + _cache_warnings(session, tallies),
    )


def _outgrown(session: Session, commits: list[dict[str, Any]]) -> list[str]:
    own = any(commit.get("over_bound", 0) for commit in commits)
    return [f"{OUTGROWN}; the next run plans with larger ones"] if session.stop_reason() == OVER_BOUND and not own else []


def _cache_warnings(session: Session, tallies: Mapping[str, Tally]) -> list[str]:
    used = any(tally.cache_read_tokens or tally.cache_write_tokens for tally in tallies.values())
    if used or not session.spec.cache or not any(tally.input_tokens for tally in tallies.values()):
        return []
    return [f"`cache` is set, but nothing was read from a cache or written to one: {CACHE_MINIMUM}"]


def _warnings(commits: list[dict[str, Any]], held: int) -> list[str]:
    told = {
        "unreadable": ("request", "without a readable result line; the most that can have been billed counts as spent"),
        "unknown_lines": ("result line", "that nobody sent (what was billed counts as overhead)"),
        "doubled_lines": ("result line", "that came twice (counted once)"),
        "over_bound": ("answer", "above the upper bound: the model's bounds are larger now; under a limit nothing more was sent"),
    }
    sums = {key: sum(commit.get(key, 0) for commit in commits) for key in told}
    warnings = [f"{counted(sums[key], noun)} {text}" for key, (noun, text) in told.items() if sums[key]]
    if held:
        rows = counted(held, "row is held", "rows are held")
        warnings.append(f"{rows}, since nobody can tell whether their batch was accepted: decide with `batchata reconcile`")
    return warnings


def _drop_raw_files(session: Session) -> None:
    for chunk in session.ledger.chunks(session.run_id):
        for folder in (session.folder.requests, session.folder.responses):
            for path in folder.glob(f"{chunk.id}*"):
                path.unlink(missing_ok=True)
