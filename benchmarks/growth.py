"""Growth: CPU seconds and peak memory of the first and the second run as the table grows.

    python benchmarks/growth.py [--rows 10000 100000 300000]

Measured as in `throughput.py`, without the floor. The cost of each further row, in CPU microseconds
and in bytes of peak memory, shows how far CPU time is linear and memory flat. Prints the table and
writes `benchmarks/growth.md`.
"""

from __future__ import annotations

import argparse
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import workload
from throughput import HEAD, bench_case, in_temporary_folder, load_average, markdown, shown

if TYPE_CHECKING:
    from throughput import Line

GROWTH = Path(__file__).with_name("growth.md")
_NOTES = "Columns as in `results.md`."


def slopes(lines: list[Line]) -> list[str]:
    """Return the cost of each further row between two sizes: CPU us and bytes of peak memory."""
    texts: list[str] = []
    for provider, what in dict.fromkeys((line.provider, line.what) for line in lines):
        same = sorted(
            (line for line in lines if (line.provider, line.what) == (provider, what)),
            key=lambda line: line.rows,
        )
        for less, more in pairwise(same):
            rows = more.rows - less.rows
            cpu = (more.usage.cpu - less.usage.cpu) / rows * 1e6
            peak = (more.usage.peak - less.usage.peak) / rows * 1e6
            sizes = f"{less.rows:,} to {more.rows:,} rows"
            costs = f"{cpu:.0f} us CPU and {peak:.0f} bytes a row"
            texts.append(f"- {provider}, {what}, {sizes}: {costs}")
    return texts


def main() -> None:
    """Measure each size for both providers; print and write the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--rows", type=int, nargs="+", default=[10_000, 100_000, 300_000], help="sizes of the table"
    )
    given = parser.parse_args()
    before = load_average()
    print(shown(HEAD))
    lines: list[Line] = []
    for rows in given.rows:
        lines += in_temporary_folder(
            rows,
            workload.CASES,
            lambda case, source, folder, n=rows: bench_case(case, source, n, folder, floor=False),
        )
    costs = slopes(lines)
    print("\n".join(costs))
    notes = "\n".join([*costs, "", _NOTES])
    load = f"{before} before, {load_average()} after"
    GROWTH.write_text(markdown("Growth", lines, notes, load), encoding="utf-8")


if __name__ == "__main__":
    main()
