"""A Prefect server of the tests' own, on loopback, with a home of its own."""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import urllib.request
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Self
from urllib.error import HTTPError

from tests.support.commands import start
from tests.support.waiting import PATIENCE, until

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

QUIET = {
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PYTHONWARNINGS": "ignore",
    "PREFECT_WORKER_QUERY_SECONDS": "2",
    "PREFECT_CLI_COLORS": "false",
}
_FINAL = {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"}


def migrated_database(folder: Path) -> Path:
    """Return an empty database of Prefect, made in a folder once, whoever asks first.

    Making one takes a server longer than all that the tests ask of it.
    """
    made = folder / "prefect.db"
    with (folder / "prefect.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not made.exists():
            home = folder / "prefect-home"
            environment = {**os.environ, **QUIET, "PREFECT_HOME": str(home)}
            command = [sys.executable, "-m", "prefect", "server", "database", "upgrade", "-y"]
            subprocess.run(command, env=environment, check=True, capture_output=True)
            (home / made.name).rename(made)
    return made


def give_database(database: Path, prefect_home: Path) -> None:
    """Let a server whose PREFECT_HOME this is begin with a copy of a database."""
    prefect_home.mkdir(exist_ok=True)
    shutil.copy(database, prefect_home)


def _answered(request: urllib.request.Request) -> tuple[Any] | None:
    """Return the answer to a request; None if the server's database is busy."""
    try:
        with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
            return (json.load(answer),)
    except HTTPError as error:
        if error.code != HTTPStatus.SERVICE_UNAVAILABLE:
            raise
        return None


class Server:
    """A Prefect server of our own: its URL, the environment to reach it, and calls of its API."""

    def __init__(
        self, home: Path, database: Path | None = None, settings: Mapping[str, str] | None = None
    ) -> None:
        self.home = home
        if database is not None:
            give_database(database, home / ".prefect")
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}/api"
        environment = {
            k: v
            for k, v in os.environ.items()
            if not k.startswith(("PREFECT_", "ANTHROPIC_", "OPENAI_", "BATCHATA_"))
        }
        self.env = {
            **environment,
            **QUIET,
            "HOME": str(home),
            "PREFECT_HOME": str(home / ".prefect"),
            "PREFECT_API_URL": self.url,
            **(settings or {}),
        }
        self.process = self._started()

    def _started(self) -> subprocess.Popen[bytes]:
        command = [
            sys.executable,
            "-m",
            "prefect",
            "server",
            "start",
            "--host",
            "127.0.0.1",
            "--port",
            str(self.port),
        ]
        with (self.home / "server.log").open("a") as log:
            return subprocess.Popen(command, env=self.env, stdout=log, stderr=log)

    def lose(self) -> None:
        """Kill the server, as a machine that loses its power does."""
        self.process.kill()
        self.process.wait()

    def start_again(self) -> None:
        """Start the server once more, at the same address and with the same database."""
        self.process = self._started()
        self.wait()

    def wait(self) -> None:
        until(self._answers, every=0.3)

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/health", timeout=PATIENCE):
                return True
        except OSError:
            assert self.process.poll() is None, "the Prefect server did not start"
            return False

    def ask(self, path: str, body: dict[str, Any] | None = None) -> Any:
        request = urllib.request.Request(
            f"{self.url}/{path}",
            json.dumps(body or {}).encode(),
            {"content-type": "application/json"},
        )
        return until(lambda: _answered(request), every=0.5)[0]

    def get(self, path: str) -> Any:
        request = urllib.request.Request(f"{self.url}/{path}")
        return until(lambda: _answered(request), every=0.5)[0]

    def command(self, *words: str, cwd: Path, env: Mapping[str, str] | None = None) -> str:
        """Run the command `prefect` against this server; return what it printed."""
        done = start("-m", "prefect", *words, cwd=cwd, env={**self.env, **(env or {})}).wait()
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def errors(self) -> list[str]:
        """Return the errors that the server logged, each with its traceback.

        A SQLite file that is locked for too long is left out: it happens to the server on a busy
        machine, at a worker's heartbeat, say, and it tries again.
        """
        log = (self.home / "server.log").read_text(encoding="utf-8")
        entries = re.split(r"^(?=\d\d:\d\d:\d\d\.\d+ \| )", log, flags=re.MULTILINE)
        errors = [entry for entry in entries if "ERROR" in entry or "Traceback" in entry]
        return [error for error in errors if "database is locked" not in error]

    def last_flow_run(self) -> dict[str, Any]:
        """Return the flow run that began last, passes of `watch` aside: one is due each minute."""
        begun = {"start_time": {"is_null_": False}}
        wanted = {"sort": "START_TIME_DESC", "limit": 20, "flow_runs": begun}
        runs = self.ask("flow_runs/filter", wanted)
        return next(run for run in runs if "batchata-watch" not in run["tags"])

    def task_runs(self, flow_run_id: str, number: int) -> list[dict[str, Any]]:
        """Return the task runs of a flow run that has `number` of them, once all have ended.

        The server stores them, one by one, a little later than they happen.
        """
        wanted = {"flow_runs": {"id": {"any_": [flow_run_id]}}}

        def all_ended() -> list[dict[str, Any]]:
            runs = self.ask("task_runs/filter", wanted)
            ended = [run for run in runs if run["state_type"] in _FINAL]
            return runs if len(ended) == len(runs) >= number else []

        return until(all_ended, every=0.3)

    def __enter__(self) -> Self:
        try:
            self.wait()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
