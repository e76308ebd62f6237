"""The money of one run in its receipt: exact decimal text in US dollars, null if unknown."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from batchata_tasks.common.money import dollars, exact, per_row
from batchata_tasks.common.text import pluralize
from batchata_tasks.ledger import ChunkKind, MoneyInFlight, OutcomeTotals

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from batchata_tasks.execution.run_context import RunContext
    from batchata_tasks.ledger import Chunk


def money_facts(
    run: RunContext, totals: Mapping[str, OutcomeTotals], *, priced: bool
) -> dict[str, Any]:
    """Return what a run cost, what was expected, what it saved, and on which outcomes it went."""
    ledger_totals = run.ledger.run_totals(run.run_id)
    whole = sum(totals.values(), OutcomeTotals(cost=0, list_cost=0))
    facts = {
        "cost": ledger_totals.settled,
        "reserved": ledger_totals.in_flight,
        "superseded": ledger_totals.superseded,
        "overhead": ledger_totals.overhead,
        "expected": run.plan().expected,
        "list_price": whole.list_cost,
        "saved": whole.saved,
        "cost_per_row": per_row(ledger_totals.settled, whole.rows),
    }
    return {f"{name}_usd": exact(amount) if priced else None for name, amount in facts.items()} | {
        "cost_by_outcome": {name: exact(totals[name].cost) for name in sorted(totals)},
        "cached_share": whole.cached_share,
    }


def budget_facts(run: RunContext) -> dict[str, Any] | None:
    """Return the state of a run's shared budget in the present period; None without a budget."""
    if run.limits.budget is None:
        return None
    terms = run.ledger.binding(run.limits.budget)
    spent, in_flight = run.ledger.budget_money(terms)
    _, others = run.ledger.money_in_flight(terms, run.lease.dataset_id)
    return {
        "name": terms.label,
        "period": terms.period,
        "limit_usd": exact(terms.limit),
        "spent_usd": exact(spent),
        "in_flight_usd": exact(in_flight),
        "left_usd": exact(max(terms.limit - spent - in_flight, 0)),
        **in_flight_facts(MoneyInFlight.sum_of(others)),
    }


def in_flight_facts(money: MoneyInFlight) -> dict[str, Any]:
    """Return what others of a budget have in flight, and what of it is likely to come back."""
    return {
        "batches_of_others": money.batches,
        "reserved_by_others_usd": exact(money.reserved),
        "expected_back_usd": exact(money.back),
    }


def in_flight_words(money: MoneyInFlight) -> str:
    """Return the same for people."""
    batches = pluralize(money.batches, "batch of another run", "batches of other runs")
    ended = "it has ended" if money.batches == 1 else "they have ended"
    reserved, back = dollars(money.reserved), dollars(money.back)
    return f"{reserved} more is in flight at {batches}; once {ended}, about {back} comes back"


def cache_facts(
    totals: Mapping[str, OutcomeTotals], commits: list[dict[str, Any]], *, priced: bool
) -> dict[str, Any]:
    """Return how much of a run's input prompt caches served, and what they saved.

    The saving is negative if they cost more than no caching.
    """
    read = sum(outcome.cache_read_tokens for outcome in totals.values())
    written = sum(outcome.cache_write_tokens for outcome in totals.values())
    saved = sum(commit.get("cache_saved_picodollars", 0) for commit in commits)
    return {
        "cache_read_tokens": read,
        "cache_write_tokens": written,
        "cache_saved_usd": exact(saved) if priced and (read or written) else None,
    }


def cost_is_known(chunks: Iterable[Chunk], totals: Mapping[str, OutcomeTotals]) -> bool:
    """Whether all that a run planned and landed had a price; its sums leave out what had none."""
    unpriced = any(chunk.bound is None for chunk in chunks if chunk.kind == ChunkKind.BATCH)
    return not unpriced and all(
        outcome.cost is not None for outcome in totals.values() if outcome.rows
    )
