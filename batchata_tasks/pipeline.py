"""The way itself: plan → chunk → guard → submit → poll → collect → land → receipt.

A plain function over plain steps. `Steps` names them, so that Prefect can put a task around each;
without it the very same function runs without Prefect being imported.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextvars import copy_context
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from batchata_tasks.chunk import chunk_token, write_request_file
from batchata_tasks.guards import Verdict, guard
from batchata_tasks.land import collect_and_land
from batchata_tasks.ledger import LANDED, PLANNED, SUBMITTED, UNCLEAR, UNFINISHED, Chunk
from batchata_tasks.manifest import plan_bodies, plan_columns, write_chunk_manifest
from batchata_tasks.plan import Options, Planner, PlanSummary
from batchata_tasks.poll import poll
from batchata_tasks.receipt import Receipt, finish
from batchata_tasks.session import Session, active, begin, dead_run, in_flight_keys, make_ready, open_site, session_of
from batchata_tasks.settings import Settings
from batchata_tasks.submit import adopt, submit

if TYPE_CHECKING:
    from pathlib import Path

    from batchata_tasks.progress import Progress
    from batchata_tasks.spec import EnrichmentSpec

ROUND = 1


def plan_step(run_id: str) -> dict[str, Any]:
    """Read the source, decide row by row, fix the run's chunk list in the ledger."""
    session = session_of(run_id)
    run = session.ledger.run(run_id)
    if run.state == "open" or session.table is None:
        return PlanSummary().to_json() if run.plan is None else {"resumed": True}
    options = Options(run.refresh_before, bool(run.retry_failed))
    folder = session.folder.run_folder(run_id)
    planner = Planner(session.table, session.provider, folder, session.lease.dataset_id, options, session.site.progress.planning)
    held = in_flight_keys(session.folder, session.ledger, session.lease.dataset_id, run_id, session.spec.key)
    spans = planner.run(held)
    new = Chunk(
        "", run_id, session.lease.dataset_id, ROUND, "batch", session.provider.name, session.spec.model,
        session.spec.endpoint, 0, 0, 0, None, PLANNED,
    )
    priced = session.rates is not None
    chunks = [
        replace(
            new, id=chunk_token(run_id, ROUND, span.start, "batch"), start=span.start, stop=span.stop,
            bytes=span.bytes, bound=span.bound if priced else None,
        )
        for span in spans
    ]
    if planner.summary.too_large:
        token = chunk_token(run_id, ROUND, 0, "local")
        chunks.append(replace(new, id=token, kind="local", stop=planner.summary.too_large, bound=0 if priced else None))
    session.ledger.check_lease(session.lease)  # right before parts change
    session.table.dataset.conform()
    session.table.dataset.carry(planner.carried)
    session.ledger.fix_plan(session.lease, run_id, planner.summary.to_json(), chunks)
    return planner.summary.to_json()


def chunk_step(run_id: str, chunk_id: str) -> dict[str, Any]:
    """Write a chunk's request file and manifest from its rows of the plan."""
    session = session_of(run_id)
    chunk = session.ledger.chunk(chunk_id)
    plan_folder, name = session.folder.run_folder(run_id), _plan_name(chunk)
    write_chunk_manifest(plan_folder, name, chunk, session.folder.intents / f"{chunk.id}.arrow")
    if chunk.kind == "batch":
        bodies = plan_bodies(plan_folder, name, chunk.start, chunk.stop)
        write_request_file(request_file(session, chunk), session.provider.framing, chunk.id, bodies)
    return {"chunk": chunk.id, "rows": chunk.rows, "bytes": chunk.bytes}


def submit_step(run_id: str, chunk_id: str) -> dict[str, Any]:
    """Send a chunk, once; its batch id."""
    session = session_of(run_id)
    chunk = session.ledger.chunk(chunk_id)
    batch_id = chunk.batch_id or submit(session, chunk, request_file(session, chunk))
    return {"chunk": chunk.id, "batch_id": batch_id}


def poll_step(run_id: str, chunk_id: str) -> dict[str, Any]:
    """Wait for a chunk's batch to end."""
    session = session_of(run_id)
    look = poll(session, session.ledger.chunk(chunk_id).batch_id or "")
    return {"batch_id": look.batch_id, "status": look.status}


def collect_step(run_id: str, chunk_id: str) -> dict[str, Any]:
    """Stream a chunk's results home, settle its money, land its rows."""
    session = session_of(run_id)
    outcomes = collect_and_land(session, session.ledger.chunk(chunk_id))
    return {"chunk": chunk_id, "outcomes": outcomes}


Step = Callable[[str, str], dict[str, Any]]


@dataclass(frozen=True)
class Steps:
    """The steps of the way; a layer may replace each by one that does the same and tells about it."""

    plan: Callable[[str], dict[str, Any]] = plan_step
    chunk: Step = chunk_step
    submit: Step = submit_step
    poll: Step = poll_step
    collect: Step = collect_step


def enrich(
    spec: EnrichmentSpec, options: Options | None = None, steps: Steps | None = None,
    progress: Progress | None = None, settings: Settings | None = None,
) -> Receipt:
    """Run one enrichment to its end and return the receipt.

    A run of the same spec that died is carried on, with what remains of its limit.

    Raises:
        InputError: the spec or the source is wrong; nothing was sent.
        BatchataError: something else stopped the run; the next one carries on.
    """
    steps, settings = steps or Steps(), settings or Settings()
    ready = make_ready(spec, settings)
    with open_site(spec, settings, progress) as site:
        if (old := dead_run(site, ready)) is not None:
            with active(old):
                _land_dead_run(old, steps)
        with active(begin(site, ready, options or Options())) as session:
            steps.plan(session.run_id)
            _tell_plan(session)
            chunks = session.ledger.chunks(session.run_id, (*UNFINISHED, PLANNED))
            stopped = _work(session, steps, sorted(chunks, key=lambda c: c.state == PLANNED))
            receipt = finish(session, stopped_by_limit=stopped)
            site.progress.receipt = receipt.to_json()
            return receipt


def _land_dead_run(old: Session, steps: Steps) -> None:
    """Bring home what a run of another spec left at the provider; what it never sent is dropped."""
    old.say("an earlier run with another spec died with batches open: landing them first.")
    _work(old, steps, old.ledger.chunks(old.run_id, UNFINISHED))
    old.ledger.close_run(old.lease, old.run_id, "abandoned")
    old.folder.drop_run_folder(old.run_id)


def _work(session: Session, steps: Steps, chunks: list[Chunk]) -> bool:
    """Bring chunks home, some at a time; True when the cost limit stopped it."""
    lanes, stopped = _Lanes(session, steps), False
    with ThreadPoolExecutor(session.spec.max_parallel_batches, "chunk") as pool:
        try:
            queue = list(reversed(chunks))
            while queue:
                lanes.make_room()
                chunk = queue.pop()
                verdict = Verdict.SEND
                if chunk.state == PLANNED:
                    verdict, chunk, rest = _guarded(session, chunk)
                    queue += rest
                if verdict is Verdict.SEND:
                    lanes.start(pool, chunk)
                elif verdict is Verdict.ASIDE:
                    stopped = True
                elif verdict is Verdict.WAIT and lanes.busy:
                    lanes.wait_for_one()
                else:
                    lanes.wait_for_all()
                    return True
            lanes.wait_for_all()
        except BaseException:
            session.site.stop.set()
            raise
    return stopped


def _guarded(session: Session, chunk: Chunk) -> tuple[Verdict, Chunk, list[Chunk]]:
    """Ask the guard; return (verdict, the chunk that is next, what goes back to the queue)."""
    planned = session.plan().requests
    verdict, head = guard(session.ledger, session.lease, chunk, session.limit, planned, _columns_of(session))
    rest: list[Chunk] = []
    if head.stop != chunk.stop:
        rest.append(session.ledger.chunk(chunk_token(chunk.run_id, chunk.round, head.stop, chunk.kind)))
    return verdict, head, rest if verdict in (Verdict.SEND, Verdict.ASIDE) else [*rest, head]


def _columns_of(session: Session) -> Callable[[Chunk], tuple[list[int], list[int]]]:
    def columns(chunk: Chunk) -> tuple[list[int], list[int]]:
        folder, bounds, sizes = session.folder.run_folder(session.run_id), list[int](), list[int]()
        for block in plan_columns(folder, _plan_name(chunk), chunk.start, chunk.stop, ["_bound", "_bytes"]):
            bounds += block["_bound"]
            sizes += block["_bytes"]
        return bounds, sizes

    return columns


class _Lanes:
    """Chunks on their way, at most `max_parallel_batches` at a time."""

    def __init__(self, session: Session, steps: Steps) -> None:
        self._session, self._steps = session, steps
        self._running: set[Future[None]] = set()

    @property
    def busy(self) -> bool:
        """Whether a chunk is on its way."""
        return bool(self._running)

    def start(self, pool: ThreadPoolExecutor, chunk: Chunk) -> None:
        """Send a chunk on its way in a thread that sees this one's context (Prefect's flow run)."""
        self._running.add(pool.submit(copy_context().run, self._travel, chunk))

    def make_room(self) -> None:
        """Wait until another chunk may start."""
        while len(self._running) >= self._session.spec.max_parallel_batches:
            self.wait_for_one()

    def wait_for_one(self) -> None:
        """Wait for a chunk to arrive; raises what stopped it."""
        done, self._running = wait(self._running, return_when=FIRST_COMPLETED)
        for future in done:
            future.result()

    def wait_for_all(self) -> None:
        """Wait for every chunk to arrive; raises what stopped one, without waiting for the others."""
        while self._running:
            self.wait_for_one()

    def _travel(self, chunk: Chunk) -> None:
        run_id, steps = self._session.run_id, self._steps
        number = self._session.number_of(chunk)

        def tell(state: str) -> None:
            self._session.site.progress.chunk(number, chunk.rows, state)

        lost = chunk.state == UNCLEAR and self._session.sends and not request_file(self._session, chunk).exists()
        if chunk.state == PLANNED or lost:
            steps.chunk(run_id, chunk.id)
        if chunk.state == UNCLEAR and not self._session.sends and adopt(self._session, chunk) is None:
            self._session.ledger.withdraw_intent(self._session.lease, chunk.id)
            return  # it never was accepted, and nobody wants it any more
        if chunk.kind == "batch" and chunk.state in (PLANNED, UNCLEAR, SUBMITTED):
            tell("sending" if chunk.state == PLANNED else "looking")
            steps.submit(run_id, chunk.id)
            tell("at the provider")
            steps.poll(run_id, chunk.id)
        if chunk.state != LANDED:
            tell("landing")
            steps.collect(run_id, chunk.id)
        tell("landed")


def _plan_name(chunk: Chunk) -> str:
    return "plan" if chunk.kind == "batch" else "local"


def request_file(session: Session, chunk: Chunk) -> Path:
    """Return where a chunk's request file lies."""
    return session.folder.requests / f"{chunk.id}.jsonl"


def _tell_plan(session: Session) -> None:
    plan = session.plan()
    session.site.progress.planned(plan.requests, plan.batches, plan.up_to_date)


