"""What the ledger hands out: chunks, intents, leases and tallies, and the states of a chunk's life."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from sqlalchemy import Row

RunRow: TypeAlias = "Row[Any]"
"""A run as the ledger has it: a row of the table `runs`."""


class ChunkState(StrEnum):
    """A chunk's life, in order."""

    PLANNED = "planned"
    UNCLEAR = "unclear"  # it is being sent, and nobody knows yet whether it was accepted
    SUBMITTED = "submitted"
    COLLECTED = "collected"
    LANDED = "landed"
    DROPPED = "dropped"  # planned, and never to be sent
    HELD = "held"  # nobody can tell whether it was accepted: a person decides


class StopReason(StrEnum):
    """Why a run sends nothing more."""

    CANCEL = "cancel"  # a person asked for it
    TIME_LIMIT = "time_limit"
    SHUTDOWN = "shutdown"  # its program asked it to
    OVER_BOUND = "over_bound"  # an answer showed that bounds are too low


UNFINISHED = (ChunkState.UNCLEAR, ChunkState.SUBMITTED, ChunkState.COLLECTED)
SENDING_ENDS = (
    StopReason.OVER_BOUND,
    StopReason.SHUTDOWN,
)  # of these, what is at the provider goes on there


def new_id() -> str:
    """Return 160 random bits as hexadecimal digits."""
    return secrets.token_hex(20)


@dataclass(frozen=True, slots=True)
class Chunk:
    """Jobs that travel as one provider batch: rows `start` to `stop` of the run's plan."""

    id: str
    run_id: str
    dataset_id: str
    round: int
    kind: str
    provider: str
    model: str
    endpoint: str
    start: int
    stop: int
    bytes: int
    bound: int | None
    state: str
    batch_id: str | None = None
    expected: int | None = None

    @property
    def rows(self) -> int:
        """How many Jobs it holds."""
        return self.stop - self.start


@dataclass(frozen=True, slots=True)
class Intent:
    """What was about to be sent, under which account, when."""

    chunk_id: str
    account: str
    requests: int
    fence: int
    sent_at: int
    input_file_id: str | None = None
    mark: int | None = None


@dataclass(frozen=True, slots=True)
class OutcomeTotals:
    """Rows, tokens and money of one outcome."""

    rows: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_tokens: int = 0
    cost: int | None = None
    cache_write_tokens: int = 0
    list_cost: int | None = None  # what the same answers cost outside of batches

    def __add__(self, other: OutcomeTotals) -> OutcomeTotals:
        unlisted = any(
            one.cost is not None and one.list_cost is None for one in (self, other)
        )  # of an older ledger
        return OutcomeTotals(
            self.rows + other.rows,
            self.input_tokens + other.input_tokens,
            self.output_tokens + other.output_tokens,
            self.cache_read_tokens + other.cache_read_tokens,
            _both(self.cost, other.cost),
            self.cache_write_tokens + other.cache_write_tokens,
            None if unlisted else _both(self.list_cost, other.list_cost),
        )

    @property
    def saved(self) -> int | None:
        """What batches made cheaper; None where a list price is not known."""
        return None if self.cost is None or self.list_cost is None else self.list_cost - self.cost

    @property
    def cached_share(self) -> float | None:
        """The share of the input tokens that was read from a cache; None where there was no input."""
        return round(self.cache_read_tokens / self.input_tokens, 4) if self.input_tokens else None


def _both(one: int | None, other: int | None) -> int | None:
    """Add two amounts of which either may be unknown."""
    return one if other is None else other + (one or 0)


@dataclass(frozen=True, slots=True)
class BudgetStatus:
    """How a budget stands in its present period, in picodollars; `entries` counts what was recorded outside of runs."""

    limit: int | None
    spent: int
    in_flight: int
    entries: int


@dataclass(frozen=True, slots=True)
class RemainingBudget:
    """What is left of a run's own limit and of its shared budget, in picodollars; None where there is no such limit."""

    run: int | None
    budget: int | None

    @property
    def least(self) -> int:
        """What both leave."""
        return self.least_with(0)

    def least_with(self, others: int) -> int:
        """Return what both leave once `others` came back to the budget."""
        budget = None if self.budget is None else self.budget + others
        return min(amount for amount in (self.run, budget) if amount is not None)


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to plan, send and commit for one dataset; `fence` tells old holders from new.

    `lost` names the process that held it before and ended, or fell silent, without giving it back.
    """

    dataset_id: str
    fence: int
    holder: str
    lost: str | None = None
