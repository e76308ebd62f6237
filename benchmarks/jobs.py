"""Jobs: the same work through `Batch` and through `batchata run --direct`, as it grows.

    python benchmarks/jobs.py [--jobs 1000 10000 100000] [--raw]

For each provider and size, in processes of their own against the emulator: a script that adds a job
for each row of the table, runs them and reads all results; the same again, with nothing to send;
and the table's own first run. Each is measured as in `throughput.py`. The script also reports how
long adding the jobs, the run and the results took, and its peak memory at the end of each. `--raw`
keeps raw files (one for each job), which the others do without. Prints the table and writes
`benchmarks/jobs.md`.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

import workload
from measure import ROOT, cpu_of, measured
from throughput import HEAD, Line, bench_case, in_temporary_folder, load_average, markdown, shown

from batchata_tasks.emulator import EmulatorProcess

if TYPE_CHECKING:
    from workload import Case

JOBS = Path(__file__).with_name("jobs.md")
_NOTES = """
Columns as in `results.md`. `Batch` includes the imports, adding the jobs, the run, and `results()`
with every answer parsed. The list has the time of each step, and the peak memory of the process by
its end: the jobs and their results are objects of the script, and grow with their number.
"""


def bench_jobs(
    case: Case, source: Path, number: int, folder: Path, *, raw: bool
) -> tuple[list[Line], list[str]]:
    """Measure one provider and size; return the lines, and the script's reports of its steps."""
    lines, reports = list[Line](), list[str]()
    env = {
        "HOME": str(folder),
        "BATCHATA_LEDGER_URL": f"sqlite:///{folder / 'ledger.db'}",
        "BATCHATA_POLL_INTERVAL": "0.05",
    }
    with EmulatorProcess() as emulator:
        for what in ("Batch", "Batch, nothing to send"):
            command = [str(ROOT / "benchmarks/jobs_script.py"), str(source), case.model]
            if raw:
                command.append("--raw")
            before = cpu_of(emulator.pid)
            usage = measured(command, env | emulator.env(), folder)
            emulator_cpu = cpu_of(emulator.pid) - before
            sent = 0 if lines else -(-number // case.rows_per_batch)
            lines.append(Line(case.provider, what, number, sent, usage, emulator_cpu))
            steps = json.loads((folder / "steps.json").read_text(encoding="utf-8"))
            parts = ", ".join(f"{name} {seconds:.1f} s, {peak} MB" for name, seconds, peak in steps)
            reports.append(f"- {case.provider}, {number:,} jobs, {what}: {parts}")
    return lines, reports


def main() -> None:
    """Measure each size for both providers; print and write the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--jobs", type=int, nargs="+", default=[1000, 10_000, 100_000], help="how many"
    )
    parser.add_argument("--raw", action="store_true", help="keep raw files")
    given = parser.parse_args()
    before, reports = load_average(), list[str]()
    print(shown(HEAD))

    def work(case: Case, source: Path, folder: Path) -> list[Line]:
        (folder / "jobs").mkdir()
        lines, steps = bench_jobs(case, source, number, folder / "jobs", raw=given.raw)
        reports.extend(steps)
        return lines + bench_case(case, source, number, folder, floor=False)[:1]

    lines = list[Line]()
    for number in given.jobs:
        lines += in_temporary_folder(number, workload.CASES, work)
    print("\n".join(reports))
    notes = "\n".join([*reports, _NOTES])
    load = f"{before} before, {load_average()} after"
    JOBS.write_text(markdown("Jobs", lines, notes, load), encoding="utf-8")


if __name__ == "__main__":
    main()
