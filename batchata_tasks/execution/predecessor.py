"""What a run that had to be planned anew leaves to the one in its place: what it used of limits.

Both are one run to whoever asked for it, so the limits of a run hold for the two together.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Self

from batchata_tasks.common.json import as_dict
from batchata_tasks.dataset.part_files import part_of_chunk
from batchata_tasks.ledger import UNFINISHED, ChunkKind, ChunkState, StopReason
from batchata_tasks.planning.summary import SentBefore

if TYPE_CHECKING:
    from batchata_tasks.ledger import Ledger, RunRow

PREDECESSOR = "predecessor"
"""The name under which the ledger's record of a run has it."""

_UNSENT = (ChunkState.PLANNED, ChunkState.DROPPED)


@dataclass(frozen=True, slots=True)
class Predecessor:
    """An outdated run, and those before it in whose place it was.

    What they `spent` is in picodollars, and counts what is reserved for batches of which nobody
    knows whether they were accepted; `rows` were sent. The first of them began at `started_at`
    (microseconds since 1970). If they are `piloted`, a pilot was sent, and has landed; if
    `troubled`, the account had trouble as the last one ended.
    """

    run_id: str
    spent: int
    rows: int
    started_at: int
    piloted: bool = False
    troubled: bool = False

    @classmethod
    def of(cls, ledger: Ledger, run: RunRow) -> Self:
        """Return what a run leaves, from the ledger."""
        before = cls.recorded(run.spec) or cls(run.id, 0, 0, run.started_at)
        chunks, reserved = ledger.chunks(run.id), ledger.in_flight(run.id)
        unsent = [chunk for chunk in chunks if chunk.state in _UNSENT]
        released = sum(chunk.bound or 0 for chunk in unsent if chunk.id in reserved)
        first = [c for c in chunks if c.kind == ChunkKind.BATCH and c.round == 1]
        rows = sum(chunk.rows for chunk in first if chunk.state not in _UNSENT)
        spent = sum(ledger.money(run.id)) - released
        pilot = 0 if run.plan is None else as_dict(json.loads(run.plan)).get("pilot", 0)
        states = {chunk.state for chunk in first if chunk.stop <= pilot}
        piloted = before.piloted or states == {ChunkState.LANDED}
        return cls(
            run.id,
            before.spent + spent,
            before.rows + rows,
            before.started_at,
            piloted=piloted,
            troubled=run.stop == StopReason.ACCOUNT_TROUBLE,
        )

    def sent(self, ledger: Ledger) -> SentBefore:
        """Return what they have sent; of parts, those of the last one."""
        parts = frozenset(part_of_chunk(chunk.id) for chunk in ledger.chunks(self.run_id))
        return SentBefore(self.rows, parts)

    def likely_spent(self, ledger: Ledger) -> int:
        """Return what they will have spent once the last one's open batches have landed."""
        reserved = ledger.in_flight(self.run_id)
        sent = [c for c in ledger.chunks(self.run_id, UNFINISHED) if c.id in reserved]
        back = sum((c.bound or 0) - c.expected for c in sent if c.expected is not None)
        return self.spent - back

    @classmethod
    def recorded(cls, record: str) -> Self | None:
        """Return the predecessor that the record (JSON) of a run names, if it has one."""
        facts = as_dict(json.loads(record)).get(PREDECESSOR)
        return None if facts is None else cls(**as_dict(facts))

    def noted_in(self, record: str) -> str:
        """Return the record (JSON) of the run that takes this one's place."""
        return json.dumps({**json.loads(record), PREDECESSOR: asdict(self)})


def began_at(run: RunRow) -> int:
    """Return when a run began, or the first of those in whose place it is (µs since 1970)."""
    before = Predecessor.recorded(run.spec)
    return int(run.started_at if before is None else before.started_at)
