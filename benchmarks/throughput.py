"""Throughput: one table through each provider's batch API, from Parquet to Parquet, beside the floor.

    python benchmarks/throughput.py [--rows N] [--repeat N]

For each provider, in processes of their own, against the emulator in another one that ends batches at once:
the floor (`floor.py`), the product's first run (every row is sent) and its second run (nothing is to be sent).
Each is measured in wall seconds, CPU seconds (user and system of that process alone), peak resident memory in MB
(10^6 bytes) and CPU seconds of the emulator meanwhile. Of repeats, the one with the least CPU time counts. Then every row
is checked: one row per key, with the answer to its own request, and the same answers as the floor's. Prints the table and
writes `benchmarks/results.md`.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson
import pyarrow.parquet as pq
import workload
from measure import ROOT, Usage, cpu_of, machine, measured

from batchata_tasks.emulator import EmulatorProcess, answer_text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import pyarrow as pa
    from workload import Case

RESULTS = Path(__file__).with_name("results.md")
_COMPARED = ["ticket_id", "customer", "opened", *workload.SCHEMA["properties"]]
_NOTES = """
`CPU s` is user and system time of the measured process alone; `peak MB` its largest resident memory, of which 170 to 200 MB
are the product's imports (PyArrow, pandas, one SDK, SQLAlchemy). `wall s` holds what the emulator takes to validate, answer and
send (`emulator CPU s`), and grows with the load of the machine; CPU time grows with it too, but less. The floor checks
nothing, records nothing and syncs nothing; see `floor.py`.
"""


@dataclass(frozen=True, slots=True)
class Line:
    """One measured process: what it did, what it took, and the emulator's CPU seconds meanwhile."""

    provider: str
    what: str
    rows: int
    batches: int
    usage: Usage
    emulator: float

    def cells(self) -> list[str]:
        """Return the line as cells of the table."""
        took = self.usage
        speed = f"{took.cpu / self.rows * 1e6:.0f}"
        figures = [
            f"{took.wall:.1f}",
            f"{took.cpu:.1f}",
            speed,
            f"{took.peak:.0f}",
            f"{self.emulator:.1f}",
        ]
        return [self.provider, self.what, f"{self.rows:,}", str(self.batches), *figures]


HEAD = [
    "provider",
    "what",
    "rows",
    "batches",
    "wall s",
    "CPU s",
    "CPU us/row",
    "peak MB",
    "emulator CPU s",
]


class CheckError(AssertionError):
    """A row is missing, doubled, or has another row's answer."""


def bench_case(
    case: Case, source: Path, rows: int, folder: Path, *, floor: bool = True
) -> list[Line]:
    """Measure one provider in `folder`, check all rows, and return the floor's and both runs' lines."""
    output, least = folder / "dataset", folder / "floor.parquet"
    workload.write_spec(folder / "spec.json", case, source, output)
    batches = -(-rows // case.rows_per_batch)
    run = ["-m", "batchata_tasks.cli", "run", str(folder / "spec.json"), "--direct"]
    bare = [str(ROOT / "benchmarks" / "floor.py"), str(source), str(least), case.provider]
    lines: list[Line] = []
    with EmulatorProcess() as emulator:
        env = _environment(folder) | emulator.env()

        def line(what: str, command: list[str], sent: int) -> None:
            before = cpu_of(emulator.pid)
            usage = measured(command, env, folder)
            lines.append(
                Line(case.provider, what, rows, sent, usage, cpu_of(emulator.pid) - before)
            )

        if floor:
            line("floor", bare, batches)
        line("first run", run, batches)
        line("second run, nothing to send", run, 0)
    check(case, source, output, rows)
    if floor:
        _same_as_floor(output, least)
    return lines


def _environment(folder: Path) -> dict[str, str]:
    """Return the settings of a run that keeps all of its state in `folder`."""
    return {
        "HOME": str(folder),
        "BATCHATA_LEDGER_URL": f"sqlite:///{folder / 'ledger.db'}",
        "BATCHATA_POLL_INTERVAL": "0.05",
        "BATCHATA_CODE_ROOTS": str(folder),
    }


def check(case: Case, source: Path, output: Path, rows: int) -> None:
    """Check that each source row has landed once, with the emulator's answer to the very request made from it."""
    table = pq.read_table(
        output / "data", columns=["ticket_id", "_custom_id", "_status", "_response", *_COMPARED[3:]]
    )
    keys = len(set(table["ticket_id"].to_pylist()))
    if table.num_rows != rows or keys != rows:
        message = f"{case.provider}: {rows:,} rows went in, {table.num_rows:,} with {keys:,} keys came out"
        raise CheckError(message)
    prompts = _prompts_of(source)
    landed = {row["_custom_id"]: row for row in table.to_pylist()}
    answered = 0
    for custom_id, body in _requests(output):
        row = landed[custom_id]
        text = answer_text(case.provider, body)  # type: ignore[arg-type]
        fields = {name: row[name] for name in workload.SCHEMA["properties"]}
        if (
            body["messages"][-1]["content"] != prompts[row["ticket_id"]]
            or row["_status"] != "succeeded"
        ):
            message = f"{case.provider}: the request {custom_id} is not that of its row {row['ticket_id']}, or it failed"
            raise CheckError(message)
        if row["_response"] != text or fields != orjson.loads(text):
            message = f"{case.provider}: the row {row['ticket_id']} has another request's answer"
            raise CheckError(message)
        answered += 1
    if answered != rows:
        message = f"{case.provider}: {answered:,} requests were sent for {rows:,} rows"
        raise CheckError(message)


def _prompts_of(source: Path) -> dict[str, str]:
    rows = pq.read_table(source, columns=["ticket_id", "customer", "text"]).to_pylist()
    return {
        row["ticket_id"]: workload.PROMPT.format(customer=row["customer"], text=row["text"])
        for row in rows
    }


def _requests(output: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield (custom_id, body) of every request that went over the wire."""
    for path in sorted((output / "_batchata" / "requests").glob("*.jsonl")):
        with path.open("rb") as stream:
            for line in stream:
                if line.startswith(b'{"custom_id"'):
                    request = orjson.loads(line.rstrip(b",\n"))
                    yield request["custom_id"], request.get("params") or request["body"]


def _same_as_floor(output: Path, least: Path) -> None:
    """Compare the product's columns with the floor's: both asked the same, so both were told the same."""
    ours, floors = (
        _sorted(pq.read_table(path, columns=_COMPARED)) for path in (output / "data", least)
    )
    if not ours.equals(floors):
        message = "the floor's answers differ from the product's"
        raise CheckError(message)


def _sorted(table: pa.Table) -> pa.Table:
    return (
        table.select(_COMPARED).replace_schema_metadata(None).sort_by("ticket_id").combine_chunks()
    )


def best(runs: list[list[Line]]) -> list[Line]:
    """Return, of repeated measurements, each line's repeat with the least CPU time."""
    return [min(repeats, key=lambda line: line.usage.cpu) for repeats in zip(*runs, strict=True)]


def ratios(lines: list[Line]) -> list[str]:
    """Return, for each provider, how many times the floor's time and memory the first run takes."""
    found: list[str] = []
    for least in (line for line in lines if line.what == "floor"):
        run = next(
            line for line in lines if line.provider == least.provider and line.what == "first run"
        )
        pairs = (
            ("CPU", run.usage.cpu, least.usage.cpu),
            ("wall", run.usage.wall, least.usage.wall),
        )
        times = ", ".join(f"{what} {ours / floors:.1f}x" for what, ours, floors in pairs)
        found.append(
            f"{least.provider}, first run / floor: {times}, memory {run.usage.peak / least.usage.peak:.2f}x"
        )
    return found


def markdown(title: str, lines: list[Line], notes: str, load: str) -> str:
    """Return a page with the machine's facts, the table and the ratios."""
    rows = [HEAD, ["---"] * 3 + ["---:"] * (len(HEAD) - 3), *(line.cells() for line in lines)]
    table = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    told = "\n".join(f"- {text}" for text in ratios(lines))
    facts = f"{datetime.now(UTC):%Y-%m-%d}, {machine()}, load average {load}."
    return "\n\n".join(filter(None, (f"# {title}", facts, table, told, notes.strip()))) + "\n"


def in_temporary_folder(
    rows: int, cases: tuple[Case, ...], work: Callable[[Case, Path, Path], list[Line]]
) -> list[Line]:
    """Make the table, do `work(case, source, folder)` for each case in a new folder, and print its lines."""
    lines: list[Line] = []
    with tempfile.TemporaryDirectory(prefix="batchata-bench-") as name:
        root = Path(name)
        workload.make_table(root / "source.parquet", rows)
        for case in cases:
            folder = root / case.provider
            folder.mkdir()
            found = work(case, root / "source.parquet", folder)
            for line in found:
                print(shown(line.cells()), flush=True)
            lines += found
    return lines


def shown(cells: list[str]) -> str:
    """Return the cells of a line for the terminal, in columns."""
    widths = (10, 28, 9, 8, 8, 8, 11, 8, 15)
    return "".join(
        f"{cell:<{width}}" if i < 2 else f"{cell:>{width}}"
        for i, (cell, width) in enumerate(zip(cells, widths, strict=True))
    )


def load_average() -> str:
    """Return the load average of the last minute: what else the machine did."""
    return f"{os.getloadavg()[0]:.1f}"


def main() -> None:
    """Measure both providers; print and write the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--rows", type=int, default=100_000, help="rows of the table (default: 100,000)"
    )
    parser.add_argument(
        "--repeat", type=int, default=1, help="how often to measure (default: once)"
    )
    given = parser.parse_args()
    before = load_average()
    print(shown(HEAD))

    def work(case: Case, source: Path, folder: Path) -> list[Line]:
        runs: list[list[Line]] = []
        for number in range(given.repeat):
            again = folder / str(number)
            again.mkdir()
            runs.append(bench_case(case, source, given.rows, again))
        return best(runs)

    lines = in_temporary_folder(given.rows, workload.CASES, work)
    print("\n".join(ratios(lines)))
    load = f"{before} before, {load_average()} after"
    RESULTS.write_text(
        markdown(f"Throughput, {given.rows:,} rows", lines, _NOTES, load), encoding="utf-8"
    )


if __name__ == "__main__":
    main()
