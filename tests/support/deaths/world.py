"""All that a flow run depends on, each of which can die, and is there again soon after."""

from __future__ import annotations

import signal
import time
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, Self

import psutil
from sqlalchemy import make_url

from batchata_tasks.emulator import EmulatorProcess
from tests.support.postgres import Server as Postgres
from tests.support.postgres import binaries
from tests.support.prefect_server import Server
from tests.support.team import SPEC, Team
from tests.support.waiting import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

ROWS, BATCHES = 4000, 8
AWAY = 5.0
"""Seconds after which what died is there again, as a supervisor sees to it."""
_KUBERNETES = 30.0  # seconds between the request to end, and the end


class World:
    """A Prefect server with its database; teams that use it side by side."""

    def __init__(
        self, folder: Path, teams: int = 1, *, postgres: bool = False, automations: bool = True
    ) -> None:
        self._stack = ExitStack()
        self._folder, self._teams = folder, teams
        self._postgres, self.automations = postgres, automations
        self.database: Postgres | None = None
        self.lanes = list[Lane]()

    def __enter__(self) -> Self:
        home = self._folder / "prefect"
        home.mkdir(parents=True)
        settings = self._with_postgres() if self._postgres else {}
        self.server = self._stack.enter_context(Server(home, settings=settings))
        for number in range(self._teams):
            self.lanes.append(self._stack.enter_context(Lane(self, self._folder, f"team-{number}")))
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _with_postgres(self) -> dict[str, str]:
        found = binaries()
        assert found is not None, "there is no Postgres"
        self.database = self._stack.enter_context(Postgres(found))
        url = make_url(self.database.url(self.database.create()))
        asynchronous = url.set(drivername="postgresql+asyncpg")
        shown = asynchronous.render_as_string(hide_password=False)
        return {"PREFECT_SERVER_DATABASE_CONNECTION_URL": shown}


class Lane:
    """A team with its worker and its provider, all of which die apart from other teams'."""

    def __init__(self, world: World, folder: Path, name: str) -> None:
        self.world, self.server = world, world.server
        self._folder, self._name = folder / name, name
        self._stack = ExitStack()
        self._left = list[psutil.Process]()  # what a worker that was killed left running

    def __enter__(self) -> Self:
        self.emulator = self._stack.enter_context(EmulatorProcess(anonymous=True))
        self.team = self._deployed()
        self._stack.callback(self._end)
        self.team.start_worker(self._name)
        # before that, no run is suspended
        self.team.until(self._is_watched, PATIENCE)
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _deployed(self) -> Team:
        team = Team(self._folder, self.server, self.emulator, self._name)
        rows = "".join(
            f"package-{number},1.0,Does thing number {number}.\n" for number in range(ROWS)
        )
        (team.folder / "data/packages.csv").write_text(f"name,version,summary\n{rows}")
        limits = f"cost_limit_usd: 50\nitems_per_batch: {ROWS // BATCHES}"
        team.change(SPEC, r"cost_limit_usd: .*", limits)
        team.work_in(self._name)
        if not self.world.automations:
            team.without_automations()
        team.prefect("work-pool", "create", self._name, "--type", "process")
        team.prefect("--no-prompt", "deploy", "--all")
        return team

    def _is_watched(self) -> bool:
        """Whether a pass of `watch` has left its sign for the team's ledger."""
        ledgers = self.team.ledger.ask_ledger("SELECT ledger_id FROM meta")
        signs = {one["name"] for one in self.server.ask("variables/filter")}
        return any(f"batchata_watch_{ledger.lower()}" in signs for (ledger,) in ledgers)

    def _end(self) -> None:
        self.team.lose_worker()
        for process in self._left:
            with suppress(psutil.NoSuchProcess):
                process.kill()

    # --- deaths -----------------------------------------------------------------------------------

    def kill_engine(self, flow_run: str) -> None:
        """Kill the process that does a flow run."""
        for process in self.team.engines(flow_run):
            with suppress(psutil.NoSuchProcess):
                process.kill()

    def kill_worker(self, flow_run: str) -> None:
        """Kill the worker; its flow runs go on."""
        del flow_run
        assert self.team.process is not None
        self._left += psutil.Process(self.team.process.pid).children(recursive=True)
        self.team.lose_worker_alone()
        self._later(self._start_worker)

    def kill_both(self, flow_run: str) -> None:
        """Kill the worker and all that it runs, as if its machine lost its power."""
        del flow_run
        self.team.lose_worker()
        self._later(self._start_worker)

    def drain_worker(self, flow_run: str) -> None:
        """Ask worker and flow runs to end, and kill what is there after half a minute."""
        del flow_run
        assert self.team.process is not None
        worker = psutil.Process(self.team.process.pid)
        processes = [worker, *worker.children(recursive=True)]
        for process in processes:
            with suppress(psutil.NoSuchProcess):
                process.send_signal(signal.SIGTERM)
        self._later(self._start_worker)
        psutil.wait_procs(processes, timeout=_KUBERNETES - AWAY)
        for process in processes:
            with suppress(psutil.NoSuchProcess):
                process.kill()

    def kill_server(self, flow_run: str) -> None:
        """Kill the Prefect server."""
        del flow_run
        self.server.lose()
        self._later(self.server.start_again)

    def kill_database(self, flow_run: str) -> None:
        """Kill the database of the Prefect server."""
        del flow_run
        database = self.world.database
        assert database is not None
        database.stop(signal.SIGQUIT)
        self._later(database.start)

    def cancel(self, flow_run: str) -> None:
        """Cancel a flow run as a person does in the UI; nothing dies."""
        body = {"state": {"type": "CANCELLING"}}
        self.server.ask(f"flow_runs/{flow_run}/set_state", body)

    def _start_worker(self) -> None:
        self.team.start_worker(self.team.name)

    def _later(self, start: Callable[[], None]) -> None:
        time.sleep(AWAY)
        start()
