"""The results of jobs are the newest rows that answer them as they are now."""

from __future__ import annotations

from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import given, settings
from hypothesis import strategies as st

from batchata_tasks.api import results
from batchata_tasks.api.results import landed_results
from batchata_tasks.common.arrow_types import as_stored
from batchata_tasks.dataset.columns import dataset_schema
from batchata_tasks.dataset.folder import DatasetFolder
from batchata_tasks.planning.fingerprint import fingerprint
from batchata_tasks.planning.job_store import write_jobs
from batchata_tasks.planning.stored_jobs import StoredJobs, inputs_of_jobs
from batchata_tasks.spec.job import Job
from batchata_tasks.spec.job_schemas import ResponseModels
from batchata_tasks.spec.jobs import JOB_ID
from tests.support.by_day import examples
from tests.support.jobs import CLAUDE, GPT

if TYPE_CHECKING:
    from batchata_tasks.spec.jobs import JobsSpec

JOBS = [Job(name, GPT if name == "b" else CLAUDE, prompt=f"Say {name}") for name in "abcd"]
ROW = st.tuples(
    st.sampled_from("abcdx"),  # the last one is of no job
    st.sampled_from(["v2", "v2", "v1", "e2", "older text"]),
    st.integers(0, 3),  # when it landed
)


def prints_of(spec: JobsSpec) -> dict[str, tuple[str, str]]:
    """Return the input of each job's fingerprint, and its other parts."""
    stored = pq.read_table(spec.jobs)
    jobs = StoredJobs({}).read(stored[JOB_ID].to_pylist(), stored["job"].to_pylist())
    inputs = [one.hex() for one in inputs_of_jobs(jobs)]
    return {job.id: (a, job.terms.others) for job, a in zip(jobs, inputs, strict=True)}


@settings(max_examples=examples(60), deadline=None)
@given(st.lists(st.lists(ROW, max_size=6), max_size=4), st.booleans(), st.sampled_from([1, 10**6]))
def test_the_newest_row_of_todays_text_counts(
    parts: list[list[tuple[str, str, int]]], rehearsal: bool, looked_up: int
) -> None:
    """Whatever else the dataset holds; of rows that landed at once, the first one counts."""
    with TemporaryDirectory() as name, patch.object(results, "_LOOKED_UP", looked_up):
        folder = DatasetFolder(name)
        spec = write_jobs(folder, JOBS, ResponseModels(), str, name="x")
        prints = prints_of(spec)
        columns = as_stored(dataset_schema(pa.schema([pa.field(JOB_ID, pa.string())]), None))
        expected, times = dict[str, str](), dict[str, int]()
        for number, rows in enumerate(parts):
            values = list[dict[str, Any]]()
            for place, (job_id, kind, time) in enumerate(rows):
                first, others = prints.get(job_id, ("0" * 24, "a.b.c"))
                first = "1" * 24 if kind == "older text" else first
                text = fingerprint(first, others, "v2" if kind == "older text" else kind)
                answer = f"{number}.{place}"
                values.append(
                    {
                        JOB_ID: job_id,
                        "_fingerprint": text,
                        "_enriched_at": time,
                        "_status": "succeeded",
                        "_response": answer,
                    }
                )
                is_of = kind == "e2" if rehearsal else kind in ("v1", "v2")
                if job_id in prints and is_of and time > times.get(job_id, -1):
                    expected[job_id], times[job_id] = answer, time
            table = pa.Table.from_pylist(values, columns)
            pq.write_table(table, folder.data / f"part-{number}.parquet")
        landed = landed_results(spec, rehearsal=rehearsal)
    assert {job_id: one.response for job_id, one in landed.items()} == expected
    assert list(landed) == [job_id for job_id in prints if job_id in expected]
