"""The money of one run, as its receipt tells it: exact decimal text in US dollars, null where it is not known."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from batchata_tasks.common.money import exact, per_row
from batchata_tasks.ledger import ChunkKind, ChunkState, OutcomeTotals

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from batchata_tasks.execution.run_context import RunContext
    from batchata_tasks.ledger import Chunk


def money_facts(
    context: RunContext,
    chunks: Iterable[Chunk],
    tallies: Mapping[str, OutcomeTotals],
    *,
    priced: bool,
) -> dict[str, Any]:
    """Return what a run cost, what was expected, what it saved, and on which outcomes it went."""
    books, whole = (
        context.ledger.run_totals(context.run_id),
        sum(tallies.values(), OutcomeTotals(cost=0, list_cost=0)),
    )
    expected = [
        chunk.expected
        for chunk in chunks
        if chunk.kind == ChunkKind.BATCH
        and chunk.state not in (ChunkState.PLANNED, ChunkState.DROPPED)
    ]
    known = [amount for amount in expected if amount is not None]
    facts = {
        "cost": books.settled,
        "reserved": books.in_flight,
        "superseded": books.superseded,
        "overhead": books.overhead,
        "expected": sum(known) if len(known) == len(expected) else None,
        "list_price": whole.list_cost,
        "saved": whole.saved,
        "cost_per_row": per_row(books.settled, whole.rows),
    }
    return {f"{name}_usd": exact(amount) if priced else None for name, amount in facts.items()} | {
        "cost_by_outcome": {name: exact(tallies[name].cost) for name in sorted(tallies)},
        "cached_share": whole.cached_share,
    }


def budget_facts(context: RunContext) -> dict[str, Any] | None:
    """Return how a run's shared budget stands in the present period; None where it has none."""
    if context.spec.budget is None:
        return None
    terms = context.ledger.binding(context.spec.budget.terms())
    spent, in_flight = context.ledger.budget_money(terms)
    amounts = {
        "limit_usd": exact(terms.limit),
        "spent_usd": exact(spent),
        "in_flight_usd": exact(in_flight),
    }
    amounts["left_usd"] = exact(max(terms.limit - spent - in_flight, 0))
    return {"name": terms.name, "period": terms.period, **amounts}


def cache_facts(
    tallies: Mapping[str, OutcomeTotals], commits: list[dict[str, Any]], *, priced: bool
) -> dict[str, Any]:
    """Return what prompt caches had to do with a run's input, and what that saved; negative where it cost more."""
    read, written = (
        sum(getattr(tally, f"cache_{what}_tokens") for tally in tallies.values())
        for what in ("read", "write")
    )
    saved = sum(commit.get("cache_saved_picodollars", 0) for commit in commits)
    return {
        "cache_read_tokens": read,
        "cache_write_tokens": written,
        "cache_saved_usd": exact(saved) if priced and (read or written) else None,
    }


def cost_is_known(chunks: Iterable[Chunk], tallies: Mapping[str, OutcomeTotals]) -> bool:
    """Whether all that a run planned and landed had a price; its sums leave out what had none."""
    unpriced = any(chunk.bound is None for chunk in chunks if chunk.kind == ChunkKind.BATCH)
    return not unpriced and all(tally.cost is not None for tally in tallies.values() if tally.rows)
