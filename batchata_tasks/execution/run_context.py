"""A run that is at work: spec, ledger, lease, folder and providers, as its steps use them.

`RunContext` is a whole run, `BatchContext` the run as one of its chunks uses it.
"""

from __future__ import annotations

import json
import math
import threading
from collections import Counter
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from batchata_tasks.common.clock import at_awake, awake_clock
from batchata_tasks.common.errors import CredentialsError
from batchata_tasks.dataset.manifest import plan_columns
from batchata_tasks.dataset.renames import Renames
from batchata_tasks.execution.predecessor import Predecessor, began_at
from batchata_tasks.execution.run_ref import RunRef
from batchata_tasks.ledger import SENDING_ENDS, ChunkKind, ChunkState, Ledger, StopReason
from batchata_tasks.planning.limits import limits_of
from batchata_tasks.planning.route import Route
from batchata_tasks.planning.summary import PlanSummary
from batchata_tasks.pricing.lookup import batch_rates
from batchata_tasks.pricing.price_file import load_prices
from batchata_tasks.pricing.rates import stored_rates
from batchata_tasks.providers import open_adapter
from batchata_tasks.providers.queue_file import load_queue_limits
from batchata_tasks.schema.answers import AnswerSchemas
from batchata_tasks.spec.jobs import JobsSpec
from batchata_tasks.spec.loading import parse_spec
from batchata_tasks.types.destination import Destination

if TYPE_CHECKING:
    from pathlib import Path

    from batchata_tasks.common.settings import Settings
    from batchata_tasks.dataset.folder import DatasetFolder
    from batchata_tasks.execution.held_dataset import HeldDataset
    from batchata_tasks.ledger import Chunk, Lease, RunRow
    from batchata_tasks.planning.limits import SpendingLimits
    from batchata_tasks.pricing.rates import Rates
    from batchata_tasks.providers import Adapter
    from batchata_tasks.providers.queue_file import QueueLimits
    from batchata_tasks.spec.run import RunSpec


_SHORTEST_WAIT = 0.05  # seconds
_UNSENT = (ChunkState.PLANNED, ChunkState.DROPPED)


@dataclass
class RunState:
    """All that changes while a run goes on, in one process; threads change it under its lock."""

    lock: threading.RLock = field(default_factory=threading.RLock)
    landing: threading.Lock = field(default_factory=threading.Lock)  # held for as long as it takes
    # held while a chunk's files are written: the blocks of rows of ten at once take 100 MB
    writing: threading.Lock = field(default_factory=threading.Lock)
    stopping: str | None = None  # why the run is to stop, as last read
    plan: PlanSummary | None = None  # once it is fixed
    waits: int = 0  # times that the guard waited for money in flight
    # after trouble of the account, until a batch shows that it is mended
    one_at_a_time: bool = False
    # whether results could not be had, and no batch has landed since: nothing more is sent then
    no_results: bool = False
    failed: bool = False  # whether an error ended the sending: only what is sent already lands
    # by the block of credentials, too
    routes: dict[tuple[Destination, str | None], Route] = field(
        default_factory=dict[tuple["Destination", str | None], "Route"]
    )
    batch_numbers: dict[str, int] = field(default_factory=dict[str, int])  # by chunk
    # whether the batches that were sent before this process began are in `batch_numbers`
    numbered_before: bool = False
    chunks_counted: set[str] = field(default_factory=set[str])  # whose errors are in `errors`
    errors: Counter[str] = field(default_factory=Counter[str])  # of what has landed
    uploads_left: bool = False  # whether an upload could not be deleted
    # chunks for whose batches, or for room for them, this process does not wait any longer
    waiting: set[str] = field(default_factory=set[str])
    queue_told_at: float | None = None  # when a wait for room was told last, by `time.monotonic`


@dataclass
class RunContext:
    """One run of a held dataset."""

    held: HeldDataset
    run_id: str
    spec: RunSpec
    answers: AnswerSchemas
    continued: bool = False
    sends: bool = True  # False: what an earlier run sent is landed, nothing more
    until: float | None = None  # the time limit of a run that waits for this one; see `deadline`
    state: RunState = field(default_factory=RunState)

    @property
    def ref(self) -> RunRef:
        """The run's name, for steps that may be done in another process."""
        ledger, output = self.ledger, str(self.folder.root)
        return RunRef(ledger.id, ledger.place, self.run_id, output, self.lease, self.sends)

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
        """Return the run as one of its chunks uses it."""
        to = Destination(chunk.provider, chunk.model, chunk.endpoint)
        try:
            return BatchContext(self, self.route(to, self._block_of(chunk)))
        except CredentialsError as error:
            if chunk.batch_id is None:
                raise
            message = (
                f"{error} Batch {chunk.batch_id} was sent with these credentials, and is seen with "
                "no others (if they are lost for good: `batchata reconcile --abandon "
                f"{chunk.batch_id}` gives it up)."
            )
            raise CredentialsError(message) from error

    def route(self, to: Destination, block: str | None) -> Route:
        """Return a route with the prices and bounds that the run began with.

        Its provider is asked with the credentials of a block, or, for None, of the environment.
        """
        with self.state.lock:
            if (to, block) not in self.state.routes:
                self.state.routes[to, block] = Route(
                    self.held.adapters.add(open_adapter(to.provider, to.endpoint, block)),
                    to.model,
                    to.endpoint,
                    self.rates(to),
                    factor=self.planned_factor(to),
                )
            return self.state.routes[to, block]

    def _block_of(self, chunk: Chunk) -> str | None:
        """Return the block of the account that a chunk is sent to, or was: its own run's.

        A run looks after batches of earlier ones, whose spec may have named another block.
        """
        if chunk.run_id == self.run_id:
            return self.spec.block
        stored: dict[str, Any] = json.loads(self.ledger.run(chunk.run_id).spec)
        return stored["spec"].get("credentials")

    def planned_factor(self, to: Destination) -> int:
        """Return the factor of a model's bounds in the run's plan, in millionths."""
        return self.plan().factors.get(to.key, 10**6)

    def rates(self, to: Destination) -> Rates | None:
        """Return the batch rates that the run began with."""
        stored = self._stored
        if "prices" in stored:
            return stored_rates(stored["prices"].get(to.key))
        # ledgers of older versions kept the rates of one model, or none
        if "rates" in stored:
            return stored_rates(stored["rates"])
        return batch_rates(to.provider, to.model, load_prices(self.settings.prices))

    @cached_property
    def queue_limits(self) -> QueueLimits:
        """What queues of providers hold by the settings."""
        return load_queue_limits(self.settings.queues)

    @cached_property
    def begun(self) -> RunRow:
        """The run's row as it began: its spec, prices and begin stay as they are."""
        return self.ledger.run(self.run_id)

    @cached_property
    def _stored(self) -> dict[str, Any]:
        """The spec and the prices that the ledger keeps of the run."""
        stored: dict[str, Any] = json.loads(self.begun.spec)
        return stored

    @cached_property
    def predecessor(self) -> Predecessor | None:
        """The outdated run whose place this one takes, if there is one."""
        return Predecessor.recorded(self.begun.spec)

    @property
    def rehearsal(self) -> bool:
        """Whether an emulator answers."""
        return bool(self.begun.rehearsal)

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
        """What binds the run's spending: of its own limit, what its predecessors have left."""
        limits, before = limits_of(self.spec, rehearsal=self.rehearsal), self.predecessor
        if limits.run is None or before is None:
            return limits
        return replace(limits, run=max(limits.run - before.spent, 0))

    def plan(self) -> PlanSummary:
        """Return the summary of the run's plan, an empty one before the plan is fixed."""
        if self.state.plan is None:
            text = self.ledger.run(self.run_id).plan
            if text is None:
                return PlanSummary()
            self.state.plan = PlanSummary.from_json(json.loads(text))
        return self.state.plan

    def number_of(self, chunk: Chunk) -> int:
        """Return the 1-based number of a batch, in the order in which batches are first asked for.

        The scheduler asks in the order in which it sends. A run that is carried on counts on from
        what was sent.
        """
        with self.state.lock:
            numbers = self.batch_numbers()
            return numbers.setdefault(chunk.id, len(numbers) + 1)

    def batch_numbers(self) -> dict[str, int]:
        """Return the numbers of batches by chunk.

        What earlier processes sent is numbered in the order of its rows: so it was sent, but for
        what had to wait for money.
        """
        state = self.state
        with state.lock:
            if not state.numbered_before:
                state.numbered_before = True
                for chunk in self.ledger.chunks(self.run_id):
                    if chunk.kind == ChunkKind.BATCH and chunk.state not in _UNSENT:
                        state.batch_numbers.setdefault(chunk.id, len(state.batch_numbers) + 1)
            return state.batch_numbers

    def request_file(self, chunk: Chunk) -> Path:
        """Return the path of a chunk's request file."""
        return self.folder.requests / f"{chunk.id}.jsonl"

    def columns_of(self, chunk: Chunk) -> tuple[list[int], list[int]]:
        """Return the bounds (picodollars) and sizes (bytes) of a chunk's rows."""
        bounds, sizes = list[int](), list[int]()
        for block in plan_columns(self.folder.run_folder(self.run_id), chunk, ["_bound", "_bytes"]):
            bounds += block["_bound"]
            sizes += block["_bytes"]
        return bounds, sizes

    def stop_reason(self) -> str | None:
        """Return why the run sends nothing more (most reasons also cancel open batches), or None.

        Requests come through the ledger, so they reach the run in every process.
        """
        if self.state.stopping in (None, *SENDING_ENDS):
            if self.deadline is not None and awake_clock() >= self.deadline:
                self.ledger.request_stop(self.run_id, StopReason.TIME_LIMIT)
            self.state.stopping = self.ledger.stop_reason(self.run_id) or self.held.stop_requested
        return self.state.stopping

    def seconds_left(self) -> float:
        """Return the seconds until the time limit; infinity if there is none or it is over."""
        if self.deadline is None or self.state.stopping not in (None, *SENDING_ENDS):
            return math.inf
        return max(self.deadline - awake_clock(), _SHORTEST_WAIT)

    @cached_property
    def deadline(self) -> float | None:
        """The moment at which a time limit is reached, by `awake_clock`."""
        seconds, moments = self.spec.time_limit_seconds, list[float]()
        if seconds is not None:
            moments.append(at_awake(began_at(self.begun)) + seconds)
        if self.until is not None:
            moments.append(self.until)
        return min(moments, default=None)

    def require_lease(self) -> None:
        """Raise LeaseError unless it is sure at this moment that the run holds the dataset."""
        self.held.require_lease()

    def raise_if_left(self) -> None:
        """Raise InterruptedRunError if the run is to end at once, LeaseError if its lease is lost.

        Asked before anything new is begun, so that nothing is sent after a run was left.
        """
        self.held.raise_if_left()

    def sleep(self, seconds: float) -> None:
        """Wait; raises as `raise_if_left` as soon as the run is to end."""
        self.held.sleep(seconds)

    def waiting(self, what: str) -> None:
        """Count a wait of the guard, and report it."""
        with self.state.lock:
            self.state.waits += 1
        self.log(f"waiting for {what}.")

    def log(self, text: str) -> None:
        """Report what goes on."""
        self.held.progress.note(text)


@dataclass(frozen=True)
class BatchContext:
    """A run as one of its chunks uses it: with the chunk's provider, model and prices."""

    run: RunContext
    route: Route

    @property
    def provider(self) -> Adapter:
        """The adapter to the chunk's provider."""
        return self.route.provider

    @property
    def ledger(self) -> Ledger:
        """The ledger."""
        return self.run.ledger

    @property
    def lease(self) -> Lease:
        """The lease on the dataset."""
        return self.run.lease

    @property
    def folder(self) -> DatasetFolder:
        """The dataset's folder."""
        return self.run.folder

    @property
    def settings(self) -> Settings:
        """The settings."""
        return self.run.settings

    @property
    def rehearsal(self) -> bool:
        """See RunContext."""
        return self.run.rehearsal

    def require_lease(self) -> None:
        """See RunContext."""
        self.run.require_lease()

    def raise_if_left(self) -> None:
        """See RunContext."""
        self.run.raise_if_left()

    def stop_reason(self) -> str | None:
        """See RunContext."""
        return self.run.stop_reason()

    def seconds_left(self) -> float:
        """See RunContext."""
        return self.run.seconds_left()

    def sleep(self, seconds: float) -> None:
        """See RunContext."""
        self.run.sleep(seconds)

    def log(self, text: str) -> None:
        """See RunContext."""
        self.run.log(text)


def restored_context(held: HeldDataset, run: RunRow) -> RunContext:
    """Return a context that lands what a run sent; it sends nothing.

    Spec and response model are those that the ledger keeps, whatever the spec's file says by now.
    It keeps no classes: a model that is still the same is the class that this process has of it.
    """
    stored = json.loads(run.spec)
    answers = AnswerSchemas.from_json(stored)
    if held.answers is not None:
        answers = answers.with_classes_of(held.answers)
    spec = _under_todays_names(stored, Renames.read(held.folder))
    return RunContext(held, run.id, spec, answers, continued=True, sends=False)


def _under_todays_names(stored: dict[str, Any], renames: Renames) -> RunSpec:
    """Return the spec that the ledger keeps of a run, its columns called as they are by now."""
    spec, known = stored_spec(stored), len(stored.get("renames", []))
    if isinstance(spec, JobsSpec) or known == len(renames):
        return spec
    columns = None if spec.columns is None else renames.today(spec.columns, known)
    return spec.model_copy(update={"key": renames.today(spec.key, known), "columns": columns})


def stored_spec(stored: dict[str, Any]) -> RunSpec:
    """Return the spec that the ledger keeps of a run."""
    spec = stored["spec"]
    if spec.get("kind") == "jobs":
        return JobsSpec.model_validate(spec)
    return parse_spec(spec, "the ledger's copy of the spec")
