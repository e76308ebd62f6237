"""Throughput: one table through each provider's batch API, Parquet to Parquet, beside the floor.

    python benchmarks/throughput.py [--rows N] [--repeat N]

For each provider, in processes of their own, against an emulator process that ends batches at once:
the floor (`floor.py`), the product's first run (every row is sent) and its second run (there is
nothing to send). Each is measured in wall seconds, CPU seconds (user and system of that process
alone), peak resident memory in MB (10^6 bytes) and CPU seconds of the emulator at the same time. Of
repeats, the one with the least CPU time counts. Then every row is checked: one row for each key,
with the answer to its own request, and the same answers as the floor's. Prints the table and writes
`benchmarks/results.md`.
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
`CPU s` is user and system time of the measured process alone; `peak MB` its largest resident
memory, of which 170 to 200 MB are the product's imports (PyArrow, pandas, one SDK, SQLAlchemy).
`wall s` includes the time in which the emulator validates, answers and sends (`emulator CPU s`),
and grows with the load of the machine; CPU time grows with it too, but less. The floor checks
nothing, records nothing and syncs nothing; see `floor.py`.
"""


@dataclass(frozen=True, slots=True)
class Line:
    """One measured process."""

    provider: str
    what: str  # what it did
    rows: int
    batches: int
    usage: Usage
    emulator: float  # the emulator's CPU seconds at the same time

    def cells(self) -> list[str]:
        """Return the line as cells of the table."""
        usage = self.usage
        figures = [
            f"{usage.wall:.1f}",
            f"{usage.cpu:.1f}",
            f"{usage.cpu / self.rows * 1e6:.0f}",
            f"{usage.peak:.0f}",
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
    """Measure one provider in `folder`, check all rows; return the lines of floor and runs."""
    output, floor_output = folder / "dataset", folder / "floor.parquet"
    workload.write_spec(folder / "spec.json", case, source, output)
    batches = -(-rows // case.rows_per_batch)
    run = ["-m", "batchata_tasks.cli", "run", str(folder / "spec.json"), "--direct"]
    script = ROOT / "benchmarks" / "floor.py"
    bare = [str(script), str(source), str(floor_output), case.provider]
    lines: list[Line] = []
    with EmulatorProcess() as emulator:
        env = _environment(folder) | emulator.env()

        def line(what: str, command: list[str], sent: int) -> None:
            before = cpu_of(emulator.pid)
            usage = measured(command, env, folder)
            emulator_cpu = cpu_of(emulator.pid) - before
            lines.append(Line(case.provider, what, rows, sent, usage, emulator_cpu))

        if floor:
            line("floor", bare, batches)
        line("first run", run, batches)
        line("second run, nothing to send", run, 0)
    check(case, source, output, rows)
    if floor:
        _same_as_floor(output, floor_output)
    return lines


def _environment(folder: Path) -> dict[str, str]:
    """Return the settings of a run whose whole state is in `folder`."""
    return {
        "HOME": str(folder),
        "BATCHATA_LEDGER_URL": f"sqlite:///{folder / 'ledger.db'}",
        "BATCHATA_POLL_INTERVAL": "0.05",
        "BATCHATA_CODE_ROOTS": str(folder),
    }


def check(case: Case, source: Path, output: Path, rows: int) -> None:
    """Check that each source row has landed once, with the answer to the request made from it."""
    columns = ["ticket_id", "_custom_id", "_status", "_response", *_COMPARED[3:]]
    table = pq.read_table(output / "data", columns=columns)
    keys = len(set(table["ticket_id"].to_pylist()))
    if table.num_rows != rows or keys != rows:
        landed_rows = f"{table.num_rows:,} with {keys:,} keys came out"
        message = f"{case.provider}: {rows:,} rows went in, {landed_rows}"
        raise CheckError(message)
    prompts = _prompts_of(source)
    landed = {row["_custom_id"]: row for row in table.to_pylist()}
    answered = 0
    for custom_id, body in _requests(output):
        row = landed[custom_id]
        text = answer_text(case.provider, body)  # type: ignore[arg-type]
        fields = {name: row[name] for name in workload.SCHEMA["properties"]}
        is_its_own = body["messages"][-1]["content"] == prompts[row["ticket_id"]]
        if not is_its_own or row["_status"] != "succeeded":
            message = (
                f"{case.provider}: the request {custom_id} is not that of its row "
                f"{row['ticket_id']}, or it failed"
            )
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


def _same_as_floor(output: Path, floor_output: Path) -> None:
    """Compare the product's columns with the floor's: the same requests have the same answers."""
    ours = _sorted(pq.read_table(output / "data", columns=_COMPARED))
    floors = _sorted(pq.read_table(floor_output, columns=_COMPARED))
    if not ours.equals(floors):
        message = "the floor's answers differ from the product's"
        raise CheckError(message)


def _sorted(table: pa.Table) -> pa.Table:
    return (
        table.select(_COMPARED).replace_schema_metadata(None).sort_by("ticket_id").combine_chunks()
    )


def best(runs: list[list[Line]]) -> list[Line]:
    """Return, for each line, the repeat with the least CPU time."""
    return [min(repeats, key=lambda line: line.usage.cpu) for repeats in zip(*runs, strict=True)]


def ratios(lines: list[Line]) -> list[str]:
    """Return, for each provider, the first run's time and memory in multiples of the floor's."""
    runs = {line.provider: line.usage for line in lines if line.what == "first run"}
    texts: list[str] = []
    for floor in (line for line in lines if line.what == "floor"):
        run = runs[floor.provider]
        cpu = f"CPU {run.cpu / floor.usage.cpu:.1f}x"
        wall = f"wall {run.wall / floor.usage.wall:.1f}x"
        memory = f"memory {run.peak / floor.usage.peak:.2f}x"
        texts.append(f"{floor.provider}, first run / floor: {cpu}, {wall}, {memory}")
    return texts


def markdown(title: str, lines: list[Line], notes: str, load: str) -> str:
    """Return a page with the machine's facts, the table and the ratios."""
    rows = [HEAD, ["---"] * 3 + ["---:"] * (len(HEAD) - 3), *(line.cells() for line in lines)]
    table = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    multiples = "\n".join(f"- {text}" for text in ratios(lines))
    facts = f"{datetime.now(UTC):%Y-%m-%d}, {machine()}, load average {load}."
    return "\n\n".join(filter(None, (f"# {title}", facts, table, multiples, notes.strip()))) + "\n"


def in_temporary_folder(
    rows: int, cases: tuple[Case, ...], work: Callable[[Case, Path, Path], list[Line]]
) -> list[Line]:
    """Write the table, call `work(case, source, folder)` for each case, and print its lines."""
    lines: list[Line] = []
    with tempfile.TemporaryDirectory(prefix="batchata-bench-") as name:
        root = Path(name)
        workload.make_table(root / "source.parquet", rows)
        for case in cases:
            folder = root / case.provider
            folder.mkdir()
            case_lines = work(case, root / "source.parquet", folder)
            for line in case_lines:
                print(shown(line.cells()), flush=True)
            lines += case_lines
    return lines


def shown(cells: list[str]) -> str:
    """Return the cells of a line for the terminal, in columns."""
    widths = (10, 28, 9, 8, 8, 8, 11, 8, 15)
    return "".join(
        f"{cell:<{width}}" if i < 2 else f"{cell:>{width}}"
        for i, (cell, width) in enumerate(zip(cells, widths, strict=True))
    )


def load_average() -> str:
    """Return the load average of the last minute: a measure of other work on the machine."""
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
            repeat = folder / str(number)
            repeat.mkdir()
            runs.append(bench_case(case, source, given.rows, repeat))
        return best(runs)

    lines = in_temporary_folder(given.rows, workload.CASES, work)
    print("\n".join(ratios(lines)))
    load = f"{before} before, {load_average()} after"
    RESULTS.write_text(
        markdown(f"Throughput, {given.rows:,} rows", lines, _NOTES, load), encoding="utf-8"
    )


if __name__ == "__main__":
    main()
