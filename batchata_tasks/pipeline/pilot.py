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
from batchata_tasks.pipeline.scheduler import ChunkSteps, run_chunks
from batchata_tasks.planning.estimate import estimate, measures
from batchata_tasks.types.outcome import Outcome

if TYPE_CHECKING:
    from batchata_tasks.execution.run_context import RunContext


class PilotFailedError(BatchataError):
    """The pilot did not hold: nothing more is sent, and the run's receipt says why."""


def send_pilot(context: RunContext, steps: ChunkSteps) -> bool:
    """Bring the pilot's rows home and judge them; True when a cost limit stopped it.

    Raises:
        PilotFailedError: it did not hold; nothing more is sent.
        HeldError: whether its rows were sent is not known, so it cannot be judged.
    """
    rows = context.plan().pilot
    chunks = [
        chunk
        for chunk in context.ledger.chunks(context.run_id)
        if chunk.round == 1 and chunk.kind == ChunkKind.BATCH and chunk.stop <= rows
    ]
    if run_chunks(
        context,
        steps,
        [chunk for chunk in chunks if chunk.state in (*UNFINISHED, ChunkState.PLANNED)],
    ):
        return True
    if context.stop_reason() is None:
        # chunks that were cut on the way have other names by now
        chunks = [
            chunk
            for chunk in context.ledger.chunks(context.run_id)
            if chunk.round == 1 and chunk.stop <= rows
        ]
        if any(chunk.state == ChunkState.HELD for chunk in chunks):
            message = "pilot: rows of it are held, and may have been sent or not; decide with `batchata reconcile`, the rest waits for it."
            raise HeldError(message)
        _judge(context, context.ledger.outcomes(context.run_id, [chunk.id for chunk in chunks]))
    return False


def _judge(context: RunContext, tallies: dict[str, OutcomeTotals]) -> None:
    pilot, plan = context.spec.pilot, context.plan()
    rows = sum(tally.rows for tally in tallies.values())
    if pilot is None or not rows:
        return
    bad = {name: tally.rows for name, tally in sorted(tallies.items()) if name != Outcome.SUCCEEDED}
    share, cost = (
        sum(bad.values()) / rows,
        sum((tally for tally in tallies.values()), OutcomeTotals()).cost,
    )
    per_row = None if cost is None else -(-cost // rows)
    found, wrong = ", ".join(f"{count:,} {name}" for name, count in bad.items()), None
    dearest = (
        None if pilot.max_cost_per_row_usd is None else pico_from_usd(pilot.max_cost_per_row_usd)
    )
    if pilot.max_invalid_share is not None and share > pilot.max_invalid_share:
        allowed = f"`max_invalid_share` allows {pilot.max_invalid_share:.1%}"
        wrong = f"{share:.1%} of its {pluralize(rows, 'row has', 'rows have')} no usable answer ({found}; {allowed})"
    elif dearest is not None and (per_row is None or per_row > dearest):
        wrong = f"a row costs {dollars(per_row)} (`max_cost_per_row_usd` allows {dollars(dearest)})"
    if wrong is not None:
        told = f"It cost {dollars(cost)}, and its rows have landed. Mend the spec, or the pilot's limits."
        message = f"pilot: {wrong}; {pluralize(plan.requests - plan.pilot, 'row was', 'rows were')} not sent. {told}"
        raise PilotFailedError(message)
    held = f"the pilot held: {pluralize(rows, 'row')}, {sum(bad.values()):,} without a usable answer, {dollars(per_row)} a row"
    rest = _rest(context)
    if rest is not None:
        held += f"; the other {pluralize(plan.requests - plan.pilot, 'is', 'are')} expected to cost about {dollars(rest)}"
    context.log(f"{held}.")


def _rest(context: RunContext) -> int | None:
    """Return what the rows after the pilot are likely to cost, now that it is known what its rows used."""
    assert context.table is not None  # noqa: S101 - a run that sends a pilot has planned
    chunks = [
        chunk
        for chunk in context.ledger.chunks(context.run_id, (ChunkState.PLANNED,))
        if chunk.kind == ChunkKind.BATCH
    ]
    (one,) = measures(context.ledger, context.table, ())
    rows, size = sum(chunk.rows for chunk in chunks), sum(chunk.bytes for chunk in chunks)
    return estimate(one.usual, rows, size, one.cap, one.rates, further_rounds=True).cost
