"""Prefect's layer: each step of the pipeline as a task, one per chunk.

Cache keys hold ledger, run, round and chunk, so that a flow run that is started again finds its
finished steps. The cache only saves time: a cached value is compared with the ledger before it is
used, and the step is done again if they differ. Plan and poll are never cached.

Workers may do `chunk`, and the part of `collect` that reads results (see `workers.py`).

A task is given a `RunRef` and a chunk's id. Prefect carries both between processes and shows them
to people; they hold no secret.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.runtime import task_run

from batchata_tasks.common.errors import TransientError
from batchata_tasks.common.text import pluralize
from batchata_tasks.execution.contexts import context_of
from batchata_tasks.execution.run_ref import (  # noqa: TC001 - Prefect reads annotations
    PartOrder,
    RunRef,
)
from batchata_tasks.flows.ending import ends_in_order, value_of
from batchata_tasks.ledger import ChunkKind, ChunkState
from batchata_tasks.pipeline import steps as pipeline
from batchata_tasks.providers import provider_type

if TYPE_CHECKING:
    from collections.abc import Callable

    from batchata_tasks.flows.workers import Workers

_CACHE_VERSION = "1"
_RETRY_DELAYS = [10.0, 30.0]  # seconds, beyond the retries within each step


def _name() -> str:
    """Return a task run's name for people: the step, the batch's number, its rows."""
    parameters: dict[str, Any] = task_run.parameters or {}
    step = str(task_run.task_name)
    context = context_of(parameters["ref"])
    order: PartOrder | None = parameters.get("order")
    chunk_id: str | None = parameters.get("chunk_id") if order is None else order.chunk_id
    if chunk_id is None:
        return f"{step} {context.spec.name}"
    chunk = context.ledger.chunk(chunk_id)
    batch = (
        f"batch {context.number_of(chunk)}" if chunk.kind == ChunkKind.BATCH else "what is not sent"
    )
    return f"{step} {batch} ({pluralize(chunk.rows, 'row')})"


def _key(step: str) -> Callable[[Any, dict[str, Any]], str]:
    def key(_context: Any, parameters: dict[str, Any]) -> str:
        context = context_of(parameters["ref"])
        chunk = context.ledger.chunk(parameters["chunk_id"])
        where = f"{context.ledger.id}/{chunk.run_id}/{chunk.round}/{chunk.id}-{chunk.stop}"
        return f"batchata/{_CACHE_VERSION}/{where}/{step}"

    return key


def _is_transient(_task: object, _run: object, state: Any) -> bool:
    error = state.result(raise_on_failure=False)
    return isinstance(error, TransientError)


_CACHED: dict[str, Any] = {
    "task_run_name": _name,
    "persist_result": True,
    "result_serializer": "json",
    "retries": len(_RETRY_DELAYS),
    "retry_delay_seconds": _RETRY_DELAYS,
    "retry_condition_fn": _is_transient,
}


@task(name="plan", task_run_name=_name, cache_policy=NO_CACHE, persist_result=False)
@ends_in_order
def plan(ref: RunRef) -> dict[str, Any]:
    """Decide which rows are to be sent, and why."""
    return pipeline.plan_step(ref)


@task(name="next round", task_run_name=_name, cache_policy=NO_CACHE, persist_result=False)
@ends_in_order
def next_round(ref: RunRef) -> dict[str, Any]:
    """Plan another round of rows that are worth another attempt."""
    return pipeline.round_step(ref)


@task(name="chunk", cache_key_fn=_key("chunk"), **_CACHED)
@ends_in_order
def chunk(ref: RunRef, chunk_id: str) -> dict[str, Any]:
    """Write a chunk's request file."""
    return pipeline.chunk_step(ref, chunk_id)


@task(name="submit", cache_key_fn=_key("submit"), **_CACHED)
@ends_in_order
def submit(ref: RunRef, chunk_id: str) -> dict[str, Any]:
    """Send a chunk, once."""
    return pipeline.submit_step(ref, chunk_id)


@task(
    name="poll",
    task_run_name=_name,
    cache_policy=NO_CACHE,
    persist_result=False,
    retries=len(_RETRY_DELAYS),
    retry_delay_seconds=_RETRY_DELAYS,
    retry_condition_fn=_is_transient,
)
@ends_in_order
def poll(ref: RunRef, chunk_id: str) -> dict[str, Any]:
    """Wait for a chunk's batch to end."""
    return pipeline.poll_step(ref, chunk_id)


@task(name="collect", cache_key_fn=_key("collect"), **_CACHED)
@ends_in_order
def collect(ref: RunRef, chunk_id: str) -> dict[str, Any]:
    """Download a chunk's results and land its rows."""
    return pipeline.collect_step(ref, chunk_id)


@task(name="read", task_run_name=_name, cache_policy=NO_CACHE, persist_result=False)
def read(ref: RunRef, order: PartOrder) -> dict[str, Any] | None:
    """Make a chunk's part of the results that `collect` has downloaded, on a worker."""
    return pipeline.part_step(ref, order)


def _checked(
    step: Any,
    holds: Callable[[RunRef, str, dict[str, Any]], bool],
    workers: Workers | None = None,
) -> pipeline.Step:
    """Return a step that ignores its cached value if the ledger or the disk contradicts it.

    It is done by the workers, if there are any.
    """

    def done(step: Any, ref: RunRef, chunk_id: str) -> dict[str, Any]:
        here = partial(_in_order(step), ref, chunk_id)
        if workers is None:
            return here()
        return workers.do(step, {"ref": ref, "chunk_id": chunk_id}, here)

    def checked(ref: RunRef, chunk_id: str) -> dict[str, Any]:
        value = done(step, ref, chunk_id)
        if holds(ref, chunk_id, value):
            return value
        return done(step.with_options(refresh_cache=True), ref, chunk_id)

    return checked


def _file_stands(ref: RunRef, chunk_id: str, value: dict[str, Any]) -> bool:
    """Whether the chunk's files are there, and the requests are not cut short."""
    context = context_of(ref)
    chunk = context.ledger.chunk(chunk_id)
    if value["rows"] != chunk.rows or not context.folder.manifest(chunk_id).exists():
        return False
    if chunk.kind != ChunkKind.BATCH:
        return True
    framing, file = (
        provider_type(chunk.provider, chunk.endpoint).framing,
        context.request_file(chunk),
    )
    return file.exists() and file.stat().st_size == framing.file_size(chunk.bytes)


def _batch_is_known(ref: RunRef, chunk_id: str, value: dict[str, Any]) -> bool:
    return context_of(ref).ledger.chunk(chunk_id).batch_id == value["batch_id"]


def _has_landed(ref: RunRef, chunk_id: str, _value: dict[str, Any]) -> bool:
    return context_of(ref).ledger.chunk(chunk_id).state == ChunkState.LANDED


def _in_order(step: Any) -> Callable[..., dict[str, Any]]:
    """Return a step whose task may have ended as Cancelled; see `value_of`."""

    def done(*args: Any) -> dict[str, Any]:
        return value_of(step(*args))

    return done


STEPS = pipeline.Steps(
    plan=_in_order(plan),
    next_round=_in_order(next_round),
    chunk=_checked(chunk, _file_stands),
    submit=_checked(submit, _batch_is_known),
    poll=_in_order(poll),
    collect=_checked(collect, _has_landed),
)
"""The steps, all of them done in this process."""


def steps_with(workers: Workers) -> pipeline.Steps:
    """Return the steps, of which workers do those that take the most time of processors."""
    if not workers.are_elsewhere:
        return STEPS

    def makes_parts(ref: RunRef, order: PartOrder) -> dict[str, Any] | None:
        return workers.do(read, {"ref": ref, "order": order}, lambda: None)

    return replace(STEPS, chunk=_checked(chunk, _file_stands, workers), makes_parts=makes_parts)
