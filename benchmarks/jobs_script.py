"""A script as somebody writes it who has a job for each row of a table; `jobs.py` measures it.

    python benchmarks/jobs_script.py TABLE MODEL [--raw]

It writes how long each step took, and its peak memory in MB by then, to `steps.json`.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from pathlib import Path

import pyarrow.parquet as pq
import workload

from batchata_tasks import Batch


def main(source: str, model: str, *, raw: bool) -> None:
    """Add a job for each row, run them, read every result."""
    began = time.perf_counter()
    batch = Batch("out", raw_files=raw).set_default_params(
        model=model, max_tokens=workload.MAX_TOKENS, response_model=workload.SCHEMA
    )
    for part in pq.ParquetFile(source).iter_batches(
        8192, columns=["ticket_id", "customer", "text"]
    ):
        for row in part.to_pylist():
            prompt = workload.PROMPT.format(customer=row["customer"], text=row["text"])
            messages = [
                {"role": "system", "content": workload.SYSTEM},
                {"role": "user", "content": prompt},
            ]
            batch.add_job(id=row["ticket_id"], messages=messages)
    added = time.perf_counter()
    steps = [("add", added - began, _peak())]
    run = batch.run()
    ran = time.perf_counter()
    steps.append(("run", ran - added, _peak()))
    results = run.results()
    succeeded = sum(result.is_success() for result in results.values())
    if succeeded != len(batch.jobs):
        raise SystemExit(1)
    steps.append(("results", time.perf_counter() - ran, _peak()))
    Path("steps.json").write_text(json.dumps(steps), encoding="utf-8")


def _peak() -> int:
    """Return the peak memory of this process so far, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


if __name__ == "__main__":
    main(*sys.argv[1:3], raw="--raw" in sys.argv)
