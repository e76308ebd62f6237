"""Batch scripts that are killed and started again, for as long as you like.

`python -m tests.support.recovery.scripts --provider openai --kills 20 --seed 1`

Run it from the project folder. Each scenario is one script with the same jobs; it is killed at
drawn moments, with faults at the provider, and started again until it ends. Then each job has its
own answer, and none was accepted twice.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from batchata_tasks.emulator import EmulatorProcess, answer_text
from tests.support.commands import start
from tests.support.request_files import sent_bodies
from tests.support.waiting import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Iterable

    from batchata_tasks.emulator import Emulator
    from tests.support.commands import Process

MODELS = {"anthropic": "claude-haiku-5-5", "openai": "gpt-6-luna"}
FAULTS: dict[str, tuple[float, dict[str, Any]]] = {
    "http_500_after": (0.15, {}),
    "drop_after": (0.15, {}),
    "http_429": (0.1, {"route": "create", "retry_after": 0.2}),
    "cut_download": (0.2, {"after_bytes": 1500}),
}
HELD = "TEST_HELD"  # a script that finds this in its environment does not end by itself
SCRIPT = """
import json, os, sys, time
from pydantic import BaseModel
from batchata_tasks import Batch

class Label(BaseModel):
    word: str
    score: int

model, jobs, per_batch = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
batch = Batch("out", items_per_batch=per_batch).set_default_params(model=model, max_tokens=60)
batch.set_state("state.json").add_cost_limit(5)
for number in range(jobs):
    label = Label if number % 2 else None
    batch.add_job(id=str(number), prompt=f"text of job {number}", response_model=label)
run = batch.run()
results = {
    name: [result.response, result.error, result.is_success()]
    for name, result in run.results().items()
}
print(json.dumps(results))
if "TEST_HELD" in os.environ:
    time.sleep(600)
"""


@dataclass
class Killed:
    """The result of scenarios."""

    kills: int = 0
    starts: int = 0
    jobs: int = 0
    problems: list[str] = field(default_factory=list[str])

    def __str__(self) -> str:
        problems = "".join(f"\n  {problem}" for problem in self.problems)
        return (
            f"{self.kills} kills in {self.starts} starts, {self.jobs} jobs checked, "
            f"{len(self.problems)} problems{problems}"
        )


class Script:
    """One script in a folder of its own."""

    def __init__(
        self, folder: Path, emulator: Emulator | EmulatorProcess, provider: str, jobs: int
    ) -> None:
        folder.mkdir(parents=True)
        self.folder = folder
        self.emulator = emulator
        self.provider = provider
        self.jobs = jobs
        emulator.control.reset()
        emulator.control.progress("seconds", 0.4)

    def start(self, *, held: bool = False) -> Process:
        """Start it; if `held`, it goes on until it is killed, however fast its run is."""
        environment = {
            **({HELD: "1"} if held else {}),
            "BATCHATA_LEDGER_URL": f"sqlite:///{self.folder / 'ledger.db'}",
            "BATCHATA_POLL_INTERVAL": "0.05",
            "BATCHATA_UNCLEAR_GRACE": "1",
            "BATCHATA_LEASE_SECONDS": "2",
            "BATCHATA_PATIENCE": "10",
            **self.emulator.env(),
        }
        words = (MODELS[self.provider], str(self.jobs), str(max(self.jobs // 3, 1)))
        return start("-c", SCRIPT, *words, cwd=self.folder, env=environment)

    def check(self, results: dict[str, list[Any]]) -> list[str]:
        """Return the problems after the last start."""
        book = self.emulator.control.ledger(detail=True)[self.provider]
        problems = (
            [f"accepted twice: {book['accepted_twice']}"]
            if book["accepted_twice"]["number"]
            else []
        )
        if set(results) != {str(number) for number in range(self.jobs)}:
            problems.append(f"{len(results)} results for {self.jobs} jobs")
        bodies = self._bodies()
        for name, (text, error, success) in results.items():
            body = next(
                (
                    body
                    for body in bodies
                    if body["messages"][0]["content"] == f"text of job {name}"
                ),
                None,
            )
            if not success or body is None or text != answer_text(self.provider, body):
                problems.append(f"job {name}: {error or 'not its own answer'}: {text[:60]}")
        return problems

    def _bodies(self) -> list[dict[str, Any]]:
        return list(sent_bodies(self.folder / "out").values())


def scenario(script: Script, rng: random.Random, kills: int, tally: Killed) -> None:
    """Kill a script this number of times, at drawn moments, and let it end."""
    for kind, (probability, knobs) in FAULTS.items():
        script.emulator.control.faults(
            kind=kind, probability=probability, seed=rng.randrange(1 << 30), **knobs
        )
    left, began = kills, time.monotonic()
    while True:
        process = script.start(held=left > 0)
        tally.starts += 1
        try:
            process.wait(rng.uniform(0.2, 2.0) if left else PATIENCE)
        except TimeoutError:  # it was killed
            tally.kills += 1
            left -= 1
            continue
        if process.returncode == 0:
            break
        if time.monotonic() - began > PATIENCE:
            tally.problems.append(f"{script.folder}: did not end: {process.stderr[-300:]}")
            return
    tally.jobs += script.jobs
    tally.problems += [
        f"{script.folder}: {problem}"
        for problem in script.check(json.loads(process.stdout.splitlines()[-1]))
    ]


def main(arguments: Iterable[str] | None = None) -> int:
    """Do what the options say and print the result."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.support.recovery.scripts", description=__doc__
    )
    parser.add_argument("--provider", choices=list(MODELS), default="anthropic")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=60)
    given = parser.parse_args(None if arguments is None else list(arguments))
    folder = Path(tempfile.mkdtemp(prefix="batchata-scripts-"))
    tally = Killed()
    number = 0
    with EmulatorProcess(anonymous=True) as emulator:
        while tally.kills < given.kills:
            rng = random.Random(f"{given.seed} {number}")
            scenario(
                Script(folder / str(number), emulator, given.provider, given.jobs), rng, 4, tally
            )
            sys.stderr.write(f"scenario {number}: {tally}\n")
            number += 1
    sys.stdout.write(f"folders: {folder}\n{tally}\n")
    return 1 if tally.problems else 0


if __name__ == "__main__":
    raise SystemExit(main())
