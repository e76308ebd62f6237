"""A data team with its copy of what the repository ships.

It is deployed to a server under a name of its own, with a worker.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import time
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import TYPE_CHECKING, Any

import psutil
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import VariableUpdate
from prefect.settings import PREFECT_API_URL, temporary_settings

from batchata_tasks.flows.watch_sign import leave_sign
from batchata_tasks.ledger import opened_ledger
from tests.support.commands import start
from tests.support.ledger_look import LedgerLook
from tests.support.paths import ROOT

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from batchata_tasks.emulator import Emulator, EmulatorProcess
    from tests.support.prefect_server import Server

SPEC = "deployments/specs/package-topics.yaml"
EVERY_MINUTE, NIGHTLY = "* * * * *", "0 3 * * *"
_FINAL = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")


class Team:
    """One copy of the repository's deployments, and the worker that runs them."""

    def __init__(
        self,
        folder: Path,
        server: Server,
        emulator: Emulator | EmulatorProcess,
        name: str = "package-topics",
    ) -> None:
        self.folder = folder
        self.server = server
        self.emulator = emulator
        self.name = name
        folder.mkdir(parents=True, exist_ok=True)
        for shipped in ("data", "deployments"):
            shutil.copytree(
                ROOT / shipped,
                folder / shipped,
                ignore=shutil.ignore_patterns("out", "__pycache__"),
            )
        shutil.copy2(ROOT / "prefect.yaml", folder)
        for file in (SPEC, "prefect.yaml"):
            self.change(file, r"(name: (&name )?)package-topics", rf"\g<1>{name}")
        self.env = {
            **server.env,
            **emulator.env(),
            "PWD": str(folder),
            "PYTHONPATH": str(ROOT),
            "BATCHATA_POLL_INTERVAL": "0.2",
            "BATCHATA_UNCLEAR_GRACE": "5",
        }
        self.process: subprocess.Popen[bytes] | None = None
        self._ledgers = count(1)
        self.begin_anew()

    def begin_anew(self) -> None:
        """Take an empty ledger, and no dataset; what was deployed stays."""
        output = self.folder / "data/out/package_topics"
        shutil.rmtree(output, ignore_errors=True)
        number = next(self._ledgers)
        self.ledger = LedgerLook(f"sqlite:///{self.folder / f'ledger{number}.db'}", output)
        self.env["BATCHATA_LEDGER_URL"] = self.ledger.ledger_url

    def change(self, file: str, pattern: str, to: str) -> None:
        """Change a file of the copy, as its team would by hand."""
        path = self.folder / file
        text, times = re.subn(pattern, to, path.read_text(encoding="utf-8"))
        assert times, f"{file} has no {pattern}"
        path.write_text(text, encoding="utf-8")

    def schedule(self, cron: str) -> None:
        """Set when runs are due."""
        self.change("prefect.yaml", r'cron: ".*"', f'cron: "{cron}"')

    def work_in(self, pool: str) -> None:
        """Use a work pool of its own, whose worker runs nobody else's runs."""
        self.change("prefect.yaml", r"(pool: &pool )local\b", rf"\g<1>{pool}")

    def without_automations(self) -> None:
        """Deploy no automations, so that nobody but `watch`, or the test, takes a lost run up."""
        self.change("prefect.yaml", r".*flows\.automations\.register.*\n", "")

    def prefect(self, *words: str) -> str:
        """Run the command `prefect` in the copy; return what it printed."""
        return self.server.command(*words, cwd=self.folder, env=self.env)

    def start_worker(self, pool: str) -> None:
        """Start a worker."""
        command = [sys.executable, "-m", "prefect", "worker", "start", "--pool", pool]
        with (self.folder / "worker.log").open("ab") as log:
            self.process = subprocess.Popen(
                command, cwd=self.folder, env=self.env, stdout=log, stderr=log
            )

    def lose_worker(self) -> None:
        """Kill the worker and all that it runs, as a machine that loses its power does."""
        if self.process is None:
            return
        worker = psutil.Process(self.process.pid)
        worker.suspend()  # so that it sees no flow run die, and starts none meanwhile
        for process in (*worker.children(recursive=True), worker):
            with suppress(psutil.NoSuchProcess):
                process.kill()
        self.process.wait()
        self.process = None

    def lose_worker_alone(self) -> None:
        """Kill the worker; what it runs goes on."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def engines(self, flow_run: str) -> list[psutil.Process]:
        """Return the processes of the worker that do a flow run."""
        found = list[psutil.Process]()
        if self.process is None:
            return found
        for process in psutil.Process(self.process.pid).children(recursive=True):
            with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
                if process.environ().get("PREFECT__FLOW_RUN_ID", "").replace("-", "") == (
                    flow_run.replace("-", "")
                ):
                    found.append(process)
        return found

    def deployment(self, flow: str) -> dict[str, Any]:
        """Return a deployment of the team's, as the server has it."""
        return self.server.get(f"deployments/name/{flow}/{self.name}")

    def begin(self, **parameters: Any) -> str:
        """Have a run of `enrich` scheduled for now; return its id."""
        body = {"parameters": parameters, "state": {"type": "SCHEDULED"}}
        deployed = self.deployment("enrich")["id"]
        return self.server.ask(f"deployments/{deployed}/create_flow_run", body)["id"]

    def execute(self, flow_run: str) -> tuple[dict[str, Any], str]:
        """Do a flow run as a worker does; return it as the server has it then, and what it said."""
        words = ("-m", "prefect", "flow-run", "execute", flow_run)
        done = start(*words, cwd=self.folder, env=self.env).wait()
        assert "Traceback" not in done.stderr, done.stderr
        return self.server.get(f"flow_runs/{flow_run}"), done.stdout + done.stderr

    def watch_every_minute(self) -> None:
        """Leave the sign of a scheduled pass of `watch`, where no worker does one."""
        with (
            opened_ledger(self.ledger.ledger_url) as ledger,
            temporary_settings({PREFECT_API_URL: self.server.url}),
        ):
            leave_sign(ledger.id, ())

    def watch_no_more(self) -> None:
        """Let the sign of `watch` be an hour old."""
        ((ledger,),) = self.ledger.ask_ledger("SELECT ledger_id FROM meta")
        looked_at = datetime.now(UTC) - timedelta(hours=1)
        value = {"looked_at": looked_at.isoformat(), "cannot_see_runs": []}
        with (
            temporary_settings({PREFECT_API_URL: self.server.url}),
            get_client(sync_client=True) as client,
        ):
            name = f"batchata_watch_{ledger.lower()}"
            client.update_variable(VariableUpdate(name=name, value=value))

    def runs(self) -> list[dict[str, Any]]:
        """Return the runs of `enrich` that have begun, the oldest first."""
        wanted = {
            "deployments": {"id": {"any_": [self.deployment("enrich")["id"]]}},
            "sort": "EXPECTED_START_TIME_ASC",
        }
        return [
            run
            for run in self.server.ask("flow_runs/filter", wanted)
            if run["start_time"] is not None
        ]

    def ended(self) -> list[dict[str, Any]]:
        """Return the runs that have ended."""
        return [run for run in self.runs() if run["state_type"] in _FINAL]

    def states(self, run: dict[str, Any]) -> list[str]:
        """Return the names of the states that a run went through, in order."""
        states = self.server.get(f"flow_run_states/?flow_run_id={run['id']}")
        return [state["name"] for state in sorted(states, key=lambda state: state["timestamp"])]

    def log(self, run: dict[str, Any]) -> str:
        """Return what a run logged."""
        lines = self.server.ask(
            "logs/filter", {"logs": {"flow_run_id": {"any_": [run["id"]]}}, "sort": "TIMESTAMP_ASC"}
        )
        return "\n".join(line["message"] for line in lines)

    def until(self, look: Callable[[], Any], seconds: float, every: float = 1.0) -> Any:
        """Call `look` until it returns something, and return that."""
        deadline = time.monotonic() + seconds
        while not (found := look()):
            if time.monotonic() > deadline:
                told = [
                    (run["name"], run["state_name"], run["state"]["message"]) for run in self.runs()
                ]
                message = (
                    f"not within {seconds} s; runs: {json.dumps(told)}; worker: "
                    f"{(self.folder / 'worker.log').read_text()[-3000:]}"
                )
                raise TimeoutError(message)
            time.sleep(every)
        return found
