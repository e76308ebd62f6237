"""Runs that are killed and started, by hand, for as long as you like.

`python -m tests.recovery.harness --provider anthropic --kills 30 --seed 1` (from the project folder).
Each scenario is a table, enriched once and then again under another prompt and other chunk sizes,
with faults at the provider and a reader that looks all the time.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from batchata_tasks.emulator import EmulatorProcess
from tests.recovery.kills import Tally, measure, scenario
from tests.recovery.launcher import Launcher
from tests.recovery.place import MODELS, Place

if TYPE_CHECKING:
    from collections.abc import Iterable


def main(arguments: Iterable[str] | None = None) -> int:
    """Kill runs of many scenarios until there were enough kills; print what came of it."""
    parser = argparse.ArgumentParser(prog="python -m tests.recovery.harness", description=main.__doc__)
    parser.add_argument("--provider", choices=list(MODELS), default="anthropic")
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--rows", type=int, default=400)
    parser.add_argument("--stops", type=float, default=0.0, help="share of runs that are stopped, not killed")
    given = parser.parse_args(None if arguments is None else list(arguments))
    tally, number = Tally(given.stops), 0
    folder = Path(tempfile.mkdtemp(prefix="batchata-kills-"))
    with EmulatorProcess() as emulator, Launcher() as launcher:
        duration = measure(Place(folder / "clean", given.provider, emulator, launcher, rows=given.rows))
        while tally.kills + tally.stops < given.kills:
            rng = random.Random(f"{given.seed} {number}")
            schema, midway = number % 2 == 1, number % 3 == 2
            place = Place(folder / str(number), given.provider, emulator, launcher, rows=given.rows, schema=schema)
            scenario(place, rng, rng.randint(3, 6), duration, tally, midway=midway)
            sys.stderr.write(f"scenario {number}: {tally.kills} kills, {tally.stops} stops, {len(tally.problems)} problems\n")
            number += 1
    sys.stdout.write(f"a clean run works {duration:.1f} s; folders: {folder}\n{tally}\n")
    return 1 if tally.problems else 0


if __name__ == "__main__":
    raise SystemExit(main())
