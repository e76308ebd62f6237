"""What one start of the program did: for its run, which an earlier one may have begun, and others.

A receipt's figures are those of the whole run. A start that carries a run on may have sent nothing,
and any start may land batches that earlier runs left behind; both are told apart here.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from batchata_tasks.common.clock import now_us
from batchata_tasks.common.money import dollars, exact, pico_from_usd
from batchata_tasks.common.text import minute, pluralize
from batchata_tasks.execution.land import commit_of
from batchata_tasks.ledger import SET_ASIDE, UNFINISHED, ChunkKind, ChunkState
from batchata_tasks.pipeline.planning_run import Before, PlanningRun
from batchata_tasks.pipeline.ways import changed_words

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from batchata_tasks.execution.held_dataset import HeldDataset
    from batchata_tasks.execution.run_context import RunContext
    from batchata_tasks.ledger import Chunk


def before(held: HeldDataset) -> Before:
    """Return what stands in the ledger now."""
    ledger, dataset_id = held.ledger, held.lease.dataset_id
    run = ledger.open_run(dataset_id)
    chunks = [] if run is None else ledger.chunks(run.id)
    return Before(
        at=now_us(),
        landed=frozenset(chunk.id for chunk in chunks if chunk.state == ChunkState.LANDED),
        sent=frozenset(chunk.batch_id for chunk in chunks if chunk.batch_id is not None),
        unlanded=tuple(
            chunk.id for chunk in ledger.dataset_chunks(dataset_id, (*UNFINISHED, *SET_ASIDE))
        ),
    )


def start_facts(run: RunContext, chunks: Iterable[Chunk], *, priced: bool) -> dict[str, Any] | None:
    """Return what this start did, as plain values; None if nobody noted how it began.

    `earlier` is what it landed of other runs; null if that is nothing.
    """
    begun = run.before if isinstance(run, PlanningRun) else None
    if begun is None:
        return None
    batches = [chunk for chunk in chunks if chunk.kind == ChunkKind.BATCH]
    landed = [c for c in batches if c.state == ChunkState.LANDED and c.id not in begun.landed]
    aside = [chunk for chunk in batches if chunk.state in SET_ASIDE]
    return {
        "seconds": max(round((now_us() - begun.at) / 1e6, 1), 0.0),
        "batches": sum(chunk.batch_id not in (None, *begun.sent) for chunk in batches),
        "unclear_batches": sum(chunk.state == ChunkState.HELD for chunk in batches),
        "held_rows": sum(chunk.rows for chunk in aside),
        "outcomes": _rows(run, landed),
        "cost_usd": _settled(run, landed) if priced else None,
        "earlier": _earlier(run, _landed_of_others(run, begun)),
    }


def _landed_of_others(run: RunContext, begun: Before) -> list[Chunk]:
    """Return the chunks of other runs that this start landed."""
    return [
        chunk
        for chunk in run.ledger.existing_chunks(begun.unlanded)
        if chunk.state == ChunkState.LANDED and chunk.run_id != run.run_id
    ]


def sent_again(run: PlanningRun) -> str | None:
    """Return the sentence on rows that are sent again since what they ask changed, if any are.

    People wonder most about those whose answers have just landed: the change was made while their
    batches were under way.
    """
    plan, begun = run.plan(), run.before
    if not plan.changed:
        return None
    rows = sum(plan.changed.values())
    again = f"{pluralize(rows, 'row is', 'rows are')} sent again"
    if begun is None or not plan.asked_anew:
        return f"{changed_words(plan)}: {again}"
    batches = [c.batch_id for c in _landed_of_others(run, begun) if c.batch_id is not None]
    moments = [moment for one in batches if (moment := run.ledger.submitted_at(one)) is not None]
    when = minute(min(moments, default=begun.at) / 1e6)
    if plan.asked_anew == rows:
        return f"{changed_words(plan)} since {when}: {again}, though their answers have just landed"
    some = (
        f"{plan.asked_anew:,} of them though the answers to what was sent {when} have just landed"
    )
    return f"{changed_words(plan)}: {again}, {some}"


def _earlier(run: RunContext, chunks: list[Chunk]) -> dict[str, Any] | None:
    if not chunks:
        return None
    priced = all(chunk.bound is not None for chunk in chunks)
    return {
        "batches": len(chunks),
        "outcomes": _rows(run, chunks),
        "cost_usd": _settled(run, chunks) if priced else None,
    }


def _rows(run: RunContext, chunks: list[Chunk]) -> dict[str, int]:
    """Return the rows of landed chunks by outcome; a row counts in the last round among them."""
    rounds = {chunk.run_id: chunk.round for chunk in reversed(chunks)}  # the first of each run
    rows: Counter[str] = Counter()
    for chunk in chunks:
        commit = commit_of(run.folder, chunk.id)
        rows.update(commit.get("outcomes", {}))
        if chunk.round > rounds[chunk.run_id]:
            rows.subtract(commit.get("retried", {}))
    return {name: rows[name] for name in sorted(rows) if rows[name] > 0}


def _settled(run: RunContext, chunks: list[Chunk]) -> str | None:
    return exact(run.ledger.settled(chunk.id for chunk in chunks))


def start_lines(facts: dict[str, Any] | None, *, continued: bool) -> list[tuple[str, str]]:
    """Return what a start did, for people: of a run that it carried on, and of earlier runs."""
    if facts is None:
        return []
    lines = list[tuple[str, str]]()
    if continued:
        sent = pluralize(facts["batches"], "batch") if facts["batches"] else "nothing"
        if unclear := facts["unclear_batches"]:
            sent += f" for certain ({pluralize(unclear, 'batch is', 'batches are')} in doubt)"
        landed = _counted(facts["outcomes"])
        text = f"sent {sent}, landed {landed}{_cost(facts['cost_usd'])}"
        if not landed:
            text = (
                "sent and landed nothing" if sent == "nothing" else f"sent {sent}, landed nothing"
            )
        lines.append(("This start", f"{text}; the figures below are of the whole run"))
    if (earlier := facts["earlier"]) is not None:
        batches = pluralize(earlier["batches"], "batch", "batches")
        rows = _counted(earlier["outcomes"]) or "no row"
        text = f"{batches} landed by this start: {rows}{_cost(earlier['cost_usd'])}"
        lines.append(("Earlier runs", text))
    return lines


def _counted(outcomes: Mapping[str, int]) -> str:
    return ", ".join(f"{count:,} {name}" for name, count in outcomes.items())


def _cost(amount: str | None) -> str:
    return "" if amount is None else f", for {dollars(pico_from_usd(amount))}"


def nothing(facts: dict[str, Any] | None, *, batches: int, held_rows: int) -> str:
    """Say how a run has no outcomes: nothing was sent, or nothing of it has landed."""
    held = pluralize(held_rows, "row is", "rows are") + " held"
    if batches or (facts is not None and facts["held_rows"]):
        return f"nothing landed; {held}" if held_rows else "nothing landed"
    if held_rows:
        return f"nothing was sent; {held} since an earlier run"
    earlier = facts is not None and facts["earlier"] is not None
    return (
        "nothing was sent; what an earlier run had sent landed" if earlier else ("nothing was sent")
    )
