"""The pilot: a run's first rows go alone, and the rest only if they turn out well.

Its rows are ordinary rows: they land, they are not sent again, and a run that is carried on after a
crash judges them as they landed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from batchata_tasks.common.errors import BatchataError, HeldError
from batchata_tasks.common.money import dollars, pico_from_usd
from batchata_tasks.common.text import pluralize
from batchata_tasks.ledger import UNFINISHED, ChunkKind, ChunkState, OutcomeTotals
from batchata_tasks.pipeline.receipt import RunResult
from batchata_tasks.pipeline.scheduler import run_chunks
from batchata_tasks.pipeline.trouble import StoppedError, judge
from batchata_tasks.planning.estimate import estimate, measures
from batchata_tasks.spec.parts import DEFAULT_PILOT
from batchata_tasks.types.outcome import Outcome

if TYPE_CHECKING:
    from batchata_tasks.execution.run_context import RunContext
    from batchata_tasks.ledger import Chunk
    from batchata_tasks.pipeline.one_chunk import ChunkSteps
    from batchata_tasks.pipeline.planning_run import PlanningRun
    from batchata_tasks.spec.parts import Pilot

# the default pilot is about the spec: what never ran, or met an error, is tried again
_ANSWERED = (Outcome.INVALID, Outcome.TRUNCATED, Outcome.REFUSED)
_WITHOUT_END = (ChunkState.OVERDUE, ChunkState.ABANDONED)


class PilotUnjudgedError(BatchataError):
    """The pilot's batch brought no results, or was given up: this run sends nothing more.

    The next one sends a pilot of the rows that it plans.
    """


def send_pilot(context: PlanningRun, steps: ChunkSteps) -> bool:
    """Send the pilot's rows, if there is a pilot, and judge how they landed.

    Returns whether a cost limit stopped it.

    Raises:
        StoppedError: it did not hold; nothing more is sent.
        PilotUnjudgedError: its batch brought no results, so this run ends without the rest.
        HeldError: whether its rows were sent is unknown, so it cannot be judged.
    """
    rows = context.plan().pilot
    if not rows:
        return False
    unfinished = (*UNFINISHED, ChunkState.PLANNED)
    chunks = [c for c in first_chunks(context, rows) if c.kind == ChunkKind.BATCH]
    if run_chunks(context, steps, [c for c in chunks if c.state in unfinished]):
        return True
    if context.stop_reason() is None:
        # chunks that were cut on the way have other names by now
        chunks = first_chunks(context, rows)
        if any(chunk.state == ChunkState.HELD for chunk in chunks):
            message = (
                "pilot: rows of it are held, and may have been sent or not; "
                "decide with `batchata reconcile`, the rest waits for it."
            )
            raise HeldError(message)
        if any(chunk.state in _WITHOUT_END for chunk in chunks):
            message = (
                "the pilot's batch brought no results (in time), so nothing tells how the rest "
                "would turn out: "
                "nothing more is sent; the next run sends a pilot of what is left."
            )
            raise PilotUnjudgedError(message)
        _judge(context, context.ledger.outcomes(context.run_id, [chunk.id for chunk in chunks]))
    return False


def first_chunks(context: RunContext, rows: int) -> list[Chunk]:
    """Return the chunks of the first rows of the plan."""
    chunks = context.ledger.chunks(context.run_id)
    return [chunk for chunk in chunks if chunk.round == 1 and chunk.stop <= rows]


def _judge(context: PlanningRun, totals: dict[str, OutcomeTotals]) -> None:
    """Report that the pilot held, or raise StoppedError."""
    pilot, plan = context.spec.first_rows, context.plan()
    whole = sum(totals.values(), OutcomeTotals())
    if pilot is None or not whole.rows:
        return
    unusable, per_row = _unusable(pilot, totals), _per_row(whole)
    remaining = plan.requests - plan.pilot
    if (failure := _failure(pilot, unusable, whole.rows, per_row)) is not None:
        remedy = "Change the spec, or the pilot's limits."
        if pilot is DEFAULT_PILOT:
            remedy = (
                "The spec has no limit, so its first rows went alone: change it, or write "
                "`pilot: false` to have all rows sent at once."
            )
        message = (
            f"pilot: {failure}; {pluralize(remaining, 'row was', 'rows were')} not sent. "
            f"It cost {dollars(whole.cost)}, and its rows have landed. {remedy}"
        )
        raise StoppedError(message, RunResult.PILOT_FAILED)
    # what somebody said may be unusable may be all of it
    if pilot is DEFAULT_PILOT or pilot.max_invalid_share is None:
        judge(context)
    text = (
        f"the pilot held: {pluralize(whole.rows, 'row')}, {sum(unusable.values()):,} without "
        f"a usable answer, {dollars(per_row)} a row"
    )
    unsent, expected = _rest(context)
    if unsent and expected is not None:
        others = f"the other {pluralize(unsent, 'is', 'are')}"
        if unsent != remaining:  # of a run that is carried on, some were sent
            others = f"the {pluralize(unsent, 'not sent yet is', 'not sent yet are')}"
        text += f"; {others} expected to cost about {dollars(expected)}"
    context.log(f"{text}.")


def has_failed(run: RunContext) -> bool:
    """Whether the pilot of a run has landed, and did not hold."""
    pilot, rows = run.spec.first_rows, run.plan().pilot
    chunks = [chunk.id for chunk in first_chunks(run, rows)] if rows else []
    totals = run.ledger.outcomes(run.run_id, chunks)
    whole = sum(totals.values(), OutcomeTotals())
    if pilot is None or not whole.rows:
        return False
    return _failure(pilot, _unusable(pilot, totals), whole.rows, _per_row(whole)) is not None


def _unusable(pilot: Pilot, totals: dict[str, OutcomeTotals]) -> dict[str, int]:
    """Return the pilot's rows without a usable answer, by outcome."""
    return {
        name: total.rows
        for name, total in sorted(totals.items())
        if name != Outcome.SUCCEEDED and (pilot is not DEFAULT_PILOT or name in _ANSWERED)
    }


def _per_row(whole: OutcomeTotals) -> int | None:
    """Return what a row costs, in picodollars."""
    return None if whole.cost is None else -(-whole.cost // whole.rows)


def _failure(pilot: Pilot, unusable: dict[str, int], rows: int, per_row: int | None) -> str | None:
    """Return why a pilot did not hold, or None; `per_row` is a row's cost in picodollars."""
    share = sum(unusable.values()) / rows
    if pilot.max_invalid_share is not None and share > pilot.max_invalid_share:
        outcomes = ", ".join(f"{count:,} {name}" for name, count in unusable.items())
        return (
            f"{share:.1%} of its {pluralize(rows, 'row has', 'rows have')} no usable answer "
            f"({outcomes}; `max_invalid_share` allows {pilot.max_invalid_share:.1%})"
        )
    if pilot.max_cost_per_row_usd is not None:
        most = pico_from_usd(pilot.max_cost_per_row_usd)
        if per_row is None or per_row > most:
            cost, allowed = dollars(per_row), dollars(most)
            return f"a row costs {cost} (`max_cost_per_row_usd` allows {allowed})"
    return None


def _rest(context: PlanningRun) -> tuple[int, int | None]:
    """Return how many rows are not sent yet, and their likely cost, going by what others used."""
    planned = context.ledger.chunks(context.run_id, (ChunkState.PLANNED,))
    chunks = [chunk for chunk in planned if chunk.kind == ChunkKind.BATCH]
    rows, size = sum(chunk.rows for chunk in chunks), sum(chunk.bytes for chunk in chunks)
    (forecast,) = measures(context.ledger, context.table, ())
    likely = estimate(forecast.usual, rows, size, forecast.cap, forecast.rates, further_rounds=True)
    return rows, likely.cost
