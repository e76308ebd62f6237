"""Many nights: one spec run again and again in one process while its table grows or changes.

    python benchmarks/nights.py [--nights 1000] [--rows 100] [--new 5] [--changed 0]

Each night adds new rows, changes the texts of others drawn at random, and runs the spec (as
`batchata run --direct` does) against the emulator. Prints, for some nights, the dataset's files and
bytes, the bytes of parts written so far, CPU seconds of the run and peak memory, and in the end the
files beside the dataset. An unchanged night comes last.
"""

from __future__ import annotations

import argparse
import os
import random
import resource
import shutil
import sys
import tempfile
import time
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import measure
import pyarrow as pa
import pyarrow.parquet as pq

from batchata_tasks.emulator import EmulatorProcess
from batchata_tasks.pipeline.enrich import enrich
from batchata_tasks.pricing.lookup import published_rates
from batchata_tasks.spec.loading import parse_spec

if TYPE_CHECKING:
    from collections.abc import Iterator

_SHOWN = (1, 2, 5, 10, 20, 50)  # and their multiples by 10, 100 …
_MODEL = "claude-haiku-5-5"


@dataclass
class Written:
    """Bytes of parts that were renamed into the dataset: new ones, rewritten and merged ones."""

    new: int = 0
    rewritten: int = 0
    merged: int = 0
    opened: Counter[str] | None = None  # small files that one run read, by folder

    def add(self, path: Path, size: int) -> None:
        """Count a file that appeared."""
        if path.parent.name != "data":
            return
        if path.name.startswith("merged-") and ".v" not in path.name:
            self.merged += size
        elif ".v" in path.name:
            self.rewritten += size
        else:
            self.new += size


@contextmanager
def counted() -> Iterator[Written]:
    """Count what this process renames into a dataset, and which files it opens."""
    written, replace = Written(), os.replace

    def replaced(source: Any, target: Any, **more: Any) -> None:
        written.add(Path(target), Path(source).stat().st_size)
        replace(source, target, **more)

    def audit(event: str, args: tuple[Any, ...]) -> None:
        if event == "open" and written.opened is not None and str(args[1]).startswith("r"):
            parts = Path(str(args[0])).parts
            if "_batchata" in parts:
                written.opened[parts[parts.index("_batchata") + 1]] += 1

    sys.addaudithook(audit)
    with patch.object(os, "replace", replaced):
        yield written


class Night:
    """The table and the spec."""

    def __init__(self, folder: Path, rows: int) -> None:
        self.source, self.output = folder / "table.parquet", folder / "out"
        self._rng = random.Random(20261129)
        self._texts = [self._text() for _ in range(rows)]
        self.spec = parse_spec(
            {
                "name": "nights",
                "source": str(self.source),
                "key": "id",
                "model": _MODEL,
                "prompt": "{{ text }}",
                "max_tokens": 60,
                "output": str(self.output),
                "pilot": False,
            }
        )
        self.write()

    def _text(self) -> str:
        return f"ticket {self._rng.randrange(10**12)}: the parcel did not come"

    def change(self, new: int, changed: int) -> None:
        """Add rows, and change others."""
        for place in self._rng.sample(range(len(self._texts)), min(changed, len(self._texts))):
            self._texts[place] = self._text()
        self._texts += [self._text() for _ in range(new)]
        self.write()

    def write(self) -> None:
        """Write the table."""
        ids = [f"T-{number:07}" for number in range(len(self._texts))]
        pq.write_table(pa.table({"id": ids, "text": self._texts}), self.source)

    def run(self) -> float:
        """Run the spec; return its CPU seconds."""
        began = time.process_time()
        receipt = enrich(self.spec)
        if receipt.exit_code:
            raise RuntimeError(receipt.reason)
        return time.process_time() - began

    def look(self) -> str:
        """Return the files of the dataset and their megabytes, as columns of the table."""
        sizes = [path.stat().st_size for path in (self.output / "data").iterdir()]
        return f"{len(sizes):5} {sum(sizes) / 1e6:8.2f}"


def _line(label: str, night: Night, written: Written, cpu: float) -> str:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    sizes = " ".join(
        f"{size / 1e6:9.2f}" for size in (written.new, written.rewritten, written.merged)
    )
    opened = sum((written.opened or Counter()).values())
    return f"{label:>10} {night.look()} {sizes} {cpu:7.3f} {opened:6} {peak:8.1f}"


def nights(folder: Path, given: argparse.Namespace) -> None:
    """Run the nights and print the table."""
    night = Night(folder, given.rows)
    print("     night files       MB    new MB rewrit MB merged MB CPU sec   read  peak MB")
    with counted() as written:
        for number in range(1, given.nights + 1):
            written.opened = Counter()
            cpu = night.run()
            leading = int(str(number).rstrip("0"))
            if leading in _SHOWN[:3] or number == given.nights:
                print(_line(str(number), night, written, cpu), flush=True)
            night.change(given.new, given.changed)
        night.run()
        for label in ("unchanged", "unchanged"):
            written.opened = Counter()
            print(_line(label, night, written, night.run()), dict(written.opened), flush=True)
    own = night.output / "_batchata"
    beside = Counter(path.relative_to(own).parts[0] for path in own.rglob("*") if path.is_file())
    print("beside the dataset:", dict(beside))


def main() -> None:
    """Run the nights against an emulator of their own."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--nights", type=int, default=1000)
    parser.add_argument("--rows", type=int, default=100, help="of the first night")
    parser.add_argument("--new", type=int, default=5, help="rows each night")
    parser.add_argument("--changed", type=int, default=0, help="rows each night")
    given = parser.parse_args()
    assert published_rates("anthropic", _MODEL) is not None
    folder = Path(tempfile.mkdtemp(prefix="batchata-nights-"))
    print(measure.machine())
    with EmulatorProcess() as emulator:
        os.environ.update(emulator.env())
        os.environ["BATCHATA_LEDGER_URL"] = f"sqlite:///{folder / 'ledger.db'}"
        os.environ["BATCHATA_POLL_INTERVAL"] = "0.02"
        emulator.control.progress("immediate")
        nights(folder, given)
    shutil.rmtree(folder)


if __name__ == "__main__":
    main()
