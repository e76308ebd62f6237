"""The state of a run, as values."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, fields
from typing import Any

_NAMED = {"status": "provider_status"}  # of a batch, as callbacks get it
_ACTIVE = ("unclear", "submitted", "collected")  # sent, and not landed yet


class Facts(dict[str, Any]):
    """What callbacks get, by name; a name that is not there is told with those that are."""

    def __missing__(self, name: object) -> Any:
        message = f"a progress callback gets no {name!r:.80}; it gets: {', '.join(self)}."
        raise KeyError(message)


@dataclass(frozen=True, slots=True)
class BatchView:
    """The state of one batch. Times are seconds since 1970.

    `done` counts requests; it is None if the provider does not report them.
    """

    chunk_id: str
    number: int | None  # 1-based, in the order in which batches are sent
    batch_id: str | None
    provider: str
    model: str
    jobs: int
    state: str  # planned, unclear, submitted, collected, landed, dropped, held, overdue, …
    status: str | None = None  # as the provider spells it
    done: int | None = None
    sent_at: float | None = None
    ends_by: float | None = None
    round: int = 1


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The state of a run. Money is in US dollars; `cost_usd` is None if it is unknown."""

    run_id: str = ""
    total: int = 0  # requests of the plan
    up_to_date: int = 0
    landed: int = 0
    completed: int = 0  # landed with a usable answer
    failed: int = 0
    outcomes: dict[str, int] = field(default_factory=dict[str, int])
    batches: tuple[BatchView, ...] = ()
    cost_usd: float | None = 0.0
    reserved_usd: float = 0.0
    cost_limit_usd: float | None = None
    stopping: str | None = None
    budget: str | None = None  # the name of the budget that it shares with other runs
    errors: dict[str, int] = field(default_factory=dict[str, int])  # the most frequent first

    @property
    def pending(self) -> int:
        """The number of requests that have not landed yet."""
        return max(self.total - self.landed, 0)

    def stats(self) -> dict[str, Any]:
        """Return the run's numbers, as progress callbacks get them."""
        values = Facts((one.name, getattr(self, one.name)) for one in fields(self))
        states = Counter(batch.state for batch in self.batches)
        values |= {
            "pending": self.pending,
            "cancelled": self.outcomes.get("canceled", 0),
            "active": sum(batch.jobs for batch in self.batches if batch.state in _ACTIVE),
            "batches": dict(states),
            "batches_total": len(self.batches),
            "batches_completed": states["landed"],
            "batches_pending": sum(states[state] for state in ("planned", *_ACTIVE)),
        }
        return values

    def batch_data(self) -> dict[str, dict[str, Any]]:
        """Return the batches as progress callbacks get them.

        They are named by their ids, or by their chunks' ids before they have one. What the provider
        calls their status is `provider_status`: other libraries have words of their own in
        `status`, which would never be equal to it.
        """
        # not `asdict`, which is too slow for a thousand of them
        names = [one.name for one in fields(BatchView)]
        return {
            batch.batch_id or batch.chunk_id: Facts(
                (_NAMED.get(name, name), getattr(batch, name)) for name in names
            )
            for batch in self.batches
        }
