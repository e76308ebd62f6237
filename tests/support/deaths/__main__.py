"""Deaths: kill engine, worker, server or database at each moment of a run; print who took it up.

    python -m tests.support.deaths [--victims engine worker] [--moments pending] [--postgres]

Run it from the project folder. A case takes one to four minutes, and they run one after another on
one Prefect server (SQLite, or Postgres, which `database` needs). Lines of a Markdown table are
printed as they come; benchmarks/deaths.md holds them.
"""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from queue import Queue
from typing import TYPE_CHECKING

from tests.support.deaths.cases import HEADER, MOMENTS, SHARED, VICTIMS, Fate, cases, died
from tests.support.deaths.world import Lane, World

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


def main(arguments: Iterable[str] | None = None) -> int:
    """Do what the options say; return 1 if a run was not taken up as it must be."""
    parser = argparse.ArgumentParser(prog="python -m tests.support.deaths", description=__doc__)
    parser.add_argument("--victims", nargs="+", default=list(VICTIMS), choices=list(VICTIMS))
    parser.add_argument("--moments", nargs="+", default=list(MOMENTS), choices=list(MOMENTS))
    parser.add_argument("--teams", type=int, default=1, help="that die side by side")
    parser.add_argument("--postgres", action="store_true", help="the Prefect server's database")
    parser.add_argument(
        "--without-automations", action="store_true", help="only `watch` takes runs up"
    )
    given = parser.parse_args(None if arguments is None else list(arguments))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # ends what was started
    folder, bad = Path(tempfile.mkdtemp(prefix="batchata-deaths-")), 0
    _say(f"folder: {folder}\n\n{HEADER}")
    asked = [
        (moment, victim)
        for moment, victim in cases()
        if moment in given.moments and victim in given.victims
    ]
    automations = not given.without_automations
    with World(folder, given.teams, postgres=given.postgres, automations=automations) as world:
        for fate in _fates(world, asked):
            bad += bool(fate.problems())
            _say(f"{fate.line()}\n")
    return 1 if bad else 0


def _fates(world: World, asked: list[tuple[str, str]]) -> Iterator[Fate]:
    """Yield what becomes of each case: those of a team's own side by side, the others in turn."""
    free = Queue[Lane]()
    for lane in world.lanes:
        free.put(lane)

    def fate(case: tuple[str, str]) -> Fate:
        lane = free.get()
        try:
            return died(lane, *case)
        finally:
            free.put(lane)

    with ThreadPoolExecutor(len(world.lanes)) as lanes:
        for done in as_completed(
            [lanes.submit(fate, case) for case in asked if case[1] not in SHARED]
        ):
            yield done.result()
    yield from (fate(case) for case in asked if case[1] in SHARED)


def _say(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
