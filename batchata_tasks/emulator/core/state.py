"""The state of one emulator: batches, files, clock, pace, faults, limits and create calls."""

from __future__ import annotations

import secrets
import string
from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Generic, TypeVar

from batchata_tasks.emulator.answers.lengths import Lengths
from batchata_tasks.emulator.core.batches import Batch
from batchata_tasks.emulator.core.clock import Clock, Pace
from batchata_tasks.emulator.core.faults import Faults
from batchata_tasks.emulator.core.prompt_cache import PromptCache

if TYPE_CHECKING:
    from collections.abc import Iterable

    from batchata_tasks.emulator.answers.schemas import JSON
    from batchata_tasks.emulator.core.spool import Sealed

_ALPHABET = string.ascii_letters + string.digits

AnyBatch = TypeVar("AnyBatch", bound=Batch)


@dataclass(frozen=True)
class Limits:
    """How much a provider accepts. A megabyte is 10^6 bytes."""

    anthropic_requests: int = 100_000
    anthropic_bytes: int = 256_000_000
    anthropic_message_bytes: int = 32_000_000
    openai_requests: int = 50_000
    openai_batch_bytes: int = 200_000_000
    openai_file_bytes: int = 512_000_000
    anthropic_queued_requests: int = 0
    """How many requests of an account may be unfinished at a time; 0 means no limit."""
    openai_listed_files: int = 10_000
    """The most files on a page of their list; a call that asks for more is refused."""
    openai_enqueued_tokens: int = 0
    """How many prompt tokens an account may have in batches of a model; 0 means no limit."""

    def changed(self, given: JSON) -> Limits:
        """Return the limits with some changed; raises ValueError for an unknown name."""
        unknown = sorted(set(given) - {item.name for item in fields(self)})
        if unknown:
            message = f"unknown limits {unknown}"
            raise ValueError(message)
        return replace(self, **given)


@dataclass(slots=True)
class StoredFile:
    """An OpenAI file."""

    id: str
    account: str
    filename: str
    purpose: str
    created_at: float
    expires_at: float | None
    content: Sealed
    deleted: bool = False
    foreign: bool = False
    """It belongs to another program's batch."""

    def available(self, now: float) -> bool:
        """Whether it has neither been deleted nor expired."""
        return not self.deleted and (self.expires_at is None or self.expires_at > now)


@dataclass(slots=True)
class Created:
    """A create call that arrived, whatever the outcome."""

    provider: str
    at: float
    batch_id: str | None
    requests: int
    status: int | None
    """The HTTP status of its answer; None if the connection was dropped."""


@dataclass(slots=True)
class Direct:
    """Calls outside of batches, which are billed, too."""

    calls: int = 0
    input_tokens: int = 0
    output_tokens: int = 0


class Shelf(Generic[AnyBatch]):
    """The batches of one provider."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._all: list[AnyBatch] = []
        self._by_id: dict[str, AnyBatch] = {}

    def add(self, batch: AnyBatch) -> None:
        """Store a batch; of several with one id, the last one is found by it."""
        self._all.append(batch)
        self._by_id[batch.id] = batch

    def forget(self) -> None:
        """Show none of the batches to anybody any more."""
        for batch in self._all:
            batch.deleted = True

    def all(self) -> Iterable[AnyBatch]:
        """Return every batch ever stored, deleted ones too."""
        return self._all

    def find(self, batch_id: str, account: str) -> AnyBatch | None:
        """Return a batch if the account can see it by now."""
        batch = self._by_id.get(batch_id)
        if batch is None or batch.account != account or batch.deleted:
            return None
        return batch if batch.appeared(self._clock.now()) else None

    def get(self, batch_id: str) -> AnyBatch | None:
        """Return any batch ever stored."""
        return self._by_id.get(batch_id)

    def unfinished(self, account: str) -> list[AnyBatch]:
        """Return the account's batches that have not ended as of their last look, oldest first."""
        now = self._clock.now()
        unfinished = [
            batch
            for batch in self._all
            if batch.account == account
            and batch.ended_at is None
            and not batch.deleted
            and batch.appeared(now)
        ]
        return sorted(unfinished, key=lambda batch: batch.created_at)

    def listed(self, account: str) -> list[AnyBatch]:
        """Return the account's batches that lists show by now, newest first."""
        now = self._clock.now()
        shown = [
            batch
            for batch in self._all
            if batch.account == account
            and not batch.deleted
            and batch.appeared(now)
            and batch.listed_at <= now
        ]
        # Of two batches created at the same moment, the later one comes first.
        return sorted(shown, key=lambda batch: batch.created_at)[::-1]


@dataclass
class Shared:
    """What both providers' routes share."""

    clock: Clock = field(default_factory=Clock)
    pace: Pace = field(default_factory=Pace)
    faults: Faults = field(default_factory=Faults)
    limits: Limits = field(default_factory=Limits)
    lengths: Lengths = field(default_factory=Lengths)
    creates: list[Created] = field(default_factory=list[Created])
    direct: dict[str, Direct] = field(default_factory=dict[str, Direct])
    revoked: set[tuple[str, str]] = field(default_factory=set[tuple[str, str]])
    """The provider and account of each revoked key."""
    memories: dict[str, Callable[[], None]] = field(default_factory=dict[str, Callable[[], None]])
    """For each provider, what makes its server forget batches and files."""
    cache: PromptCache = field(init=False)

    def __post_init__(self) -> None:
        self.cache = PromptCache(self.clock)

    def forget(self, provider: str) -> None:
        """Let a provider's server lose its batches and files; the books keep them."""
        self.memories[provider]()

    def bill_direct(self, provider: str, used: tuple[int, int]) -> None:
        """Record the cost of a call outside of batches."""
        direct = self.direct.setdefault(provider, Direct())
        direct.calls += 1
        direct.input_tokens += used[0]
        direct.output_tokens += used[1]


def new_id(prefix: str, length: int = 22) -> str:
    """Return a random id, so that no other emulator has used it."""
    return prefix + "".join(secrets.choice(_ALPHABET) for _ in range(length))
