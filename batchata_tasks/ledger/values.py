"""Values that the ledger returns: chunks, intents, leases, totals, and the states they can have."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sqlalchemy import Row

RunRow: TypeAlias = "Row[Any]"
"""A run as the ledger stores it: a row of the table `runs`."""


class RunPhase(StrEnum):
    """How far a run has come; stored in `runs.state`."""

    PLANNING = "planning"
    OPEN = "open"  # its chunk list is fixed: it is resumed, never planned again
    CLOSED = "closed"


class RunEnd(StrEnum):
    """How a run was closed that came to no receipt; stored in `runs.result`."""

    ABANDONED = "abandoned"  # a later run ended it: its spec had changed, or it died while planning
    # a later run of the same spec ended it, with what remained of its limits: it had not sent rows
    # that the source has otherwise by then
    OUTDATED = "outdated"
    REFUSED = "refused"  # planning found bad input
    DECLINED = "declined"  # somebody said no to what it costs


class ChunkKind(StrEnum):
    """Whether a chunk goes to a provider; stored in `chunks.kind`."""

    BATCH = "batch"
    LOCAL = "local"  # rows that are not to be sent


class ChunkState(StrEnum):
    """A chunk's life, in order."""

    PLANNED = "planned"
    UNCLEAR = "unclear"  # it is being sent; nobody knows yet whether it was accepted
    SUBMITTED = "submitted"
    COLLECTED = "collected"
    LANDED = "landed"
    DROPPED = "dropped"  # planned, and never to be sent
    HELD = "held"  # nobody can find out whether it was accepted: a person decides
    OVERDUE = "overdue"  # its batch did not end in time: each later run looks at it once
    ABANDONED = "abandoned"  # a person gave its batch up: its bound counts as spent


class StopReason(StrEnum):
    """Why a run sends nothing more."""

    CANCEL = "cancel"  # a person asked for it
    TIME_LIMIT = "time_limit"
    SHUTDOWN = "shutdown"  # its program asked it to
    OVER_BOUND = "over_bound"  # an answer showed that bounds are too low
    ACCOUNT_TROUBLE = "account_trouble"  # the account lacks credit, quota or a permission
    UNREADABLE_BATCH = "unreadable_batch"  # no line of a batch's results can be read
    NO_USABLE_ANSWER = "no_usable_answer"  # no row of many that were answered has one
    SENT_TWICE = "sent_twice"  # something on the way to the provider repeats creates


UNFINISHED = (ChunkState.UNCLEAR, ChunkState.SUBMITTED, ChunkState.COLLECTED)
# their rows count as in flight and their money stays reserved, but no run waits for them
SET_ASIDE = (ChunkState.HELD, ChunkState.OVERDUE)
# a run that stopped for these stays open and sends nothing, also when it is started again, until
# somebody changes its spec or asks for another try
UNTIL_LOOKED_AT = (StopReason.UNREADABLE_BATCH, StopReason.NO_USABLE_ANSWER)
# these stop the sending only: batches that are at the provider go on there
SENDING_ENDS = (
    StopReason.OVER_BOUND,
    StopReason.SHUTDOWN,
    StopReason.ACCOUNT_TROUBLE,
    StopReason.SENT_TWICE,
    *UNTIL_LOOKED_AT,
)


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
    kind: str  # a ChunkKind
    provider: str
    model: str
    endpoint: str
    start: int
    stop: int
    bytes: int
    bound: int | None
    state: str  # a ChunkState
    batch_id: str | None = None
    expected: int | None = None
    resends: int = 0  # how often it was sent again since a create had failed for all that is known
    tokens: int | None = None  # that its requests are likely to have as input

    @property
    def rows(self) -> int:
        """How many Jobs it holds."""
        return self.stop - self.start


@dataclass(frozen=True, slots=True)
class Intent:
    """A create that was about to be sent: which chunk, under which account, when."""

    chunk_id: str
    account: str
    requests: int
    fence: int
    sent_at: int
    input_file_id: str | None = None
    mark: int | None = None
    scope: str | None = None


@dataclass(frozen=True, slots=True)
class KnownBatch:
    """What the ledger knows of a batch; times are microseconds since 1970, by this side's clock.

    `requests` is None if its chunk was split since.
    """

    batch_id: str
    chunk_id: str
    account: str
    submitted_at: int
    ended_at: int | None
    requests: int | None


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
        # older ledgers did not store list prices
        unlisted = any(one.cost is not None and one.list_cost is None for one in (self, other))
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
        """What was saved by sending batches; None if a list price is unknown."""
        return None if self.cost is None or self.list_cost is None else self.list_cost - self.cost

    @property
    def cached_share(self) -> float | None:
        """The share of input tokens read from a cache; None if there was no input."""
        return round(self.cache_read_tokens / self.input_tokens, 4) if self.input_tokens else None


def _both(one: int | None, other: int | None) -> int | None:
    """Add two amounts, either of which may be unknown."""
    return one if other is None else other + (one or 0)


@dataclass(frozen=True, slots=True)
class BudgetStatus:
    """The money of a budget in its present period, in picodollars."""

    limit: int | None
    spent: int
    in_flight: int
    entries: int  # how often money was recorded outside of runs


@dataclass(frozen=True, slots=True)
class RemainingBudget:
    """What is left of a run's own limit and of its shared budget, in picodollars.

    None means that there is no such limit.
    """

    run: int | None
    budget: int | None

    @property
    def least(self) -> int:
        """The smaller of the two."""
        return self.least_with(0)

    def least_with(self, others: int) -> int:
        """Return the smaller of the two once `others` has been returned to the budget."""
        budget = None if self.budget is None else self.budget + others
        return min(amount for amount in (self.run, budget) if amount is not None)


class MoneyInFlight(NamedTuple):
    """What is reserved for some batches of a budget, and what of it is likely to be returned.

    In picodollars.
    """

    batches: int = 0
    reserved: int = 0
    back: int = 0

    @classmethod
    def sum_of(cls, them: Iterable[MoneyInFlight]) -> MoneyInFlight:
        """Return the money of all of them."""
        return cls(*map(sum, zip(*them, strict=True)))


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to plan, send and commit for one dataset; `fence` grows with every new holder.

    `lost` names the previous holder if it ended, or fell silent, without releasing the lease.
    """

    dataset_id: str
    fence: int
    holder: str
    lost: str | None = None
