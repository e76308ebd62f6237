"""Frames: 100,000 rows in and out of pandas and Polars, beside the same rows as a Parquet file.

Each kind runs in a process of its own, against one emulator: a first call that sends all rows, and
a second one that sends none. Times and memory are those of that process.

    python benchmarks/frames.py               # writes frames.md beside this file
    python benchmarks/frames.py ROWS          # prints the table for ROWS rows
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel

from batchata_tasks.emulator import EmulatorProcess

ROWS = 100_000
KINDS = ("spec", "pandas", "Polars")
PAGE = Path(__file__).with_name("frames.md")
HEAD = """# Frames

{rows:,} rows with a text of some 55 characters and a response model of two fields, at Anthropic's
emulator; 2 cores, load average {load:.1f} (others were at work). `spec` is the same table as a
Parquet file. Seconds are wall time; memory is the most that the process held, and what it held
before the first call (libraries and the table).

| table | first call, s | second call, s | peak MB | before MB |
| --- | ---: | ---: | ---: | ---: |
"""
LINE = "| {kind} | {first:.1f} | {second:.1f} | {peak} | {before} |"


class Label(BaseModel):
    """The response model."""

    label: str
    score: int


def main() -> None:
    """Measure each kind, and write the page."""
    if len(sys.argv) > 2:
        measure(sys.argv[1], int(sys.argv[2]))
        return
    rows = int(sys.argv[1]) if len(sys.argv) > 1 else ROWS
    lines = list[str]()
    with EmulatorProcess() as emulator:
        for kind in KINDS:
            command = [sys.executable, __file__, kind, str(rows)]
            environment = {**os.environ, **emulator.env()}
            done = subprocess.run(command, check=True, capture_output=True, env=environment)
            seen: dict[str, Any] = json.loads(done.stdout)
            lines.append(
                "| {kind} | {first:.1f} | {second:.1f} | {peak} | {before} |".format(**seen)
            )
            emulator.control.reset()
    text = HEAD.format(rows=rows, load=os.getloadavg()[0]) + "\n".join(lines) + "\n"
    if rows == ROWS:
        PAGE.write_text(text, encoding="utf-8")
    print(text)


def measure(kind: str, rows: int) -> None:
    """Run two calls with one kind of table; print what they took as JSON."""
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        os.environ["BATCHATA_LEDGER_URL"] = f"sqlite:///{folder}/ledger.db"
        os.environ["BATCHATA_POLL_INTERVAL"] = "0.2"
        frame = table(kind, rows)
        before, seconds = megabytes(), list[float]()
        for _ in range(2):
            seconds.append(call(frame, rows))
        first, second = seconds
        found = {"first": first, "second": second, "peak": megabytes(), "before": before}
        print(json.dumps({"kind": kind, **found}))


def table(kind: str, rows: int) -> Any:
    """Return the rows as a kind of table."""
    from batchata_tasks import enrich  # noqa: F401, PLC0415 - its imports are not measured

    text = "text of the row {}, of some length that a summary has"
    made = pa.table({"id": list(range(rows)), "text": [text.format(i) for i in range(rows)]})
    if kind == "spec":
        pq.write_table(made, "table.parquet")
        return "table.parquet"
    if kind == "pandas":
        return made.to_pandas()
    import polars  # noqa: ICN001, PLC0415 - the others do without

    return polars.from_arrow(made)


def call(frame: Any, rows: int) -> float:
    """Enrich the table; return the seconds that it took, having checked its rows."""
    from batchata_tasks import enrich  # noqa: PLC0415 - see above

    began = time.perf_counter()
    result = enrich(
        frame,
        key="id",
        prompt="Label {{ text }}",
        response_model=Label,
        model="claude-haiku-5-5",
        output="out",
        max_tokens=100,
        raw_files=False,
    )
    took = time.perf_counter() - began
    if not isinstance(result, Path):
        assert list(result["id"]) == list(range(rows))
        assert set(result["_status"]) == {"succeeded"}
    return took


def megabytes() -> int:
    """Return the most memory that this process has held."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


if __name__ == "__main__":
    main()
