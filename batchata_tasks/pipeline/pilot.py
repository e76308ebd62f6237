"""The pilot: a run's first rows go alone, and the rest only if they turn out well.

Its rows are ordinary rows: they land, they are not sent again, and a run that is carried on after a
crash judges them as they landed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from batchata_tasks.common.errors import BatchataError, HeldError
from batchata_tasks.common.money import dollars, pico_from_usd
from batchata_tasks.common.text import counted
from batchata_tasks.ledger import HELD, PLANNED, UNFINISHED, Tally
from batchata_tasks.pipeline.scheduler import ChunkSteps, bring_home
from batchata_tasks.planning.estimate import estimate, measures
from batchata_tasks.types.outcome import Outcome

if TYPE_CHECKING:
    from batchata_tasks.execution.run_context import Session


class PilotFailedError(BatchataError):
    """The pilot did not hold: nothing more is sent, and the run's receipt says why."""


def send_pilot(session: Session, steps: ChunkSteps) -> bool:
    """Bring the pilot's rows home and judge them; True when a cost limit stopped it.

    Raises:
        PilotFailedError: it did not hold; nothing more is sent.
        HeldError: whether its rows were sent is not known, so it cannot be judged.
    """
    rows = session.plan().pilot
    chunks = [chunk for chunk in session.ledger.chunks(session.run_id) if chunk.round == 1 and chunk.kind == "batch" and chunk.stop <= rows]
    if bring_home(session, steps, [chunk for chunk in chunks if chunk.state in (*UNFINISHED, PLANNED)]):
        return True
    if session.stop_reason() is None:
        # chunks that were cut on the way have other names by now
        chunks = [chunk for chunk in session.ledger.chunks(session.run_id) if chunk.round == 1 and chunk.stop <= rows]
        if any(chunk.state == HELD for chunk in chunks):
            message = "pilot: rows of it are held, and may have been sent or not; decide with `batchata reconcile`, the rest waits for it."
            raise HeldError(message)
        _judge(session, session.ledger.outcomes(session.run_id, [chunk.id for chunk in chunks]))
    return False


def _judge(session: Session, tallies: dict[str, Tally]) -> None:
    pilot, plan = session.spec.pilot, session.plan()
    rows = sum(tally.rows for tally in tallies.values())
    if pilot is None or not rows:
        return
    bad = {name: tally.rows for name, tally in sorted(tallies.items()) if name != Outcome.SUCCEEDED}
    share, cost = sum(bad.values()) / rows, sum((tally for tally in tallies.values()), Tally()).cost
    per_row = None if cost is None else -(-cost // rows)
    found, wrong = ", ".join(f"{count:,} {name}" for name, count in bad.items()), None
    dearest = None if pilot.max_cost_per_row_usd is None else pico_from_usd(pilot.max_cost_per_row_usd)
    if pilot.max_invalid_share is not None and share > pilot.max_invalid_share:
        allowed = f"`max_invalid_share` allows {pilot.max_invalid_share:.1%}"
        wrong = f"{share:.1%} of its {counted(rows, 'row has', 'rows have')} no usable answer ({found}; {allowed})"
    elif dearest is not None and (per_row is None or per_row > dearest):
        wrong = f"a row costs {dollars(per_row)} (`max_cost_per_row_usd` allows {dollars(dearest)})"
    if wrong is not None:
        told = f"It cost {dollars(cost)}, and its rows have landed. Mend the spec, or the pilot's limits."
        message = f"pilot: {wrong}; {counted(plan.requests - plan.pilot, 'row was', 'rows were')} not sent. {told}"
        raise PilotFailedError(message)
    held = f"the pilot held: {counted(rows, 'row')}, {sum(bad.values()):,} without a usable answer, {dollars(per_row)} a row"
    rest = _rest(session)
    if rest is not None:
        held += f"; the other {counted(plan.requests - plan.pilot, 'is', 'are')} expected to cost about {dollars(rest)}"
    session.say(f"{held}.")


def _rest(session: Session) -> int | None:
    """Return what the rows after the pilot are likely to cost, now that it is known what its rows used."""
    assert session.table is not None  # noqa: S101 - a run that sends a pilot has planned
    chunks = [chunk for chunk in session.ledger.chunks(session.run_id, (PLANNED,)) if chunk.kind == "batch"]
    (one,) = measures(session.ledger, session.table, ())
    rows, size = sum(chunk.rows for chunk in chunks), sum(chunk.bytes for chunk in chunks)
    return estimate(one.usual, rows, size, one.cap, one.rates, further_rounds=True).cost
