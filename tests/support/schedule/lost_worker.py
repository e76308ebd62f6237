"""Lost workers: kill worker and flow run at once, in each stage of a run.

`python -m tests.support.schedule.lost_worker --rounds 3`

Run it from the project folder; a round takes about five minutes. It shows which run of the schedule
takes the lost one up. The stages run side by side, each with its own copy of the deployments, its
own ledger, emulator and worker, all on one Prefect server.
"""

from __future__ import annotations

import argparse
import csv
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow.parquet as pq

from batchata_tasks.emulator import EmulatorProcess
from tests.support.prefect_server import Server
from tests.support.team import EVERY_MINUTE, NIGHTLY, SPEC, Team

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

# a run's stage in the ledger, and how many seconds a batch takes at the provider meanwhile
STAGES = {
    "planning": ("planning", 1.0),
    "submitting": ("sending", 1.0),
    "polling": ("polling", 30.0),
    "landing": ("landing", 1.0),
}
ROWS = 4000
WITHIN = 180.0  # seconds in which a later run must have carried on
_AWAY = 3.0  # seconds after which the next worker is there


@dataclass(frozen=True)
class Found:
    """The fate of a lost worker's run; times are in seconds from the kill."""

    stage: str
    lost: str  # the states of the run that was lost
    taken_up_by: str
    after: float
    landed_after: float
    rows: int
    accepted_twice: int
    told: str

    @property
    def problems(self) -> list[str]:
        """Return the problems of one stage."""
        wrong = {
            f"landed after {self.landed_after:.0f} s": self.landed_after > WITHIN,
            f"{self.rows} rows": self.rows != ROWS,
            f"{self.accepted_twice} accepted twice": self.accepted_twice,
            "the run was not called crashed": "Crashed" not in self.lost,
            "nobody was told": "was lost" not in self.told,
        }
        return [text for text, holds in wrong.items() if holds]


def lost_worker(team: Team, stage: str, cron: str = EVERY_MINUTE) -> Found:
    """Deploy a team, lose its worker in a stage of its first run, and start another worker.

    Returns who took the run up.
    """
    _prepare(team, stage, cron)
    team.start_worker(team.name)
    if cron != EVERY_MINUTE:
        team.prefect("deployment", "run", f"enrich/{team.name}")
    wanted = STAGES[stage][0]
    team.until(lambda: team.ledger.stages()[wanted], 150, every=0.002)
    team.lose_worker()
    killed = time.time()
    (first,) = team.runs()
    time.sleep(_AWAY)
    team.start_worker(team.name)
    landed = team.until(lambda: _landed(team), 2 * WITHIN)
    taker = landed if landed["id"] != first["id"] else team.until(lambda: _again(team, first), 10)
    team.until(
        lambda: "Crashed" in team.states(first) and all(run["end_time"] for run in team.runs()[:2]),
        2 * WITHIN,
    )
    book = team.emulator.control.ledger()["anthropic"]
    return Found(
        stage,
        " > ".join(team.states(first)),
        "the same run" if taker["id"] == first["id"] else "a later run of the schedule",
        _moment(taker["state_start"] if "state_start" in taker else taker["start_time"]) - killed,
        _moment(landed["end_time"]) - killed,
        pq.read_table(team.ledger.output / "data").num_rows,
        book["accepted_twice"]["number"],
        next((line for line in team.log(landed).splitlines() if "was lost" in line), ""),
    )


def _prepare(team: Team, stage: str, cron: str) -> None:
    with (team.folder / "data/packages.csv").open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(["name", "version", "summary"])
        writer.writerows(
            [f"package-{number}", "1.0", f"Does thing number {number}."] for number in range(ROWS)
        )
    team.change(SPEC, r"cost_limit_usd: .*", "cost_limit_usd: 50\nitems_per_batch: 500")
    team.emulator.control.progress("seconds", STAGES[stage][1])
    if stage == "submitting":
        team.emulator.control.faults(kind="slow_after", seconds=0.2)
    team.schedule(cron)
    team.work_in(team.name)
    team.prefect("work-pool", "create", team.name, "--type", "process")
    team.prefect("--no-prompt", "deploy", "--all")


def _landed(team: Team) -> dict[str, Any] | None:
    """Return the first run that ended with all rows there, if one has."""
    return next((run for run in team.ended() if run["state_name"] == "Completed"), None)


def _again(team: Team, run: dict[str, Any]) -> dict[str, Any] | None:
    """Return the lost run with the time of its second start, once the server has it."""
    states = [
        state
        for state in team.server.get(f"flow_run_states/?flow_run_id={run['id']}")
        if state["name"] == "Running"
    ]
    return (
        {**run, "state_start": max(state["timestamp"] for state in states)}
        if len(states) > 1
        else None
    )


def _moment(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def main(arguments: Iterable[str] | None = None) -> int:
    """Do what the options say; print a line for each lost worker."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.support.schedule.lost_worker", description=__doc__
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--stages", nargs="+", default=list(STAGES), choices=list(STAGES))
    parser.add_argument(
        "--nightly", action="store_true", help="no run is due for hours: only the automations help"
    )
    given = parser.parse_args(None if arguments is None else list(arguments))
    folder, bad = Path(tempfile.mkdtemp(prefix="batchata-lost-")), 0
    home = folder / "prefect"
    home.mkdir()
    with Server(home) as server:
        for found in _rounds(given, folder, server):
            bad += bool(found.problems)
            sys.stdout.write(f"{found}\n  {'; '.join(found.problems) or 'well'}\n")
            sys.stdout.flush()
    sys.stdout.write(f"folders: {folder}\n")
    return 1 if bad else 0


def _rounds(given: argparse.Namespace, folder: Path, server: Server) -> Iterator[Found]:
    for number in range(given.rounds):

        def lane(stage: str, number: int = number) -> Found:
            with EmulatorProcess(anonymous=True) as emulator:
                team = Team(folder / f"{stage}-{number}", server, emulator, f"{stage}-{number}")
                try:
                    return lost_worker(team, stage, NIGHTLY if given.nightly else EVERY_MINUTE)
                finally:
                    team.lose_worker()
                    team.prefect("deployment", "delete", f"enrich/{team.name}")

        with ThreadPoolExecutor(len(given.stages)) as lanes:
            yield from lanes.map(lane, given.stages)


if __name__ == "__main__":
    sys.exit(main())
