"""Task runners: the same table by threads, a process pool, Dask and Ray, with two workers each.

    python benchmarks/runners.py [--rows N] [--batches N] [--only NAME …]

Each run is a flow run of `batchata run`, on a Prefect server of this script's own and against an
emulator that ends batches at once, in batches that two workers can read at a time. In two more runs
a worker is killed (SIGKILL) once a quarter of the batches has landed. CPU time is that of all
processes of the run together, its workers and their helpers among them, sampled five times a
second; the server's and the emulator's stand apart. After each run every row is checked. Prints the
table and writes `benchmarks/runners.md`.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import workload
from measure import ROOT, ChildError, cpu_of, machine
from throughput import check, load_average

from batchata_tasks.emulator import EmulatorProcess

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from workload import Case

RESULTS = Path(__file__).with_name("runners.md")
MARK = "BATCHATA_BENCHMARK"  # a variable by which the processes of a run are known
KINDS = ("thread", "process", "dask", "ray")
KILLED = ("process", "dask")
HEAD = ("by", "rows", "batches", "wall s", "CPU s", "peak MB", "processes", "server CPU s")
_SAMPLE = 0.2  # seconds
_TIMEOUT = 900.0
_WORKER = "multiprocessing.spawn"  # in the command line of processes of pools, and of Dask's
_NOTES = """
`CPU s` is user and system time of all processes of the run: of `batchata run` (2 to 3 s of it are
imports, in each worker once more), of its workers, and of what Dask and Ray start beside them.
`peak MB` is their largest sum of resident memory, in which pages that they share count each time.
`wall s` grows with the load of the machine, and by seconds for Prefect's and the workers' start.
`server CPU s` is Prefect's server.
"""
_OF_KILLED = """
*A worker killed* (SIGKILL, once a quarter of the batches had landed): its work was done again, and
every row was right, as in all other runs.
"""


@dataclass
class Sampled:
    """What the processes of a run used, as far as samples saw it."""

    cpu: dict[int, float] = field(default_factory=dict[int, float])
    peak: float = 0.0

    def look(self, mark: str) -> list[psutil.Process]:
        """Take a sample; return the processes."""
        found, memory = list[psutil.Process](), 0.0
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                if process.environ().get(MARK) != mark:
                    continue
                times = process.cpu_times()
                self.cpu[process.pid] = times.user + times.system
                memory += process.memory_info().rss / 1e6
                found.append(process)
        self.peak = max(self.peak, memory)
        return found


@contextmanager
def prefect_server(home: Path) -> Iterator[tuple[str, int]]:
    """Run a Prefect server; yield its URL and its process."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    env = {**os.environ, "PREFECT_HOME": str(home), "PREFECT_SERVER_ANALYTICS_ENABLED": "false"}
    words = ["-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)]
    with (home / "server.log").open("wb") as log:
        server = subprocess.Popen([sys.executable, *words], env=env, stdout=log, stderr=log)
    url = f"http://127.0.0.1:{port}/api"
    try:
        until = time.monotonic() + 180
        while True:
            with suppress(OSError), urllib.request.urlopen(f"{url}/health", timeout=5):
                break
            if time.monotonic() > until or server.poll() is not None:
                message = "Prefect's server did not start"
                raise ChildError(message)
            time.sleep(0.5)
        yield url, server.pid
    finally:
        server.terminate()
        server.wait(60)


def run(kind: str, env: Mapping[str, str], folder: Path, kill_after: int) -> tuple[float, Sampled]:
    """Run a folder's spec; kill a worker once so many batches landed. Return wall and usage."""
    sampled, log = Sampled(), folder / "run.log"
    words = [sys.executable, "-m", "batchata_tasks.cli", "run", str(folder / "spec.json")]
    began = time.perf_counter()
    with log.open("wb") as output:
        child = subprocess.Popen(words, cwd=folder, env=env, stdout=output, stderr=output)
    try:
        while child.poll() is None and time.perf_counter() - began < _TIMEOUT:
            processes = sampled.look(str(folder))
            landed = len(list(folder.glob("dataset/_batchata/commits/*.json")))
            if kill_after and landed >= kill_after and (worker := busiest(processes)):
                os.kill(worker, signal.SIGKILL)
                kill_after = 0
            time.sleep(_SAMPLE)
    finally:
        child.kill()
        code = child.wait()
    if code or kill_after:
        why = f"ended with {code}" if code else "had no worker to be killed"
        message = f"{kind} {why}:\n{log.read_text(errors='replace')[-2000:]}"
        raise ChildError(message)
    return time.perf_counter() - began, sampled


def busiest(processes: list[psutil.Process]) -> int | None:
    """Return the worker that has used the most time of processors."""
    workers = dict[int, float]()
    for process in processes:
        with suppress(psutil.Error):
            if _WORKER in " ".join(process.cmdline()):
                workers[process.pid] = process.cpu_times().user
    return max(workers, key=lambda pid: workers[pid], default=None)


def measure(
    name: str, case: Case, source: Path, rows: int, batches: int, server: tuple[str, int]
) -> list[str]:
    """Measure one way, check all rows; return the cells of its line."""
    kind, _, killed = name.partition(", ")
    with tempfile.TemporaryDirectory(prefix="batchata-runners-") as made, EmulatorProcess() as them:
        folder = Path(made)
        workload.write_spec(folder / "spec.json", case, source, folder / "dataset")
        spec = json.loads((folder / "spec.json").read_text())
        spec["items_per_batch"] = -(-rows // batches)
        (folder / "spec.json").write_text(json.dumps(spec))
        env = {
            **os.environ,
            **them.env(),
            MARK: str(folder),
            "HOME": str(folder),
            "PREFECT_HOME": str(folder / "prefect"),
            "PREFECT_API_URL": server[0],
            "BATCHATA_LEDGER_URL": f"sqlite:///{folder / 'ledger.db'}",
            "BATCHATA_POLL_INTERVAL": "0.2",
            "BATCHATA_CODE_ROOTS": str(folder),
            "BATCHATA_TASK_RUNNER": kind,
            "PREFECT_TASKS_RUNNER_PROCESS_POOL_MAX_WORKERS": "2",
            "PYTHONPATH": str(ROOT),
        }
        before = cpu_of(server[1])
        wall, used = run(kind, env, folder, batches // 4 if killed else 0)
        check(case, source, folder / "dataset", rows)
    figures = [f"{wall:.1f}", f"{sum(used.cpu.values()):.1f}", f"{used.peak:.0f}"]
    figures += [str(len(used.cpu)), f"{cpu_of(server[1]) - before:.1f}"]
    return [name, f"{rows:,}", str(batches), *figures]


def shown(cells: tuple[str, ...] | list[str]) -> str:
    """Return the cells of a line for the terminal, in columns."""
    return "".join(f"{cell:<26}" if i == 0 else f"{cell:>14}" for i, cell in enumerate(cells))


def main() -> None:
    """Measure all ways; print and write the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=100_000, help="rows of the table")
    parser.add_argument("--batches", type=int, default=8, help="batches that they are sent in")
    names = [*KINDS, *(f"{kind}, a worker killed" for kind in KILLED)]
    parser.add_argument("--only", nargs="+", choices=names, default=names, help="which ways")
    given = parser.parse_args()
    before, lines = load_average(), list[list[str]]()
    print(shown(HEAD))
    with tempfile.TemporaryDirectory(prefix="batchata-runners-") as made:
        source, home = Path(made) / "source.parquet", Path(made) / "prefect"
        home.mkdir()
        workload.make_table(source, given.rows)
        with prefect_server(home) as server:
            for name in given.only:
                lines.append(
                    measure(name, workload.CASES[0], source, given.rows, given.batches, server)
                )
                print(shown(lines[-1]), flush=True)
                RESULTS.write_text(markdown(given.rows, lines, before), encoding="utf-8")


def markdown(rows: int, lines: list[list[str]], before: str) -> str:
    """Return the page with the machine's facts and the table; `before` is the load at the start."""
    load = f"load average {before} before, {load_average()} after"
    facts = f"{datetime.now(UTC):%Y-%m-%d}, {machine()}, {load}; two workers each."
    cells = [HEAD, ["---", *["---:"] * (len(HEAD) - 1)], *lines]
    table = "\n".join(f"| {' | '.join(row)} |" for row in cells)
    notes = _NOTES.strip() + (_OF_KILLED if any("killed" in line[0] for line in lines) else "")
    how = "`python benchmarks/runners.py` measures this anew."
    return f"# Task runners, {rows:,} rows\n\n{facts} {how}\n\n{table}\n\n{notes.rstrip()}\n"


if __name__ == "__main__":
    main()
