"""What jobs share is read once; each has the fingerprint and the body that it has by itself."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import orjson
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batchata_tasks.dataset.folder import DatasetFolder
from batchata_tasks.planning.fingerprint import other_parts, part
from batchata_tasks.planning.job_requests import JobBuilder
from batchata_tasks.planning.job_store import write_jobs
from batchata_tasks.planning.row_block import RowBlock
from batchata_tasks.pricing.price_file import CustomPrices
from batchata_tasks.providers import provider_type
from batchata_tasks.spec.job import Job
from batchata_tasks.spec.job_schemas import ResponseModels
from tests.support.by_day import examples
from tests.support.jobs import CLAUDE, GPT

if TYPE_CHECKING:
    from batchata_tasks.planning.builder import BuiltRequest, Fingerprints
    from batchata_tasks.providers import Adapter
    from batchata_tasks.types.destination import Destination

OBJECT = {"type": "object", "required": ["label"]}
MODELS = [
    {**OBJECT, "properties": {"label": {"type": "string"}}},
    {**OBJECT, "properties": {"label": {"const": "batchata-turn-0-of-this-body"}}},
]
TEXTS = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"]), min_size=1).filter(str.strip),
    st.sampled_from(['"', "\\u0041 \x00\x7f", "batchata-turn-1-of-this-body", "ünï ☃ \U0001f600"]),
    st.sampled_from(['a","role":"user"},{"content":"', '"}],"model":', "\\", '\\"']),
)
CONTENTS = st.one_of(
    TEXTS, st.lists(TEXTS.map(lambda text: {"type": "text", "text": text}), min_size=1, max_size=2)
)
TURNS = st.builds(
    lambda roles, contents: [
        {"role": role, "content": content}
        for role, content in zip([*roles, "user"], contents, strict=False)
    ],
    st.lists(st.sampled_from(["system", "user", "assistant"]), max_size=2),
    st.lists(CONTENTS, min_size=3, max_size=3),
)
FIELDS: dict[str, Any] = {
    "model": st.sampled_from([CLAUDE, GPT]),
    "temperature": st.sampled_from([None, 0, 0.0, 1, 1.0]),
    "max_tokens": st.sampled_from([1, 200]),
    "response_model": st.sampled_from([None, *MODELS]),
    "params": st.sampled_from([{}, {"a": 1}, {"a": 1.0}, {"a": True}, {"b": {"c": [None, "x"]}}]),
}
JOBS = st.one_of(
    st.builds(Job, st.just(""), prompt=TEXTS, **FIELDS),
    st.builds(Job, st.just(""), messages=TURNS, **FIELDS),
)

ALIKE = st.builds(Job, st.just(""), st.just(CLAUDE), messages=TURNS) | st.builds(
    Job, st.just(""), st.just(CLAUDE), prompt=TEXTS
)
"""Jobs that differ in their turns alone."""


@pytest.fixture(autouse=True)
def _with_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let adapters be made; nothing is sent."""
    monkeypatch.setenv("ANTHROPIC_API_KEY", "none")
    monkeypatch.setenv("OPENAI_API_KEY", "none")


@cache
def adapter_to(to: Destination) -> Adapter:
    """Return the adapter to a destination."""
    return provider_type(to.provider, to.endpoint)()


def built(
    jobs: list[Job], folder: str, columns: list[str] | None = None
) -> tuple[list[str], Fingerprints, list[BuiltRequest]]:
    """Return ids, fingerprints and requests of stored jobs, as a plan makes them.

    `columns` are those of the stored jobs that are read; by default, all.
    """
    schemas = ResponseModels()
    spec = write_jobs(DatasetFolder(folder), jobs, schemas, lambda _file: "", name="jobs")
    providers = {to: adapter_to(to) for to in spec.to}
    builder = JobBuilder(
        spec, providers, spec.response_schemas(), CustomPrices(), common=spec.uniform
    )
    (batch,) = pq.read_table(spec.jobs, columns=columns).to_batches()
    rows = RowBlock(batch, range(1, len(jobs) + 1), ["job_id"])
    prints = builder.fingerprints(rows)
    return rows.values("job_id"), prints, list(builder.requests(rows, range(len(rows))))


@settings(max_examples=examples(25))
@given(st.lists(JOBS, min_size=1, max_size=8) | st.lists(ALIKE, min_size=2, max_size=8))
def test_a_job_among_others_is_what_it_is_alone(jobs: list[Job]) -> None:
    """No byte of a fingerprint or a body depends on the jobs beside it, or on how it is made."""
    jobs = [replace(job, id=str(place)) for place, job in enumerate(jobs)]
    with TemporaryDirectory() as folder:
        ids, prints, requests = built(jobs, folder)
    for job_id, first, others, request in zip(ids, *prints[:2], requests, strict=True):
        job = jobs[int(job_id)]
        _, schema = ResponseModels().of(job)
        wanted, to = job.request(schema), job.destination()
        adapter = adapter_to(to)
        body = adapter.body(wanted)
        facts = {"provider": to.provider, "endpoint": to.endpoint, "model": to.model}
        facts |= {"max_tokens": wanted.max_tokens, "params": dict(wanted.params)}
        model = part("schema", None if schema is None else schema.canonical)
        assert others == other_parts(part("prompt", "job"), part("model", facts), model)
        assert first.hex() == part("input", [[turn.role, turn.content] for turn in wanted.messages])
        assert request.body == orjson.dumps(body)
        assert request.shape.cap == job.max_tokens
        assert request.shape.turns == len(body[adapter.turns_param])
        assert request.shape.structured == (schema is not None)


@settings(max_examples=examples(25))
@given(st.lists(JOBS, min_size=1, max_size=8))
def test_jobs_that_an_older_version_stored_are_what_they_were(jobs: list[Job]) -> None:
    """A file of jobs without their fingerprints gives the same fingerprints and bodies."""
    jobs = [replace(job, id=str(place)) for place, job in enumerate(jobs)]
    with TemporaryDirectory() as folder:
        assert built(jobs, folder, ["job_id", "job"]) == built(jobs, folder)
