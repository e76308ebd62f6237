"""Where a run stands, as values."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any


@dataclass(frozen=True, slots=True)
class BatchView:
    """Where one batch stands. Times are seconds since 1970; `done` counts requests, where the provider tells."""

    chunk_id: str
    number: int | None  # in the order in which batches are sent
    batch_id: str | None
    provider: str
    model: str
    jobs: int
    state: str  # planned, unclear, submitted, collected, landed, dropped, held
    status: str | None = None  # as the provider spells it
    done: int | None = None
    sent_at: float | None = None
    ends_by: float | None = None
    round: int = 1


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Where a run stands. Money is in US dollars; `cost_usd` is None where no price is known."""

    run_id: str = ""
    total: int = 0  # requests of the plan
    up_to_date: int = 0
    landed: int = 0
    completed: int = 0  # of those landed, with a usable answer
    failed: int = 0
    outcomes: dict[str, int] = field(default_factory=dict[str, int])
    batches: tuple[BatchView, ...] = ()
    cost_usd: float | None = 0.0
    reserved_usd: float = 0.0
    cost_limit_usd: float | None = None
    stopping: str | None = None
    budget: str | None = None  # that it shares with other runs
    errors: dict[str, int] = field(
        default_factory=dict[str, int]
    )  # of what landed, the most frequent first

    @property
    def pending(self) -> int:
        """Requests of which nothing has landed yet."""
        return max(self.total - self.landed, 0)

    def stats(self) -> dict[str, Any]:
        """Return the run's numbers, as progress callbacks get them."""
        states = [batch.state for batch in self.batches]
        found = {one.name: getattr(self, one.name) for one in fields(self)}
        return found | {
            "pending": self.pending,
            "batches": {state: states.count(state) for state in dict.fromkeys(states)},
        }

    def batch_data(self) -> dict[str, dict[str, Any]]:
        """Return the batches by their ids (before they have one, by that of their chunk), as progress callbacks get them."""
        names = [
            one.name for one in fields(BatchView)
        ]  # not `asdict`, which takes a moment too long for a thousand of them
        return {
            batch.batch_id or batch.chunk_id: {name: getattr(batch, name) for name in names}
            for batch in self.batches
        }
