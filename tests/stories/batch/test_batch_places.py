"""The places of a Batch: a script, a worker thread, an event loop, two at once; and Ctrl-C."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from batchata_tasks import Batch
from batchata_tasks.common.errors import LeaseError
from tests.support.table import open_batches
from tests.support.waiting import PATIENCE

if TYPE_CHECKING:
    from pathlib import Path

    from batchata_tasks.emulator import Emulator

pytestmark = pytest.mark.slow

CLAUDE = "claude-haiku-5-5"
SCRIPT = """
import json, sys
from batchata_tasks import Batch

batch = Batch("out", items_per_batch=2).set_default_params(model="claude-haiku-5-5", max_tokens=50)
for number in range(4):
    batch.add_job(prompt=f"text {number}", id=str(number))
run = batch.run(wait=WAIT)
print(json.dumps({name: result.response for name, result in run.results().items()}))
print("prefect" in sys.modules)
print(run.receipt and run.receipt.result)
"""


def script(folder: Path, wait: bool = True) -> subprocess.Popen[str]:
    """Start a script that runs four jobs in two batches."""
    command = [sys.executable, "-u", "-c", SCRIPT.replace("WAIT", str(wait))]
    pipe = subprocess.PIPE
    return subprocess.Popen(
        command,
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=pipe,
        stderr=pipe,
        text=True,
        env=dict(os.environ),
    )


def jobs(folder: Path, number: int = 3) -> Batch:
    batch = Batch(folder).set_default_params(model=CLAUDE, max_tokens=50)
    for place in range(number):
        batch.add_job(prompt=f"text {place}", id=str(place))
    return batch


def accepted(emulator: Emulator) -> int:
    return sum(
        batch["requests"]
        for batch in emulator.control.ledger()["anthropic"]["batches"]
        if batch["accepted"]
    )


def wait_for_batches(emulator: Emulator, number: int) -> None:
    while len(emulator.control.ledger()["anthropic"]["batches"]) < number:
        time.sleep(0.05)


def test_a_plain_script_needs_no_prefect(emulator: Emulator, tmp_path: Path) -> None:
    """It prints its results and ends; Prefect is never imported."""
    out, err = script(tmp_path).communicate(timeout=PATIENCE)
    results, prefect, _ = out.splitlines()
    assert set(json.loads(results)) == {"0", "1", "2", "3"}, err
    assert prefect == "False"
    assert accepted(emulator) == 4


def test_a_script_that_does_not_wait_ends_with_its_run(emulator: Emulator, tmp_path: Path) -> None:
    """`wait=False` in a script's last line loses nothing.

    The process lives until the run has landed.
    """
    process = script(tmp_path, wait=False)
    assert process.wait(timeout=PATIENCE) == 0
    assert len(jobs(tmp_path / "out").run().results()) == 3
    assert accepted(emulator) == 4


def test_a_worker_thread(emulator: Emulator, tmp_path: Path) -> None:
    """A run may be started and waited for in any thread."""
    outcomes: list[Any] = []
    thread = threading.Thread(
        target=lambda: outcomes.append(jobs(tmp_path / "out").run().results())
    )
    thread.start()
    thread.join(timeout=PATIENCE)
    assert len(outcomes[0]) == accepted(emulator) == 3


def test_a_running_event_loop(emulator: Emulator, tmp_path: Path) -> None:
    """A run may be started while an event loop runs, as in a notebook's cell."""

    async def cell() -> int:
        await asyncio.sleep(0)
        return len(jobs(tmp_path / "out").run().results())

    assert asyncio.run(cell()) == accepted(emulator) == 3


def test_two_runs_in_one_process(emulator: Emulator, tmp_path: Path) -> None:
    """Two runs over two folders run side by side.

    A second one over the same folder is refused in one sentence.
    """
    with open_batches(emulator):
        runs = [jobs(tmp_path / name).run(wait=False) for name in ("one", "two")]
        wait_for_batches(emulator, 2)
        with pytest.raises(LeaseError, match=r"(is at work|holds)"):
            jobs(tmp_path / "one").run()
    for run in runs:
        run.wait(timeout=PATIENCE)
        assert all(result.is_success() for result in run.results().values())
    assert accepted(emulator) == 6


def test_one_ctrl_c_cancels_and_lands(emulator: Emulator, tmp_path: Path) -> None:
    """Without a person to ask, the first Ctrl-C cancels what is open and lands what ran.

    The script then ends by itself.
    """
    with open_batches(emulator):
        process = script(tmp_path)
        wait_for_batches(emulator, 2)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, err
    assert json.loads(out.splitlines()[0]) == dict.fromkeys("0123", "")
    assert out.splitlines()[2] == "cancelled"
    assert {batch["status"] for batch in emulator.control.ledger()["anthropic"]["batches"]} == {
        "ended"
    }


def test_a_second_ctrl_c_leaves_at_once(emulator: Emulator, tmp_path: Path) -> None:
    """A second Ctrl-C ends the script while batches are open.

    The next run lands them, and sends nothing again.
    """
    with open_batches(emulator):
        process = script(tmp_path)
        wait_for_batches(emulator, 2)
        process.send_signal(signal.SIGINT)
        time.sleep(0.5)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=PATIENCE)
    results = jobs(tmp_path / "out", 4).run().results()
    assert all(result.is_success() for result in results.values())
    assert accepted(emulator) in (4, 8)


def test_ctrl_c_after_the_programs_own_end(emulator: Emulator, tmp_path: Path) -> None:
    """If only the run keeps a program alive, Ctrl-C leaves the run.

    The program ends as interrupted, and the next run lands what is open.
    """
    with open_batches(emulator):
        process = script(tmp_path, wait=False)
        assert process.stdout is not None
        assert [process.stdout.readline() for _ in range(3)][1:] == ["False\n", "None\n"]
        wait_for_batches(emulator, 2)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == -signal.SIGINT, err
    assert "the next run lands them" in err
    assert "Traceback" not in err
    assert all(result.is_success() for result in jobs(tmp_path / "out", 4).run().results().values())
    assert accepted(emulator) == 4
