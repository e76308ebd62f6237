"""The fluent API as type checkers see it.

Nothing here runs: `make lint` checks it, in both directions. Each `pyright: ignore` marks a mistake
that has to be seen; one that is not seen any more is an error by itself.
"""

# pyright: strict, reportUnnecessaryTypeIgnoreComment=true
from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Any, assert_type

import pyarrow as pa
from pydantic import BaseModel

from batchata_tasks import (
    AnthropicProvider,
    Batch,
    BatchParams,
    BatchRun,
    BatchState,
    Citation,
    CostTracker,
    Job,
    JobResult,
    OpenAIProvider,
    Provider,
    RichBatchProgressDisplay,
    StateManager,
    enrich,
    map_citations,
)
from batchata_tasks.planning.job_list import JobList
from batchata_tasks.reports.preview import Preview


class Label(BaseModel):
    """A response model."""

    label: str


def chained() -> BatchRun:
    """The whole chain is a Batch up to `run`, and a BatchRun from there."""
    batch = (
        Batch("out", max_parallel_batches=3, verbosity_level="warning")
        .set_state("state.json", reuse_state=False)
        .set_default_params(model="claude-haiku-5-5", max_tokens=100, response_model=Label)
        .add_cost_limit(1.5)
        .add_time_limit(minutes=5)
        .set_verbosity("debug")
        .raw_files(enabled=False)
        .result_files()
        .add_job(prompt="x")
    )
    assert_type(batch, Batch)
    assert_type(batch.jobs, JobList)
    assert_type(batch.config, BatchParams)
    turns = [{"role": "user", "content": "x"}]  # of a narrower type than the parameter
    assert_type(batch.add_job(messages=turns, model="gpt-6-luna", endpoint="responses"), Batch)
    return batch.run(wait=False, on_progress=RichBatchProgressDisplay().update_progress)


def frames(table: pa.Table) -> None:
    """A frame comes back as what it was, and of a path there is a path."""
    labelled = enrich(
        table,
        key="id",
        prompt="{{ text }}",
        response_model=Label,
        model="m",
        output="out",
        limit=20,
    )
    assert_type(labelled, pa.Table)
    assert_type(enrich("t.csv", key=["a", "b"], model="m", output="out"), Path)
    assert_type(enrich(table, key="id", model="m", output="out", dry_run=True), Preview)
    enrich(table, key="id", model="m", output="out", limt=20)  # pyright: ignore[reportCallIssue]


def mistaken() -> None:
    """Mistakes that are seen while they are written."""
    Batch("out", max_parallel_batchs=3)  # pyright: ignore[reportCallIssue]
    Batch("out", verbosity_level="loud")  # pyright: ignore[reportArgumentType]
    Batch().set_default_params(modle="x")  # pyright: ignore[reportCallIssue]
    Batch().set_default_params(model=3)  # pyright: ignore[reportArgumentType]
    batch = Batch()
    batch.add_cost_limit("1.5")  # pyright: ignore[reportArgumentType]
    batch.add_job(prompt=1)  # pyright: ignore[reportArgumentType]
    batch.add_job("x")  # pyright: ignore[reportCallIssue]
    answer = Label(label="x")
    batch.add_job(prompt="x", response_model=answer)  # pyright: ignore[reportArgumentType]
    batch.add_job(prompt="x", endpoint="completions")  # pyright: ignore[reportArgumentType]
    batch.run(on_progress=print_nothing)  # pyright: ignore[reportArgumentType]


def print_nothing(stats: dict[str, Any]) -> None:
    """Take too little to be a progress callback."""


def ended(run: BatchRun) -> None:
    """What a run gives."""
    run.wait(timeout=3)
    assert_type(run.status(), dict[str, Any])
    assert_type(run.to_arrow(), pa.Table)
    results = run.results()
    assert_type(results, dict[str, JobResult])
    for name, result in results.items():
        assert_type(name, str)
        assert_type(result.is_success(), bool)
        assert_type(result.response, str)
        assert_type(result.error, str | None)
        assert_type(result.cost_usd, float)
        assert_type(JobResult.from_dict(result.to_dict()), JobResult)


def kept(state: StateManager, tracker: CostTracker) -> None:
    """State and money."""
    assert_type(state.load(), BatchState | None)
    assert_type(tracker.can_afford("0.10"), bool)
    assert_type(tracker.remaining(), float | None)
    assert_type(tracker.remaining_usd, Decimal | None)


def alone(jobs: list[Job]) -> None:
    """Providers by themselves."""
    for provider in (AnthropicProvider(), OpenAIProvider()):
        assert_type(provider.create_batch(jobs), str)
        assert_type(provider.get_batch_results("batch_1"), list[JobResult])
        assert_type(provider.cancel_batch("batch_1"), bool)
        assert_type(provider.estimate_cost(jobs), float)
    Provider()  # pyright: ignore[reportAbstractUsage]


def evidence(fields: Label, answer: JobResult) -> None:
    """Citations of fields are typed dicts, and take models and dicts alike."""
    blocks = [(answer.response, answer.citations)]
    assert_type(map_citations(fields, blocks, ["page"]), dict[str, list[Citation]])
    told = map_citations({"label": "x"}, blocks, "the text of a file")
    assert_type(told["label"][0]["verified"], bool)
    map_citations("label", blocks)  # pyright: ignore[reportArgumentType]
