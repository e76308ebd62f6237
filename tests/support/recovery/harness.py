"""Runs that are killed and started, by hand, for as long as you like.

`python -m tests.support.recovery.harness --provider anthropic --kills 30 --seed 1`

Run it from the project folder. Each scenario is a table, enriched once and then again under another
prompt and other chunk sizes, with faults at the provider and a reader that reads all the time. With
the usual number of rows, each run that ends merges the parts of its batches.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from batchata_tasks.emulator import EmulatorProcess
from tests.support.launcher import Launcher
from tests.support.prefect_server import Server
from tests.support.recovery.kills import Tally, measure, scenario
from tests.support.recovery.overlap import Overlaps, overlap
from tests.support.recovery.place import MODELS, Place

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable


def parsed(arguments: Iterable[str] | None) -> argparse.Namespace:
    """Return the command line's options."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.support.recovery.harness", description=__doc__
    )
    parser.add_argument("--provider", choices=list(MODELS), default="anthropic")
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--rows", type=int, default=400)
    parser.add_argument(
        "--stops", type=float, default=0.0, help="share of runs that are stopped, not killed"
    )
    parser.add_argument(
        "--boundaries",
        type=float,
        default=0.0,
        help="share of kills that happen at a boundary between two steps",
    )
    parser.add_argument(
        "--flow-share",
        type=float,
        default=0.0,
        help="share of starts that are flows on a Prefect server of our own",
    )
    parser.add_argument(
        "--lets-go",
        type=float,
        default=0.0,
        help="share of starts that let go of the dataset while batches are open",
    )
    parser.add_argument(
        "--passes",
        type=float,
        default=0.0,
        help="how often a pass of `watch` is killed before, or beside, a run",
    )
    parser.add_argument(
        "--edits",
        type=float,
        default=0.0,
        help="after which share of kills rows of the source are corrected, taken out and added",
    )
    parser.add_argument(
        "--documents",
        action="store_true",
        help="each row has a document, whose passages are asked for with the fields",
    )
    parser.add_argument(
        "--overlap",
        type=int,
        default=0,
        help="instead: so many pairs of runs started at the same instant",
    )
    parser.add_argument(
        "--patience", type=float, default=240.0, help="seconds to wait for a run to end"
    )
    parser.add_argument(
        "--ledger-url", help="a ledger for all tables, instead of a SQLite file for each"
    )
    return parser.parse_args(None if arguments is None else list(arguments))


def main(arguments: Iterable[str] | None = None) -> int:
    """Do what the options say and print the result."""
    given = parsed(arguments)
    folder = Path(tempfile.mkdtemp(prefix="batchata-kills-"))
    with (
        EmulatorProcess(anonymous=True) as emulator,
        Launcher() as launcher,
        prefect(folder, wanted=given.flow_share > 0) as flows,
    ):

        def make(name: str, **knobs: Any) -> Place:
            knobs = {"ledger_url": given.ledger_url, "prefect": flows, **knobs}
            return Place(folder / name, given.provider, emulator, launcher, **knobs)

        tally = overlaps(given, make) if given.overlap else kills(given, make)
    sys.stdout.write(f"folders: {folder}\n{tally}\n")
    if isinstance(tally, Tally):
        struck = [f"  {times:4} {name}" for name, times in sorted(tally.strikes.items())]
        sys.stdout.write("\n".join(["faults that struck:", *struck, ""]))
    return 1 if tally.problems else 0


@contextmanager
def prefect(folder: Path, *, wanted: bool) -> Generator[dict[str, str], None, None]:
    """Run a Prefect server with a home of its own, if wanted.

    Yields the environment to reach it.
    """
    if not wanted:
        yield {}
        return
    home = folder / "prefect"
    home.mkdir()
    with Server(home) as server:
        yield {
            name: value
            for name, value in server.env.items()
            if name.startswith(("PREFECT_", "PYTHONWARNINGS"))
        }


def kills(given: argparse.Namespace, make: Callable[..., Place]) -> Tally:
    """Kill runs of many scenarios until there were enough kills."""
    tally, told = Tally(given.stops, given.boundaries, given.flow_share, given.patience), 0
    tally.lets_go_share, tally.pass_share = given.lets_go, given.passes
    tally.edit_share = given.edits
    number = 0
    duration = measure(make("clean", rows=given.rows), flow=given.flow_share > 0.5)
    sys.stdout.write(f"a clean run works {duration:.1f} s\n")
    while tally.kills + tally.stops < given.kills:
        rng = random.Random(f"{given.seed} {number}")
        schema, midway = number % 2 == 1, number % 3 == 2
        place = make(str(number), rows=given.rows, schema=schema, documents=given.documents)
        most, rounds = rng.randint(3, 6), number % 4 == 0
        try:
            scenario(place, rng, most, duration, tally, midway=midway, rounds=rounds)
        except (AssertionError, TimeoutError) as error:
            tally.problems.append(f"{place.folder}: {error}")
        sys.stderr.writelines(f"{problem}\n" for problem in tally.problems[told:])
        told = len(tally.problems)
        sys.stderr.write(
            f"scenario {number}: {tally.kills} kills, {tally.stops} stops, "
            f"{len(tally.problems)} problems\n"
        )
        number += 1
    return tally


def overlaps(given: argparse.Namespace, make: Callable[..., Place]) -> Overlaps:
    """Start pairs of runs, each pair on a new table."""
    tally, rng = Overlaps(), random.Random(given.seed)
    for number in range(given.overlap):
        overlap(make(str(number), rows=20, per_batch=9, seconds=0.1), rng, tally)
    return tally


if __name__ == "__main__":
    raise SystemExit(main())
