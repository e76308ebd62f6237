"""What waiting costs: flow runs whose batches take hours, on one worker that runs one at a time.

    python benchmarks/waiting.py [--runs 10] [--hours 6] [--idle 200] [--open 200]

Starts a Prefect server and a worker with a limit of 1, deploys what the repository ships, and
starts the runs at once, each on a table of its own. Hours pass by the emulator's clock alone, when
all is sent that can be. First the runs are suspended, then others wait in their processes. Measures
passes of `watch` in one process as well: with nothing open, and with many open batches. Prints
Markdown. Run it from the repository's root, with that on PYTHONPATH.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

from batchata_tasks.common.settings import Settings
from batchata_tasks.emulator import Emulator, EmulatorProcess
from batchata_tasks.execution.held_dataset import LettingGo, SuspendedRunError
from batchata_tasks.operations.watch import watch
from batchata_tasks.pipeline.enrich import run_prepared
from batchata_tasks.planning.prepare import prepare_run
from batchata_tasks.spec.loading import parse_spec
from tests.support.prefect_server import Server
from tests.support.team import SPEC, Team

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_HOUR = 3600.0
_DAY_OF_PASSES = 1440
_POOL = "one"
_PATIENCE = 1500.0  # seconds until a state that does not come is an error
_HEAD = (
    "| wait | completed | until all ended (emulator's clock) | a run holds the slot, waiting "
    "| a run holds the slot, at work | passes of watch | each holds the slot | wall |"
)
_BUSY = ("PENDING", "RUNNING", "CANCELLING")  # states in which a run holds a worker's slot


@dataclass(frozen=True)
class Waited:
    """How runs waited: all in seconds, `hours` by the emulator's clock."""

    wait: str
    completed: int
    wall: float
    slot: float  # of runs of `enrich`
    passes: int
    slot_of_passes: float
    hours: float  # until the last run ended
    slot_hours: float  # in which a waiting run held the slot


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--runs", type=int, default=10)
    parser.add_argument("--hours", type=float, default=6)
    parser.add_argument("--idle", type=int, default=200, help="idle passes that are measured")
    parser.add_argument("--open", type=int, default=200, help="open batches")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        waited = [
            waiting(Path(folder) / wait, wait, given.runs, given.hours)
            for wait in ("suspend", "process")
        ]
        sys.stdout.write(table(waited, given.runs, given.hours))
        for line in passes(Path(folder) / "passes", given.idle, given.open):
            sys.stdout.write(f"- {line}\n")


def table(waited: list[Waited], runs: int, hours: float) -> str:
    """Return what was measured of the runs, as Markdown."""
    lines = [
        f"{runs} runs, batches that take {hours:g} hours, one worker that runs one at a time:",
        "",
        _HEAD,
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    lines += [
        f"| {one.wait} | {one.completed} | {one.hours:.0f} h | {one.slot_hours / runs:.1f} h "
        f"| {one.slot / runs:.0f} s | {one.passes} "
        f"| {one.slot_of_passes / max(one.passes, 1):.0f} s | {one.wall:.0f} s |"
        for one in waited
    ]
    return "\n".join([*lines, "", ""])


def waiting(folder: Path, wait: str, runs: int, hours: float) -> Waited:
    """Run so many flow runs on one worker; return how they waited."""
    folder.mkdir()
    (folder / "server").mkdir()
    with Server(folder / "server") as server, EmulatorProcess(anonymous=True) as emulator:
        emulator.control.progress("seconds", hours * _HOUR)
        team = Team(folder / "team", server, emulator)
        team.work_in(_POOL)
        team.prefect("work-pool", "create", _POOL, "--type", "process")
        team.prefect("work-pool", "set-concurrency-limit", _POOL, "1")
        team.prefect("--no-prompt", "deploy", "--all")
        team.start_worker(_POOL)
        try:
            return _measured(team, wait, runs, hours)
        finally:
            team.lose_worker()


def _measured(team: Team, wait: str, runs: int, hours: float) -> Waited:
    if wait == "suspend":  # a run that begins before the first pass would wait in its process
        team.until(lambda: team.server.ask("variables/filter"), _PATIENCE)
    began, ids = time.monotonic(), [_started(team, wait, number) for number in range(runs)]
    passed = slot_hours = 0.0
    while (states := _states(team, ids)).count("Completed") < runs:
        if time.monotonic() - began > _PATIENCE:
            message = f"not within {_PATIENCE:.0f} s: {states}"
            raise TimeoutError(message)
        waits = _waits(team, states, wait)
        if waits:
            team.emulator.control.advance(hours * _HOUR + 1)
            passed += hours
            slot_hours += hours if wait == "process" else 0
            team.until(lambda before=states: _states(team, ids) != before, _PATIENCE)
        time.sleep(1)
    wall = time.monotonic() - began
    watches = _runs_of(team, "watch")
    return Waited(
        wait=wait,
        completed=states.count("Completed"),
        wall=wall,
        slot=sum(_busy(team, team.server.get(f"flow_runs/{one}")) for one in ids),
        passes=len(watches),
        slot_of_passes=sum(_busy(team, one) for one in watches),
        hours=passed,
        slot_hours=slot_hours,
    )


def _started(team: Team, wait: str, number: int) -> str:
    overrides = {"output": f"data/out/{number}", "name": f"table-{number}", "pilot": False}
    return team.begin(spec=SPEC, overrides=overrides, wait=wait)


def _states(team: Team, ids: list[str]) -> list[str]:
    return [team.server.get(f"flow_runs/{one}")["state_name"] for one in ids]


def _waits(team: Team, states: list[str], wait: str) -> bool:
    """Whether nothing happens before hours have passed."""
    if wait == "suspend":
        return set(states) <= {"Suspended", "Completed"} and "Suspended" in states
    books = team.emulator.control.ledger()["anthropic"]["batches"]
    return any(batch["status"] != "ended" for batch in books)


def _runs_of(team: Team, flow: str) -> list[dict[str, Any]]:
    wanted = {"flows": {"name": {"any_": [flow]}}, "limit": 200}
    return [run for run in team.server.ask("flow_runs/filter", wanted) if run["start_time"]]


def _busy(team: Team, run: dict[str, Any]) -> float:
    """Return for how many seconds a flow run held a worker's slot."""
    states = team.server.get(f"flow_run_states/?flow_run_id={run['id']}")
    moments = sorted((datetime.fromisoformat(one["timestamp"]), one["type"]) for one in states)
    return sum(
        (after - at).total_seconds()
        for (at, kind), (after, _) in pairwise(moments)
        if kind in _BUSY
    )


def passes(folder: Path, idle: int, batches: int) -> Iterator[str]:
    """Yield what passes of `watch` cost in a process that stays."""
    folder.mkdir()
    with Emulator() as emulator, _settings(emulator, folder):
        yield _cost("nothing open", idle, lambda: watch(Settings()).calls)
        emulator.control.progress("seconds", 24 * _HOUR)
        spec = _spec(folder, batches)
        try:
            run_prepared(prepare_run(spec, Settings()), letting_go=LettingGo(0))
        except SuspendedRunError:
            yield _cost(f"{batches} open batches", 20, lambda: watch(Settings()).calls)


@contextmanager
def _settings(emulator: Emulator, folder: Path) -> Iterator[None]:
    ledger = f"sqlite:///{folder / 'ledger.db'}"
    with patch.dict(os.environ, {**emulator.env(), "BATCHATA_LEDGER_URL": ledger}):
        yield


def _spec(folder: Path, batches: int) -> Any:
    table = folder / "table.csv"
    table.write_text("id,text\n" + "".join(f"{n},text {n}\n" for n in range(batches)))
    return parse_spec(
        {
            "spec_version": 1,
            "name": "many",
            "source": str(table),
            "key": "id",
            "model": "claude-haiku-5-5",
            "prompt": "{{ text }}",
            "columns": ["text"],
            "max_tokens": 50,
            "items_per_batch": 1,
            "max_parallel_batches": batches,
            "pilot": False,
            "output": str(folder / "out"),
        }
    )


def _cost(what: str, times: int, look: Callable[[], int]) -> str:
    """Return what a pass costs, and a day of them."""
    look()
    cpu, wall = time.process_time(), time.monotonic()
    calls = sum(look() for _ in range(times))
    cpu, wall = (time.process_time() - cpu) / times, (time.monotonic() - wall) / times
    return (
        f"a pass with {what}: {cpu * 1000:.1f} ms CPU, {wall * 1000:.0f} ms, {calls / times:g} "
        f"calls of the provider; a day of passes: {cpu * _DAY_OF_PASSES:.0f} s CPU, "
        f"{calls / times * _DAY_OF_PASSES:.0f} calls"
    )


if __name__ == "__main__":
    main()
