"""Flow runs whose heavy work is done by workers: processes of a pool, Dask's, Ray's."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import psutil
import pytest
import yaml

from tests.support import commands
from tests.support.paths import ROOT
from tests.support.table import Table
from tests.support.waiting import PATIENCE, until

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from batchata_tasks.emulator import Emulator
    from tests.support.prefect_server import Server

PACKAGES = {"dask": "prefect_dask", "ray": "prefect_ray"}
MARK = "BATCHATA_TEST_MARK"  # a variable by whose value all processes of a test are known
MODEL = """
import os
import signal
import time
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, field_validator

FOLDER = Path(__file__).parent


class Label(BaseModel):
    label: Literal["x", "y", "z"]

    @field_validator("label")
    @classmethod
    def _asked(cls, value: str) -> str:
        done_by = FOLDER / "done_by"
        is_first = not done_by.exists()
        with done_by.open("a") as stream:
            stream.write(f"{os.getpid()}\\n")
        if is_first and (FOLDER / "die").exists():
            os.kill(os.getpid(), signal.SIGKILL)
        while (FOLDER / "wait").exists():
            time.sleep(0.05)
        return value
"""


@pytest.fixture
def table(emulator: Emulator, tmp_path: Path) -> Table:
    """Return a table whose answers a class in a file checks."""
    (tmp_path / "models.py").write_text(MODEL)
    return Table(tmp_path, emulator, "anthropic", rows=12)


def write_spec(table: Table, **changes: Any) -> Path:
    path = table.folder / "spec.yaml"
    model = {"response_schema": None, "response_model": f"{table.folder / 'models.py'}:Label"}
    spec = table.spec(**{**model, "items_per_batch": 4, **changes})
    path.write_text(yaml.safe_dump(spec.model_dump(mode="json", exclude_unset=True)))
    return path


def env_of(server: Server, table: Table, kind: str) -> dict[str, str]:
    ours = {k: v for k, v in os.environ.items() if k.startswith("BATCHATA_")}
    return {
        **server.env,
        **table.emulator.env(),
        **ours,
        MARK: str(table.folder),
        "BATCHATA_CODE_ROOTS": str(table.folder),
        "BATCHATA_TASK_RUNNER": kind,
        "PYTHONPATH": str(ROOT),
        "PREFECT_TASKS_RUNNER_PROCESS_POOL_MAX_WORKERS": "2",
    }


def started(env: Mapping[str, str], *words: str) -> subprocess.Popen[str]:
    """Start Python as people do: workers import what its main module is."""
    pipe = subprocess.PIPE
    return subprocess.Popen(
        [sys.executable, *words], env=env, cwd=ROOT, stdout=pipe, stderr=pipe, text=True
    )


def run(server: Server, table: Table, kind: str) -> tuple[dict[str, Any], str]:
    """Run the command; return its receipt, and what it told meanwhile."""
    words = ["-m", "batchata_tasks.cli", "run", str(write_spec(table)), "--json"]
    with started(env_of(server, table, kind), *words) as process:
        out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, err
    assert "Traceback" not in err
    return json.loads(out), err


def alive(table: Table) -> list[int]:
    """Return the processes of a test that live."""
    found = list[int]()
    for process in psutil.process_iter():
        try:
            mark = process.environ().get(MARK)
            if mark == str(table.folder) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process.pid)
        except psutil.Error:
            continue
    return found


def accepted(table: Table) -> tuple[int, int]:
    """Return how many requests the provider accepted, and how many of them twice."""
    ledger = table.ledger()
    return ledger["requests_accepted"], ledger["accepted_twice"]["number"]


@pytest.mark.slow
@pytest.mark.parametrize(
    "kind",
    [
        "process",
        pytest.param("dask", marks=pytest.mark.nights),
        pytest.param("ray", marks=pytest.mark.nights),
    ],
)
def test_a_worker_that_is_killed_half_way_loses_nothing(
    server: Server, table: Table, kind: str
) -> None:
    """Its work is done again: each row lands with its own answer, nothing is sent twice.

    No process outlives the run.
    """
    if kind in PACKAGES and find_spec(PACKAGES[kind]) is None:
        pytest.skip(f"{kind} is not installed")
    (table.folder / "die").touch()
    receipt, told = run(server, table, kind)
    assert receipt["outcomes"] == {"succeeded": 12}
    killed, *others = (table.folder / "done_by").read_text().split()
    assert killed not in others
    assert set(others)
    if kind == "process":  # Dask and Ray give the work to another worker by themselves
        assert "a worker (process) was lost at its work" in told
    assert accepted(table) == (12, 0)
    table.check_answers()
    until(lambda: not alive(table))


@pytest.mark.slow
@pytest.mark.parametrize(
    "number",
    [
        signal.SIGTERM,
        pytest.param(signal.SIGINT, marks=pytest.mark.nights),
        pytest.param(signal.SIGKILL, marks=pytest.mark.nights),
    ],
)
def test_workers_end_with_their_run(server: Server, table: Table, number: signal.Signals) -> None:
    """However it is stopped, no process is left, and the next run lands what was sent, once."""
    (table.folder / "wait").touch()
    words = ["-m", "batchata_tasks.cli", "run", str(write_spec(table))]
    with started(env_of(server, table, "process"), *words) as process:
        until((table.folder / "done_by").exists)
        process.send_signal(number)
        if number != signal.SIGKILL:
            (table.folder / "wait").unlink()
        process.communicate(timeout=PATIENCE)
    assert process.returncode
    until(lambda: not alive(table))
    (table.folder / "wait").unlink(missing_ok=True)
    receipt, _ = run(server, table, "process")
    assert receipt["continued"]
    assert accepted(table) == (12, 0)
    table.check_answers()


@pytest.mark.slow
@pytest.mark.nights
def test_a_flow_may_have_a_task_runner_of_its_own(server: Server, table: Table) -> None:
    """`with_options(task_runner=…)` goes before the variable, as docs/task-runners.md shows it."""
    text = (ROOT / "docs/task-runners.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    script = table.folder / "script.py"
    script.write_text(block.replace("tickets.yaml", str(write_spec(table))))
    env = env_of(server, table, "thread")
    with started(env, str(script)) as process:
        _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, err
    assert str(process.pid) not in (table.folder / "done_by").read_text().split()
    assert accepted(table) == (12, 0)
    table.check_answers()


def test_a_wrong_value_is_one_sentence(table: Table) -> None:
    """It names the variable and what it may be; exit code 2, and nothing is sent."""
    env = {**os.environ, "BATCHATA_TASK_RUNNER": "threads"}
    done = commands.batchata("run", str(write_spec(table)), env=env)
    assert done.returncode == 2
    assert "BATCHATA_TASK_RUNNER: must be 'thread', 'process', 'dask' or 'ray'" in done.stderr
    assert accepted(table) == (0, 0)


def test_a_direct_run_does_its_work_itself(table: Table) -> None:
    """It says that the variable is for flow runs."""
    env = {
        **os.environ,
        "BATCHATA_TASK_RUNNER": "process",
        "BATCHATA_CODE_ROOTS": str(table.folder),
    }
    done = commands.batchata("run", str(write_spec(table)), "--direct", env=env)
    assert done.returncode == 0
    assert "BATCHATA_TASK_RUNNER=process is for flow runs" in done.stderr
    assert len(set((table.folder / "done_by").read_text().split())) == 1
