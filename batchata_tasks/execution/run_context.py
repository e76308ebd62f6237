"""A run that is under way in this process: spec, ledger, lease, folder, provider, together.

Steps are handed ids alone, since a workflow engine carries their arguments about; `context_of`
gives them the live run that the ids mean.
"""

from __future__ import annotations

import json
import math
import threading
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import TYPE_CHECKING

from batchata_tasks.common.clock import awake_clock, now_us
from batchata_tasks.common.errors import BatchataError, LeaseError
from batchata_tasks.dataset.manifest import plan_columns
from batchata_tasks.ledger import SENDING_ENDS, ChunkKind, ChunkState, Ledger, StopReason
from batchata_tasks.planning.limits import limits_of
from batchata_tasks.planning.route import Route
from batchata_tasks.planning.summary import PlanSummary
from batchata_tasks.pricing.lookup import batch_rates
from batchata_tasks.pricing.price_file import load_prices
from batchata_tasks.pricing.rates import stored_rates
from batchata_tasks.providers import provider_type
from batchata_tasks.types.destination import Destination

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

    from batchata_tasks.common.settings import Settings
    from batchata_tasks.dataset.folder import DatasetFolder
    from batchata_tasks.execution.held_dataset import HeldDataset
    from batchata_tasks.ledger import Chunk, Lease
    from batchata_tasks.planning.limits import SpendingLimits
    from batchata_tasks.planning.table import PreparedTable
    from batchata_tasks.pricing.rates import Rates
    from batchata_tasks.providers import Adapter
    from batchata_tasks.schema.answers import AnswerSchemas
    from batchata_tasks.spec.run import RunSpec


_MOMENT = 0.05


class InterruptedRunError(BatchataError):
    """The run was asked to stop; what is at the provider goes on there, and the next run lands it."""


@dataclass
class RunState:
    """What changes while a run goes on, whoever looks at it."""

    landing: threading.Lock = field(default_factory=threading.Lock)
    stopping: str | None = None
    waits: int = 0  # times that the guard waited for money in flight
    routes: dict[Destination, Route] = field(default_factory=dict["Destination", "Route"])
    numbers: dict[str, int] = field(
        default_factory=dict[str, int]
    )  # of the batches that were sent, by chunk
    counting: threading.Lock = field(default_factory=threading.Lock)
    landed_before: int | None = None  # batches, where a run is carried on
    read: set[str] = field(default_factory=set[str])  # chunks whose errors are counted
    errors: Counter[str] = field(default_factory=Counter[str])  # of what has landed


@dataclass
class RunContext:
    """One run of a dataset that this process holds."""

    held: HeldDataset
    run_id: str
    spec: RunSpec
    answers: AnswerSchemas
    continued: bool = False
    sends: bool = True  # a dead run of another spec only brings home what was sent
    table: PreparedTable | None = None  # only where the run is (to be) planned by this process
    state: RunState = field(default_factory=RunState)

    @property
    def folder(self) -> DatasetFolder:
        """The dataset's folder."""
        return self.held.folder

    @property
    def ledger(self) -> Ledger:
        """The ledger."""
        return self.held.ledger

    @property
    def lease(self) -> Lease:
        """The lease on the dataset."""
        return self.held.lease

    @property
    def settings(self) -> Settings:
        """The settings."""
        return self.held.settings

    def for_chunk(self, chunk: Chunk) -> BatchContext:
        """Return the run as one of its chunks sees it."""
        known = {one.name: getattr(self, one.name) for one in fields(RunContext)}
        return BatchContext(
            **known, taken=self.route(Destination(chunk.provider, chunk.model, chunk.endpoint))
        )

    def route(self, to: Destination) -> Route:
        """Return a route of the run, with the prices and bounds that it began with, whichever process works on it."""
        if to not in self.state.routes:
            factor = self.plan().factors.get(to.key, 10**6)
            self.state.routes[to] = Route(
                provider_type(to.provider, to.endpoint)(),
                to.model,
                to.endpoint,
                self.rates(to),
                factor=factor,
            )
        return self.state.routes[to]

    def rates(self, to: Destination) -> Rates | None:
        """Return the batch rates that the run began with."""
        stored = json.loads(self.ledger.run(self.run_id).spec)
        if "prices" in stored:
            return stored_rates(stored["prices"].get(to.key))
        # runs of older ledgers kept those of one model, or none
        if "rates" in stored:
            return stored_rates(stored["rates"])
        return batch_rates(to.provider, to.model, load_prices(self.settings.prices))

    @property
    def priced(self) -> bool:
        """Whether a batch price is known for all that the run sends."""
        return all(self.rates(to) is not None for to in self.spec.destinations())

    @property
    def limit(self) -> int | None:
        """The run's cost limit in picodollars."""
        return self.limits.run

    @property
    def limits(self) -> SpendingLimits:
        """What binds the run's spending."""
        return limits_of(self.spec)

    def plan(self) -> PlanSummary:
        """Return what the run's plan found."""
        return PlanSummary.from_json(json.loads(self.ledger.run(self.run_id).plan or "{}"))

    def number_of(self, chunk: Chunk) -> int:
        """Return a batch's place in the order in which they are first asked for, from 1: that in which they are sent.

        A run that is carried on counts on from what had landed.
        """
        state = self.state
        with state.counting:
            if state.landed_before is None:
                state.landed_before = sum(
                    chunk.kind == ChunkKind.BATCH
                    for chunk in self.ledger.chunks(self.run_id, (ChunkState.LANDED,))
                )
            return state.numbers.setdefault(chunk.id, state.landed_before + len(state.numbers) + 1)

    def request_file(self, chunk: Chunk) -> Path:
        """Return where a chunk's request file lies."""
        return self.folder.requests / f"{chunk.id}.jsonl"

    def columns_of(self, chunk: Chunk) -> tuple[list[int], list[int]]:
        """Return the bounds (picodollars) and sizes (bytes) of a chunk's rows."""
        bounds, sizes = list[int](), list[int]()
        for block in plan_columns(self.folder.run_folder(self.run_id), chunk, ["_bound", "_bytes"]):
            bounds += block["_bound"]
            sizes += block["_bytes"]
        return bounds, sizes

    def stop_reason(self) -> str | None:
        """Why nothing more is to be sent and open batches are to be cancelled; None while the run goes on."""
        if self.state.stopping in (None, *SENDING_ENDS):
            if self.deadline is not None and now_us() >= self.deadline:
                self.ledger.request_stop(self.run_id, StopReason.TIME_LIMIT)
            self.state.stopping = self.ledger.stop_reason(self.run_id) or self.held.asked
        return self.state.stopping

    def seconds_left(self) -> float:
        """Return the time until the spec's time limit; at least a moment, infinite without one or after it."""
        if self.deadline is None or self.state.stopping not in (None, *SENDING_ENDS):
            return math.inf
        return max((self.deadline - now_us()) / 1e6, _MOMENT)

    @cached_property
    def deadline(self) -> int | None:
        """The moment (microseconds since 1970) at which the spec's time limit is reached."""
        seconds = self.spec.time_limit_seconds
        return (
            None
            if seconds is None
            else self.ledger.run(self.run_id).started_at + int(seconds * 1e6)
        )

    def require_lease(self) -> None:
        """Raise LeaseError unless this process is sure to hold the dataset at this moment.

        A process that was stopped (a signal, a sleeping laptop) wakes up where it was: right
        before a create, say, while a successor has long taken over.
        """
        if awake_clock() >= self.held.held_until:
            message = "this run was stopped for longer than its lease, so it sends nothing; start it again."
            raise LeaseError(message)

    def sleep(self, seconds: float) -> None:
        """Wait; raises LeaseError or InterruptedRunError when the run is to stop."""
        if self.held.stop.wait(seconds):
            if self.held.lost is not None:
                raise self.held.lost
            message = "the run was stopped; batches that were sent go on at the provider, and the next run lands them."
            raise InterruptedRunError(message)

    def waiting(self, what: str) -> None:
        """Count a wait of the guard, and tell people of it."""
        self.state.waits += 1
        self.log(f"waiting for {what}.")

    def log(self, text: str) -> None:
        """Tell people what goes on."""
        self.held.progress.note(text)


@dataclass
class BatchContext(RunContext):
    """A run as one of its chunks sees it: with the provider, the model and the prices that are the chunk's."""

    taken: Route = field(kw_only=True)

    @property
    def provider(self) -> Adapter:
        """The adapter to the chunk's provider."""
        return self.taken.provider


_SESSIONS: dict[str, RunContext] = {}


def context_of(run_id: str) -> RunContext:
    """Return the run that this process has open."""
    return _SESSIONS[run_id]


@contextmanager
def active(context: RunContext) -> Generator[RunContext, None, None]:
    """Let steps find the context by its run id."""
    _SESSIONS[context.run_id] = context
    try:
        yield context
    finally:
        del _SESSIONS[context.run_id]
