"""What `batchata init` writes is deployed as it stands, beside another team's."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import pyarrow.parquet as pq
import pytest

from tests.support.commands import batchata
from tests.support.paths import ROOT
from tests.support.prefect_server import Server

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from batchata_tasks.emulator import Emulator

pytestmark = [pytest.mark.slow, pytest.mark.nights]
FLOWS = ("enrich", "plan", "cancel", "reconcile")
AUTOMATIONS = (
    "crash-lost-runs",
    "carry-on-crashed-runs",
    "start-runs-lost-before-they-began",
    "tell-that-nobody-watches",
    "pause-at-the-cost-limit",
)


@pytest.fixture
def server(tmp_path: Path, prefect_database: Path) -> Iterator[Server]:
    (tmp_path / "prefect").mkdir()
    with Server(tmp_path / "prefect", prefect_database) as running:
        yield running


def env_of(server: Server, emulator: Emulator, folder: Path) -> dict[str, str]:
    settings = {
        "PWD": str(folder),
        "PYTHONPATH": str(ROOT),
        "BATCHATA_POLL_INTERVAL": "0.2",
        "BATCHATA_LEDGER_URL": os.environ["BATCHATA_LEDGER_URL"],
    }
    return {**server.env, **emulator.env(), **settings}


def team(folder: Path, *words: str) -> Path:
    """Write a table and what `batchata init` makes of it."""
    folder.mkdir()
    rows = "".join(f"{i},text {i}\n" for i in range(25))
    (folder / "tickets.csv").write_text(f"id,text\n{rows}")
    done = batchata("init", "tickets.csv", *words, "--yes", cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder


@contextmanager
def worker(folder: Path, env: dict[str, str]) -> Iterator[None]:
    """Run a worker that was started in a folder of its own."""
    command = [sys.executable, "-m", "prefect", "worker", "start", "--pool", "local"]
    with (
        (folder / "worker.log").open("wb") as log,
        subprocess.Popen(command, cwd=folder, env=env, stdout=log, stderr=log) as process,
    ):
        try:
            yield
        finally:
            # one that is starting a pass of `watch` at that moment may go on after the first signal
            while process.poll() is None:
                process.terminate()
                with suppress(subprocess.TimeoutExpired):
                    process.wait(10)


def test_two_teams_deploy_what_was_written(
    server: Server, emulator: Emulator, tmp_path: Path
) -> None:
    """Two folders are deployed to one server, and each one's runs work in its own folder.

    There is no flows/ in them, the second takes nothing of the first over, and nor does a second
    spec in the first folder. Another project with a spec of the same name is refused. A run keeps
    the name that somebody gave it.
    """
    first = team(tmp_path / "first")
    second = team(tmp_path / "second", "--name", "second-tickets", "--model", "gpt-6-luna")
    server.command("work-pool", "create", "local", "--type", "process", cwd=tmp_path)
    for folder in (first, second):
        env = env_of(server, emulator, folder)
        server.command("--no-prompt", "deploy", "--all", cwd=folder, env=env)
    assert batchata("init", "tickets.csv", "--name", "more", "--yes", cwd=first).returncode == 0
    words = ("--no-prompt", "deploy", "--all", "--prefect-file", "prefect.more.yaml")
    server.command(*words, cwd=first, env=env_of(server, emulator, first))
    assert len(server.ask("deployments/filter")) == 13
    names = [one["name"] for one in server.ask("automations/filter")]
    assert sorted(names) == sorted(AUTOMATIONS)  # each once, although three files were deployed
    for folder, name in ((first, "tickets"), (second, "second-tickets"), (first, "more")):
        for flow in FLOWS:
            deployed = server.get(f"deployments/name/{flow}/{name}")
            (step,) = deployed["pull_steps"]
            (place,) = step.values()
            assert place["directory"] == str(folder)
            assert deployed["entrypoint"] == f"batchata_tasks.flows.{flow}.{flow}"
            assert not any(schedule["active"] for schedule in deployed["schedules"])

    third = team(tmp_path / "third")
    before = server.ask("deployments/filter")
    words = [sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all"]
    env = env_of(server, emulator, third)
    taken = subprocess.run(words, cwd=third, env=env, check=False, capture_output=True, text=True)
    assert taken.returncode == 1
    assert "enrich/tickets on this Prefect server is another project's" in taken.stderr
    assert f"(it works in {first}): nothing was deployed." in taken.stderr
    assert "Traceback" not in taken.stderr + taken.stdout
    assert server.ask("deployments/filter") == before
    moved = tmp_path / "moved"  # the same project, checked out elsewhere
    shutil.copytree(first, moved)
    for folder in (moved, first):
        env = env_of(server, emulator, folder)
        server.command("--no-prompt", "deploy", "--all", cwd=folder, env=env)
        (step,) = server.get("deployments/name/enrich/tickets")["pull_steps"]
        assert str(folder) in str(step)

    def run(deployment: str, *words: str) -> dict[str, Any]:
        server.command("deployment", "run", deployment, "--watch", *words, cwd=tmp_path)
        return server.last_flow_run()

    with worker(tmp_path, env_of(server, emulator, tmp_path)):
        given = run("enrich/tickets", "--flow-run-name", "first try")
        drawn = run("enrich/second-tickets")
        planned = run("plan/tickets")
    for done, name in ((given, "first try"), (drawn, "enrich second-tickets")):
        assert (done["state_name"], done["name"]) == ("Completed", name), done["state"]
        assert "25 succeeded" in done["state"]["message"]
    assert planned["state_name"] == "Completed"
    for folder in (first, second):
        (output,) = (folder / "out").iterdir()
        assert pq.read_table(output / "data").num_rows == 25
