"""Prefect's layer: each step of the pipeline as a task, one per chunk.

Cache keys hold ledger, run, round and chunk, so that a flow run that is started again finds its
finished steps. The cache only saves time: what a cached value says is compared with the ledger
before it is used, and done again where they differ. Plan and poll are never cached.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.runtime import task_run

from batchata_tasks.common.errors import TransientError
from batchata_tasks.common.text import pluralize
from batchata_tasks.execution.run_context import context_of
from batchata_tasks.ledger import ChunkKind, ChunkState
from batchata_tasks.pipeline import steps as pipeline

if TYPE_CHECKING:
    from collections.abc import Callable

_CACHE_VERSION = "1"
_RETRY_DELAYS = [10.0, 30.0]  # on top of what each step rides out by itself


def _name() -> str:
    """Name a task run for people: the step, the chunk's place, its rows."""
    parameters: dict[str, Any] = task_run.parameters or {}
    step = str(task_run.task_name)
    context = context_of(parameters["run_id"])
    if "chunk_id" not in parameters:
        return f"{step} {context.spec.name}"
    chunk = context.ledger.chunk(parameters["chunk_id"])
    what = (
        f"batch {context.number_of(chunk)}" if chunk.kind == ChunkKind.BATCH else "what is not sent"
    )
    return f"{step} {what} ({pluralize(chunk.rows, 'row')})"


def _key(step: str) -> Callable[[Any, dict[str, Any]], str]:
    def key(_context: Any, parameters: dict[str, Any]) -> str:
        context = context_of(parameters["run_id"])
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
def plan(run_id: str) -> dict[str, Any]:
    """Decide which rows are to be sent, and why."""
    return pipeline.plan_step(run_id)


@task(name="next round", task_run_name=_name, cache_policy=NO_CACHE, persist_result=False)
def next_round(run_id: str) -> dict[str, Any]:
    """Plan another round of rows that are worth another attempt."""
    return pipeline.round_step(run_id)


@task(name="chunk", cache_key_fn=_key("chunk"), **_CACHED)
def chunk(run_id: str, chunk_id: str) -> dict[str, Any]:
    """Write a chunk's request file."""
    return pipeline.chunk_step(run_id, chunk_id)


@task(name="submit", cache_key_fn=_key("submit"), **_CACHED)
def submit(run_id: str, chunk_id: str) -> dict[str, Any]:
    """Send a chunk, once."""
    return pipeline.submit_step(run_id, chunk_id)


@task(
    name="poll",
    task_run_name=_name,
    cache_policy=NO_CACHE,
    persist_result=False,
    retries=len(_RETRY_DELAYS),
    retry_delay_seconds=_RETRY_DELAYS,
    retry_condition_fn=_is_transient,
)
def poll(run_id: str, chunk_id: str) -> dict[str, Any]:
    """Wait for a chunk's batch to end."""
    return pipeline.poll_step(run_id, chunk_id)


@task(name="collect", cache_key_fn=_key("collect"), **_CACHED)
def collect(run_id: str, chunk_id: str) -> dict[str, Any]:
    """Bring a chunk's results home."""
    return pipeline.collect_step(run_id, chunk_id)


def _checked(step: Any, holds: Callable[[str, str, dict[str, Any]], bool]) -> pipeline.Step:
    """Return a step that does not believe its cache where the ledger or the disk says otherwise."""

    def checked(run_id: str, chunk_id: str) -> dict[str, Any]:
        value: dict[str, Any] = step(run_id, chunk_id)
        if holds(run_id, chunk_id, value):
            return value
        return step.with_options(refresh_cache=True)(run_id, chunk_id)

    return checked


def _file_stands(run_id: str, chunk_id: str, value: dict[str, Any]) -> bool:
    context = context_of(run_id)
    found = context.ledger.chunk(chunk_id)
    files = [context.folder.manifest(chunk_id)]
    if found.kind == ChunkKind.BATCH:
        files.append(context.request_file(found))
    return value["rows"] == found.rows and all(path.exists() for path in files)


def _batch_is_known(run_id: str, chunk_id: str, value: dict[str, Any]) -> bool:
    return context_of(run_id).ledger.chunk(chunk_id).batch_id == value["batch_id"]


def _has_landed(run_id: str, chunk_id: str, _value: dict[str, Any]) -> bool:
    return context_of(run_id).ledger.chunk(chunk_id).state == ChunkState.LANDED


STEPS = pipeline.Steps(
    plan=plan,
    next_round=next_round,
    chunk=_checked(chunk, _file_stands),
    submit=_checked(submit, _batch_is_known),
    poll=poll,
    collect=_checked(collect, _has_landed),
)
