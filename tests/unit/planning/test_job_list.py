"""Jobs that are kept as texts alone are, to the last byte, what objects of them would be."""

from __future__ import annotations

import json
import math
from copy import deepcopy
from enum import Enum
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any
from uuid import UUID

import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from batchata_tasks import Batch, Job
from batchata_tasks.common.errors import SpecError
from batchata_tasks.dataset.folder import DatasetFolder
from batchata_tasks.planning.job_store import write_jobs
from tests.support.by_day import examples
from tests.support.jobs import CLAUDE, GPT

if TYPE_CHECKING:
    from pathlib import Path

    from batchata_tasks.planning.job_list import JobList


class Label(BaseModel):
    """A response model."""

    label: str


SCHEMA = {
    "type": "object",
    "properties": {"label": {"type": "string"}},
    "required": ["label"],
    "additionalProperties": False,
}
OR_NULL = {**SCHEMA, "properties": {"label": {"type": ["string", "null"], "default": None}}}
TEXTS = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=9),
    st.sampled_from(['"', "\\u0041 \x00\x7f", "ünï ☃ \U0001f600"]),
)
ODD = st.sampled_from(["", " ", "a\ud800", 7, [{"type": "text", "text": "part"}], [{"type": "x"}]])
TURN = st.builds(
    lambda role, content, more: {"role": role, "content": content, **more},
    st.sampled_from(["user"] * 5 + ["assistant", "system", "root"]),
    st.one_of(TEXTS, TEXTS, TEXTS, ODD),
    st.sampled_from([{}] * 9 + [{"name": "x"}]),
)
MESSAGES = st.builds(
    lambda system, turns, last: [
        *[{"content": text, "role": "system"} for text in system],
        *turns,
        {"role": "user", "content": last},
    ],
    st.lists(TEXTS, max_size=1),
    st.lists(TURN, max_size=1),
    TEXTS,
)
TURNS = st.one_of(
    st.fixed_dictionaries({"prompt": TEXTS}),
    st.fixed_dictionaries({"messages": MESSAGES}),
    st.fixed_dictionaries({"messages": MESSAGES}),
    st.fixed_dictionaries(
        {}, optional={"prompt": ODD, "messages": st.one_of(st.lists(TURN), MESSAGES.map(tuple))}
    ),
)
FIELDS = st.fixed_dictionaries(
    {"model": st.sampled_from([CLAUDE, CLAUDE, GPT])},
    optional={
        "temperature": st.sampled_from([1, 1.0, True, 7, math.nan]),
        "max_tokens": st.sampled_from([5, 2000, 5.0]),
        "response_model": st.sampled_from([Label, SCHEMA, {**SCHEMA, "title": "Other"}, OR_NULL]),
        "params": st.sampled_from(
            [
                {},
                {"metadata": {"user_id": "a"}},
                {"metadata": None},
                {"metadata": math.nan},
                {"stop_sequences": ["a"]},
                {"stop_sequences": ("a",)},
                {"metadata": Label},
                {1: None},
            ]
        ),
    },
)
ID = st.sampled_from([{}] * 6 + [{"id": name} for name in ("a", "b", "c", "", "x" * 501, "\ud800")])


def said(batch: Batch, given: dict[str, Any]) -> str:
    """Add a job; return what is wrong with it."""
    number = len(batch.jobs) + 1
    try:
        batch.add_job(**given)
    except SpecError as error:
        return str(error).replace(f"'#{number}'", "'#'")
    return ""


def stored(jobs: list[Job] | JobList, batch: Batch) -> tuple[str, list[Any], list[Any]]:
    """Return the name of the file that jobs are written to, its rows, and where they go."""
    with TemporaryDirectory() as folder:
        spec = write_jobs(DatasetFolder(folder), jobs, batch._checked.schemas, str, name="x")
        return spec.jobs.removeprefix(folder), pq.read_table(spec.jobs).to_pylist(), spec.to


@settings(max_examples=examples(150))
@given(FIELDS, st.lists(st.tuples(TURNS, ID, st.none() | FIELDS), max_size=6))
def test_a_job_after_others_is_what_it_is_alone(
    fields: dict[str, Any], jobs: list[tuple[dict[str, Any], dict[str, Any], dict[str, Any] | None]]
) -> None:
    """What is refused is refused in the same words, and what is not gets the same id and bytes."""
    batch, own = Batch(), list[Job]()
    for turns, name, others in jobs:
        alone, given = Batch(), {**(fields if others is None else others), **turns, **name}
        wrong = said(alone, given)
        if not wrong and name.get("id") in {job.id for job in own}:
            wrong = f"job {name['id']!r}: there is a job of this id already; ids must be unique."
        assert said(batch, given) == wrong
        if not wrong:
            own.append(alone.jobs[0])
    if not own:
        return
    rows = stored(batch.jobs, batch)
    for job, one in zip(batch.jobs, own, strict=True):
        assert job.id == one.id or job.id.startswith(f"{one.id}-")
        values, expected = job.to_dict() | {"id": ""}, one.to_dict() | {"id": ""}
        assert json.dumps(values, sort_keys=True) == json.dumps(expected, sort_keys=True)
    assert stored(list(batch.jobs), batch) == rows


def test_most_jobs_are_kept_as_texts(tmp_path: Path) -> None:
    """Otherwise nothing would be gained: each job after the first of its form."""
    batch = Batch(tmp_path / "out").set_default_params(model=CLAUDE, response_model=Label)
    for number in range(4):
        batch.add_job(prompt=f"p{number}")
        batch.add_job(messages=[{"role": "user", "content": f"m{number}"}], id=f"m{number}")
    assert [isinstance(one, tuple) for one in batch.jobs.kept()] == [False] * 2 + [True] * 6
    assert [job.prompt for job in batch.jobs[::2]] == ["p0", "p1", "p2", "p3"]
    assert not any(isinstance(one, tuple) for one in batch.jobs.kept()[2::2])


@pytest.mark.parametrize("model", [Label, SCHEMA, OR_NULL])
def test_jobs_of_each_response_model_are_kept_as_texts(tmp_path: Path, model: Any) -> None:
    """Also if its schema holds a null, or it is another object each time."""
    batch = Batch(tmp_path / "out").set_default_params(model=CLAUDE)
    for number in range(3):
        batch.add_job(prompt=f"p{number}", response_model=deepcopy(model))
    assert [isinstance(one, tuple) for one in batch.jobs.kept()] == [False, True, True]


def test_a_change_to_one_job_is_its_own(tmp_path: Path) -> None:
    """Parameters of one job can be changed in place, and no other job has them then."""
    batch = Batch(tmp_path / "out").set_default_params(
        model=CLAUDE, params={"metadata": {"user_id": "all"}}
    )
    for prompt in "abc":
        batch.add_job(prompt=prompt)
    batch.jobs[0].params["metadata"]["user_id"] = "first"
    batch.jobs[2].params["metadata"]["user_id"] = "last"
    users = [job.params["metadata"]["user_id"] for job in batch.jobs]
    assert users == ["first", "all", "last"]
    sent = [row["job"] for row in stored(batch.jobs, batch)[1]]
    assert [user in text for user, text in zip(users, sent, strict=True)] == [True] * 3


def test_it_is_a_list(tmp_path: Path) -> None:
    """Jobs can be appended, replaced, removed, sorted, copied, joined, compared and counted."""
    batch = Batch(tmp_path / "out").set_default_params(model=CLAUDE)
    for name in "abc":
        batch.add_job(id=name, prompt=name)
    batch.jobs.append(Job("d", CLAUDE, prompt="d"))
    batch.jobs.insert(0, Job("e", CLAUDE, prompt="e"))
    del batch.jobs[1]
    batch.jobs[1] = Job("f", CLAUDE, prompt="f")
    assert list(batch.jobs.ids()) == ["e", "f", "c", "d"]
    assert batch.jobs == [Job(name, CLAUDE, prompt=name) for name in "efcd"]
    assert batch.jobs != [Job("e", CLAUDE, prompt="e")]
    assert batch.jobs != "efcd"
    more = [Job("g", CLAUDE, prompt="g")]
    both = batch.jobs.copy() + more
    assert list(both.ids()) == list("efcdg")
    assert list((more + batch.jobs).ids()) == list("gefcd")
    both.sort(key=lambda job: job.id, reverse=True)
    assert list(both.ids()) == list("gfedc")
    assert list(batch.jobs.ids()) == list("efcd")
    assert repr(batch.jobs) == "<4 jobs>"
    with pytest.raises(IndexError):
        _ = batch.jobs[4]


def test_jobs_may_be_replaced_by_a_list(tmp_path: Path) -> None:
    """More can be added to it; what is no job is refused at once."""
    batch = Batch(str(tmp_path / "out")).set_default_params(model=CLAUDE)
    for name in ("a", "b", "c"):
        batch.add_job(id=name, prompt=f"Say {name}")
    batch.jobs = [job for job in batch.jobs if job.id != "b"]
    batch.add_job(id="d", prompt="Say d")
    assert [job.prompt for job in batch.jobs] == ["Say a", "Say c", "Say d"]
    odd: Any = ("e", 0, ("Say e",))
    for change in (
        lambda: batch.jobs.append(odd),
        lambda: setattr(batch, "jobs", [odd]),
        lambda: batch.jobs.__setitem__(0, odd),
        lambda: batch.jobs.__setitem__(slice(1), [odd]),
    ):
        with pytest.raises(SpecError, match="no Job"):
            change()
    assert list(batch.jobs.ids()) == ["a", "c", "d"]


@pytest.mark.parametrize("job_id", ["", "x" * 501, "\ud800", 7])
def test_an_invalid_id_is_refused_after_others(tmp_path: Path, job_id: Any) -> None:
    """That the other fields of a job were checked for another one says nothing of its id."""
    batch = Batch(tmp_path / "out").set_default_params(model=CLAUDE).add_job(prompt="p")
    with pytest.raises(SpecError, match="id: write a text of 1 to 500 characters"):
        batch.add_job(id=job_id, prompt="p")
    assert len(batch.jobs) == 1


class Warmth(Enum):
    """Values that JSON spells like others."""

    SEVEN = 7
    NOBODY = "a"


@pytest.mark.parametrize(
    ("first", "then", "wrong"),
    [
        ({"params": {"metadata": None}}, {"params": {"metadata": math.nan}}, "nan"),
        ({"max_tokens": 7}, {"max_tokens": Warmth.SEVEN}, "max_tokens"),
        ({"params": {"metadata": "a"}}, {"params": {"metadata": Warmth.NOBODY}}, "JSON"),
        ({"params": {"metadata": "0" * 8}}, {"params": {"metadata": UUID(int=1)}}, "JSON"),
        ({"response_model": Label}, {"response_model": id(Label)}, "response_model"),
    ],
)
def test_what_json_spells_like_another_value_is_refused_after_it(
    tmp_path: Path, first: dict[str, Any], then: dict[str, Any], wrong: str
) -> None:
    """Whether a job is valid does not depend on which others were added."""
    batch = Batch(tmp_path / "out").set_default_params(model=CLAUDE)
    batch.add_job(prompt="p", **first)
    with pytest.raises(SpecError, match=wrong):
        batch.add_job(prompt="p", **then)
