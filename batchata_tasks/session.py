"""A run that is under way in this process: spec, ledger, lease, folder, provider, together.

Steps are handed ids alone, since a workflow engine carries their arguments about; `session_of`
gives them the live run that the ids mean.
"""

from __future__ import annotations

import hashlib
import json
import math
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from batchata_tasks.dataset import keys_of
from batchata_tasks.errors import BatchataError, HeldError, LeaseError
from batchata_tasks.fingerprint import key_digest
from batchata_tasks.guards import OVER_BOUND, limits_of
from batchata_tasks.ledger import HELD, Ledger, now_us
from batchata_tasks.manifest import has_plan, plan_columns, read_chunk_manifest
from batchata_tasks.plan import Options, PlanSummary, Table, prepare
from batchata_tasks.pricing import batch_rates
from batchata_tasks.providers import provider_of
from batchata_tasks.schema import ResponseSchema
from batchata_tasks.site import awake_clock
from batchata_tasks.spec_file import parse_spec
from batchata_tasks.storage import DatasetFolder

if TYPE_CHECKING:
    from collections.abc import Container, Generator, Iterator
    from pathlib import Path

    from sqlalchemy import Row

    from batchata_tasks.guards import Limits
    from batchata_tasks.ledger import Chunk, Lease
    from batchata_tasks.pricing import Rates
    from batchata_tasks.providers import Provider
    from batchata_tasks.settings import Settings
    from batchata_tasks.site import Site
    from batchata_tasks.spec import EnrichmentSpec


_MOMENT = 0.05
CANCEL, TIME_LIMIT = "cancel", "time_limit"  # why a run stops before its end


class InterruptedRunError(BatchataError):
    """The run was asked to stop; what is at the provider goes on there, and the next run lands it."""


@dataclass
class Session:
    """One run at a site."""

    site: Site
    run_id: str
    spec: EnrichmentSpec
    schema: ResponseSchema | None
    provider: Provider
    continued: bool = False
    landing: threading.Lock = field(default_factory=threading.Lock)
    sends: bool = True  # a dead run of another spec only brings home what was sent
    table: Table | None = None  # only where the run is (to be) planned by this process
    stopping: str | None = None
    waits: int = 0  # times that the guard waited for money in flight

    @property
    def folder(self) -> DatasetFolder:
        """The dataset's folder."""
        return self.site.folder

    @property
    def ledger(self) -> Ledger:
        """The ledger."""
        return self.site.ledger

    @property
    def lease(self) -> Lease:
        """The lease on the dataset."""
        return self.site.lease

    @property
    def settings(self) -> Settings:
        """The settings."""
        return self.site.settings

    @cached_property
    def rates(self) -> Rates | None:
        """The batch rates of the run's model, the same ones as long as this process works on it."""
        return batch_rates(self.provider.name, self.spec.model) if self.table is None else self.table.builder.rates

    @property
    def limit(self) -> int | None:
        """The run's cost limit in picodollars."""
        return self.limits.run

    @property
    def limits(self) -> Limits:
        """What binds the run's spending."""
        return limits_of(self.spec)

    def plan(self) -> PlanSummary:
        """Return what the run's plan found."""
        return PlanSummary(**json.loads(self.ledger.run(self.run_id).plan or "{}"))

    def number_of(self, chunk: Chunk) -> int:
        """Return a chunk's place among the run's, from 1."""
        return self.ledger.place_of(chunk)

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
        if self.stopping in (None, OVER_BOUND):
            if self.deadline is not None and now_us() >= self.deadline:
                self.ledger.request_stop(self.run_id, TIME_LIMIT)
            self.stopping = self.ledger.stop_reason(self.run_id)
        return self.stopping

    def seconds_left(self) -> float:
        """Return the time until the spec's time limit; at least a moment, infinite without one or after it."""
        if self.deadline is None or self.stopping not in (None, OVER_BOUND):
            return math.inf
        return max((self.deadline - now_us()) / 1e6, _MOMENT)

    @cached_property
    def deadline(self) -> int | None:
        """The moment (microseconds since 1970) at which the spec's time limit is reached."""
        seconds = self.spec.time_limit_seconds
        return None if seconds is None else self.ledger.run(self.run_id).started_at + int(seconds * 1e6)

    def must_hold(self) -> None:
        """Raise LeaseError unless this process is sure to hold the dataset at this moment.

        A process that was stopped (a signal, a sleeping laptop) wakes up where it was: right
        before a create, say, while a successor has long taken over.
        """
        if awake_clock() >= self.site.held_until:
            message = "this run was stopped for longer than its lease, so it sends nothing; start it again."
            raise LeaseError(message)

    def sleep(self, seconds: float) -> None:
        """Wait; raises LeaseError or InterruptedRunError when the run is to stop."""
        if self.site.stop.wait(seconds):
            if self.site.lost is not None:
                raise self.site.lost
            message = "the run was stopped; batches that were sent go on at the provider, and the next run lands them."
            raise InterruptedRunError(message)

    def waiting(self, what: str) -> None:
        """Count a wait of the guard, and tell people of it."""
        self.waits += 1
        self.say(f"waiting for {what}.")

    def say(self, text: str) -> None:
        """Tell people what goes on."""
        self.site.progress.note(text)


_SESSIONS: dict[str, Session] = {}


def session_of(run_id: str) -> Session:
    """Return the run that this process has open."""
    return _SESSIONS[run_id]


@contextmanager
def active(session: Session) -> Generator[Session, None, None]:
    """Let steps find the session by its run id."""
    _SESSIONS[session.run_id] = session
    try:
        yield session
    finally:
        del _SESSIONS[session.run_id]


@dataclass(frozen=True)
class Ready:
    """A spec that passed every check that needs no rows, with what the ledger keeps of it."""

    spec: EnrichmentSpec
    provider: Provider
    table: Table
    record: dict[str, Any]


def make_ready(spec: EnrichmentSpec, settings: Settings) -> Ready:
    """Check a spec, before anything is written or sent.

    Raises:
        InputError: with the field and the remedy.
    """
    provider = provider_of(spec.model, spec.provider)()
    folder = DatasetFolder(spec.output)
    folder.check()
    table = prepare(spec, provider, folder.data, settings.roots())
    return Ready(spec, provider, table, _record(spec, table))


def begin(site: Site, ready: Ready, options: Options) -> Session:
    """Begin a run, or carry on a dead one of the same spec, whose plan then stands."""
    spec, table, ledger = ready.spec, ready.table, site.ledger
    dead = ledger.open_run(site.lease.dataset_id)
    if dead is not None and _may_go_on(site, dead, ready):
        session = Session(site, dead.id, spec, table.schema, ready.provider, continued=True, table=table)
        table.builder.bounds_factor = session.plan().bounds_factor
        return session
    table.builder.bounds_factor = ledger.bounds_factor(ready.provider.name, spec.model)
    if dead is not None:  # it died while planning: nothing was sent
        site.folder.drop_run_folder(dead.id)
        ledger.close_run(site.lease, dead.id, "abandoned")
    if spec.budget is not None:
        ledger.agree_budget(spec.budget.terms(), spec.name)
    values = {
        **ready.record, "refresh_before": options.refresh_before, "retry_failed": int(options.retry_failed),
        "cost_limit": limits_of(spec).run,
        "price_source": table.builder.rates.source if table.builder.rates is not None else None,
    }
    run_id = ledger.begin_run(site.lease, values)
    site.folder.sweep()
    return Session(site, run_id, spec, table.schema, ready.provider, table=table)


def dead_run(site: Site, ready: Ready) -> Session | None:
    """Return a dead run of another spec, or of an older text of this one, if there is one.

    Its rows land under its own spec and response model, as the ledger keeps them.
    """
    dead = site.ledger.open_run(site.lease.dataset_id)
    if dead is None or dead.state != "open" or _may_go_on(site, dead, ready):
        return None
    return restored(site, dead)


def _may_go_on(site: Site, dead: Row[Any], ready: Ready) -> bool:
    """Whether a dead run is carried on: the same spec, and its plan is still there."""
    same = dead.state == "open" and site.recovery is None and dead.spec_digest == ready.record["spec_digest"]
    return same and has_plan(site.folder.run_folder(dead.id), site.ledger.chunks(dead.id))


def restored(site: Site, run: Row[Any]) -> Session:
    """Return a session that brings home what a run sent, under its own spec and response model; it sends nothing."""
    stored = json.loads(run.spec)
    spec = parse_spec(stored["spec"], "the ledger's copy of the spec")
    schema = ResponseSchema.from_json_schema(stored["schema"], "response_model") if stored["schema"] else None
    return Session(site, run.id, spec, schema, provider_of(spec.model, spec.provider)(), continued=True, sends=False)


def _record(spec: EnrichmentSpec, table: Table) -> dict[str, Any]:
    """Return what the ledger keeps of a spec; its digest tells whether a dead run may go on.

    The digest holds the texts that the spec only refers to (prompt file, response model) too.
    """
    schema = table.schema.wire if table.schema is not None else None
    text = json.dumps({"spec": spec.model_dump(mode="json"), "schema": schema}, sort_keys=True)
    digest = hashlib.sha256(f"{text} {table.builder.constant}".encode()).hexdigest()
    return {"name": spec.name, "spec": text, "spec_digest": digest}


def in_flight_keys(
    folder: DatasetFolder, ledger: Ledger, dataset_id: str, but_run: str, key: list[str], but_chunks: Container[str] = ()
) -> Iterator[bytes]:
    """Yield the keys (digests) of rows that other runs sent and nobody landed yet."""
    for chunk in ledger.unfinished_chunks(dataset_id, but_run):
        if chunk.id in but_chunks:
            continue
        if chunk.state == HELD and not (folder.intents / f"{chunk.id}.arrow").exists():
            message = f"the rows of chunk {chunk.id} are held, and which ones they are is lost: decide with `batchata reconcile` first."
            raise HeldError(message)
        manifest = read_chunk_manifest(folder.intents / f"{chunk.id}.arrow")
        yield from map(key_digest, keys_of(manifest, key))


def refresh_mark(refresh: bool) -> int | None:  # noqa: FBT001 - a yes or no of the command line
    """Return the moment before which landed rows count as not landed."""
    return now_us() if refresh else None
