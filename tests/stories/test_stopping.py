"""Stopping works from the first second, in any wait, and loses nothing of others."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING

import psutil
import pytest

from batchata_tasks import Batch, StateManager
from batchata_tasks.cli.demo import run_demo
from batchata_tasks.common.errors import LeaseError
from batchata_tasks.common.settings import Settings
from batchata_tasks.execution.held_dataset import InterruptedRunError, hold_dataset
from batchata_tasks.execution.run_context import RunContext
from batchata_tasks.schema.answers import AnswerSchemas
from tests.support.commands import batchata, python, start
from tests.support.prefect_server import give_database
from tests.support.table import Table, open_batches
from tests.support.waiting import PATIENCE, until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from batchata_tasks.emulator import Emulator

CLAUDE, GPT = "claude-haiku-5-5", "gpt-6-luna"
EARLIER = """
from batchata_tasks import Batch
batch = Batch("res").set_default_params(model="claude-haiku-5-5", max_tokens=50)
for number in range(3):
    batch.add_job(prompt=f"earlier {number}", id=f"e{number}")
batch.run()
"""
SECOND_RUN = """
import sys
from batchata_tasks import Batch

def run(name, wait):
    batch = Batch(name).set_default_params(model="claude-haiku-5-5", max_tokens=50)
    batch.add_job(prompt="text", id="a")
    return batch.run(wait=wait)

run("one", True)
sys.stdout.write("ready\\n")
sys.stdout.flush()
sys.stdin.readline()
run("two", False)
"""
INTERRUPTED_IMPORT = """
import os, signal, sys
from batchata_tasks.cli.main import main

class Interrupter:
    def find_spec(self, name, *_):
        if name == module:
            os.kill(os.getpid(), signal.SIGINT)

module = sys.argv.pop(1)
sys.meta_path.insert(0, Interrupter())
main()
"""
IMPATIENT = """
from batchata_tasks.cli.main import main
from batchata_tasks.pipeline import scheduler

scheduler._JOIN_SECONDS = 0.5
main()
"""


def books(emulator: Emulator) -> list[int]:
    """Return how many requests each accepted batch has."""
    return [
        batch["requests"]
        for batch in emulator.control.ledger()["anthropic"]["batches"]
        if batch["accepted"]
    ]


def accepted(emulator: Emulator) -> int:
    """Return how many batches both providers accepted."""
    ledger = emulator.control.ledger()
    return sum(ledger[name]["batches_accepted"] for name in ("anthropic", "openai"))


def calls_under_way() -> set[threading.Thread]:
    """Return the threads of this process that send and land chunks."""
    return {thread for thread in threading.enumerate() if thread.name == "chunk"}


@pytest.fixture
def left_open(
    emulator: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Batch]:
    """Leave a batch of three jobs open, its script killed.

    Returns another batch over the same folder.
    """
    monkeypatch.chdir(tmp_path)
    with open_batches(emulator):
        with start("-c", EARLIER, cwd=tmp_path):  # and killed at the end
            until(lambda: books(emulator) == [3])
        batch = Batch("res").set_default_params(model=CLAUDE, max_tokens=50)
        for number in range(2):
            batch.add_job(prompt=f"later {number}", id=f"l{number}")
        yield batch


def test_a_run_is_left_while_an_earlier_batch_is_awaited(
    left_open: Batch, emulator: Emulator
) -> None:
    """`shutdown(wait_for_active=False)` ends it at once, and nothing is sent, now or later.

    The next run lands the earlier batch.
    """
    run = left_open.run(wait=False)
    time.sleep(1)
    run.shutdown(wait_for_active=False)
    assert run.done  # while the batch goes on, for as long as it is read
    assert books(emulator) == [3]
    emulator.control.progress("immediate")
    assert all(result.is_success() for result in left_open.run().results().values())
    assert books(emulator) == [3, 2]


@pytest.mark.parametrize("phase", ["an upload", "a list before a create", "a download"])
def test_nothing_is_sent_after_a_run_was_left(
    emulator: Emulator, tmp_path: Path, phase: str
) -> None:
    """`shutdown(wait_for_active=False)` during a slow call stops what would come after that call.

    So does Ctrl-C, twice. The next run sends each request once.
    """
    model, call, sent_before = {
        "an upload": (GPT, "upload", 0),
        "a list before a create": (CLAUDE, "list", 0),
        "a download": (CLAUDE, "results", 1),
    }[phase]
    emulator.control.faults(kind="slow", route=call, seconds=1.5)

    def three_jobs() -> Batch:
        batch = Batch(tmp_path / "res", items_per_batch=1, max_parallel_batches=1)
        for number in range(3):
            batch.add_job(prompt=f"text {number}", id=f"n{number}", model=model, max_tokens=50)
        return batch

    earlier = calls_under_way()
    run = three_jobs().run(wait=False)
    until(lambda: emulator.control.list_faults()[0]["calls"])
    run.shutdown(wait_for_active=False)
    with pytest.raises(InterruptedRunError):
        run.wait()
    until(lambda: calls_under_way() <= earlier)  # the slow call has been answered
    assert accepted(emulator) == sent_before
    emulator.control.clear_faults()
    assert all(result.is_success() for result in three_jobs().run().results().values())
    assert accepted(emulator) == 3


@pytest.mark.parametrize("model", [CLAUDE, GPT])
def test_nothing_is_sent_after_a_request_to_stop(
    emulator: Emulator, tmp_path: Path, model: str
) -> None:
    """A batch whose create is being prepared when `shutdown()` is called is not sent."""
    call = "list" if model == CLAUDE else "upload"
    emulator.control.faults(kind="slow", route=call, seconds=1)
    batch = Batch(tmp_path / "res").set_default_params(model=model, max_tokens=50)
    run = batch.add_job(prompt="text", id="a").run(wait=False)
    until(lambda: emulator.control.list_faults()[0]["calls"])
    run.shutdown()
    assert run.receipt is not None
    assert (run.receipt.result, run.receipt.unsent_rows) == ("cancelled", 1)
    assert accepted(emulator) == 0
    emulator.control.clear_faults()
    assert batch.run().results()["a"].is_success()


def test_a_run_that_is_left_while_it_plans_sends_nothing(
    emulator: Emulator, tmp_path: Path
) -> None:
    """It does not even finish its plan."""
    batch = Batch(tmp_path / "res").set_default_params(model=CLAUDE, max_tokens=50)
    for number in range(5000):
        batch.add_job(prompt="text", id=f"n{number}")
    run = batch.run(wait=False)
    run.shutdown(wait_for_active=False)
    with pytest.raises(InterruptedRunError):
        run.wait()
    assert accepted(emulator) == 0


def test_ctrl_c_during_an_upload_keeps_its_batch_from_being_sent(
    emulator: Emulator, tmp_path: Path
) -> None:
    """`run --direct` exits with 130 once the upload is answered; the same command goes on."""
    table = Table(tmp_path, emulator, "openai", rows=3)
    (tmp_path / "spec.json").write_text(table.spec().model_dump_json(exclude_unset=True))
    emulator.control.faults(kind="slow", route="upload", seconds=1.5)
    command = ("run", str(tmp_path / "spec.json"), "--direct")
    with start(*command, cwd=tmp_path) as run:
        until(lambda: emulator.control.list_faults()[0]["calls"])
        run.send_signal(signal.SIGINT)
        assert run.wait().returncode == 130, run.stderr
    assert accepted(emulator) == 0
    with start(*command, cwd=tmp_path) as run:
        assert run.wait().returncode == 0, run.stderr
    assert accepted(emulator) == 1


def test_a_run_is_shut_down_while_an_earlier_batch_is_awaited(
    left_open: Batch, emulator: Emulator
) -> None:
    """`shutdown()` waits for what is open and lands it; after that nothing is sent."""
    run = left_open.run(wait=False)
    time.sleep(1)
    emulator.control.progress("seconds", 1)
    emulator.control.advance(5)
    run.shutdown()
    assert run.receipt is not None
    assert (run.receipt.result, run.receipt.unsent_rows) == ("cancelled", 2)
    assert books(emulator) == [3]


def test_nothing_is_sent_once_the_dataset_is_let_go(emulator: Emulator, tmp_path: Path) -> None:
    """A call that nobody waits for any more is stopped before its bytes go out.

    Another run may hold the dataset by then.
    """
    table = Table(tmp_path, emulator, "anthropic", rows=1)
    with hold_dataset(str(table.output), Settings()) as held:
        context = RunContext(held, "run", table.spec(), AnswerSchemas(None))
        context.require_lease()
    with pytest.raises(LeaseError, match="sends nothing"):
        context.require_lease()


def test_ctrl_c_in_the_second_run_of_a_process(emulator: Emulator, tmp_path: Path) -> None:
    """Ctrl-C leaves the run that is under way, not one that has ended.

    The program ends as interrupted, with the sentence.
    """
    script = subprocess.Popen(
        [sys.executable, "-c", SECOND_RUN],
        cwd=tmp_path,
        text=True,
        env=dict(os.environ),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert script.stdout is not None
    assert script.stdin is not None
    assert script.stdout.readline() == "ready\n"
    with open_batches(emulator):
        script.stdin.write("go\n")
        script.stdin.flush()
        until(lambda: len(books(emulator)) == 2)
        time.sleep(1)  # the main thread has ended by then
        script.send_signal(signal.SIGINT)
        _, errors = script.communicate(timeout=PATIENCE)
    assert script.returncode == -signal.SIGINT, errors
    assert "the next run lands them" in errors
    assert "Exception ignored" not in errors


def test_ctrl_c_is_as_it_was_after_a_run(emulator: Emulator, tmp_path: Path) -> None:
    """A run leaves no signal handler behind."""
    del emulator
    # as at a program's start: a run of an earlier test may have ended outside of the main thread
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        batch = Batch(tmp_path / "out").set_default_params(model=CLAUDE, max_tokens=50)
        batch.add_job(prompt="text").run()
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
        batch.run(wait=False).shutdown()
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
        run = batch.run(wait=False)
        until(lambda: run.done)
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)


def test_one_ctrl_c_ends_a_wait_for_an_answer(emulator: Emulator, tmp_path: Path) -> None:
    """A server that does not answer a call does not keep `run --direct` alive.

    It exits with 130, and the sentence, as soon as calls under way had their time.
    """
    table = Table(tmp_path, emulator, "anthropic", rows=3)
    (tmp_path / "spec.json").write_text(table.spec().model_dump_json(exclude_unset=True))
    command = ("-c", IMPATIENT, "run", str(tmp_path / "spec.json"), "--direct")
    with open_batches(emulator), start(*command, cwd=tmp_path) as run:
        until(lambda: books(emulator) == [3])
        emulator.control.faults(kind="slow_after", route="get", seconds=2 * PATIENCE)
        until(lambda: emulator.control.list_faults()[0]["calls"])
        run.send_signal(signal.SIGINT)
        assert run.wait().returncode == 130, run.stderr  # and not by the answer's coming
    assert "the same command lands them" in run.stderr


def without_server(
    emulator: Emulator, folder: Path, database: Path
) -> tuple[Table, dict[str, str]]:
    """Write a spec.json; return its table, and the environment in which no server is configured."""
    give_database(database, folder / "prefect")
    table = Table(folder, emulator, "anthropic", rows=3)
    (folder / "spec.json").write_text(table.spec().model_dump_json(exclude_unset=True))
    # an empty URL is none
    return table, {"PREFECT_HOME": str(folder / "prefect"), "PREFECT_API_URL": ""}


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_prefects_temporary_server_ends_with_the_run(
    number: signal.Signals, emulator: Emulator, tmp_path: Path, prefect_database: Path
) -> None:
    """A supervisor signals the process alone: the server must not live on with its output.

    The run ends at once, as the signal wants, with the sentence, and gives its dataset back.
    """
    table, env = without_server(emulator, tmp_path, prefect_database)
    with open_batches(emulator), start("run", "spec.json", cwd=tmp_path, env=env) as run:
        until(lambda: books(emulator) == [3])
        server = server_of(run.pid)
        run.send_signal(number)
        expected = 130 if number == signal.SIGINT else -number
        assert run.wait().returncode == expected, run.stderr
        psutil.wait_procs([server], timeout=PATIENCE)
        assert not server.is_running() or server.status() == psutil.STATUS_ZOMBIE
    assert "go on at the provider; the same command lands them." in run.stderr
    assert "Traceback" not in run.stderr
    with hold_dataset(str(table.output), Settings()) as held:
        assert held.lease.lost is None


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="Linux has handles on processes")
def test_prefects_temporary_server_ends_with_a_killed_run(
    emulator: Emulator, tmp_path: Path, prefect_database: Path
) -> None:
    """No handler of the run sees its kill, and nothing of it lives on."""
    _, env = without_server(emulator, tmp_path, prefect_database)
    with open_batches(emulator), start("run", "spec.json", cwd=tmp_path, env=env) as run:
        until(lambda: books(emulator) == [3])
        children = psutil.Process(run.pid).children()
        assert server_of(run.pid) in children
        run.send_signal(signal.SIGKILL)
        run.wait()
        _, alive = psutil.wait_procs(children, timeout=PATIENCE)
        assert [one for one in alive if one.status() != psutil.STATUS_ZOMBIE] == []


def server_of(pid: int) -> psutil.Process:
    """Return the temporary server that a process has started."""
    (server,) = [one for one in psutil.Process(pid).children() if "uvicorn" in one.cmdline()]
    return server


@pytest.mark.parametrize(
    "module", ["batchata_tasks.cli.commands", "batchata_tasks.reports.costs_table"]
)
def test_ctrl_c_while_a_command_is_imported(module: str, tmp_path: Path) -> None:
    """It exits with 130 and a sentence, not with a traceback, before any module can swallow it."""
    done = python(INTERRUPTED_IMPORT, module, "costs", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (130, "")
    assert done.stderr == "Stopped. Nothing was sent.\n"


def test_state_files_resolve_as_long_as_the_ledger_has_their_runs(
    emulator: Emulator, tmp_path: Path
) -> None:
    """Twelve nights into one folder, each with a state file of its own.

    All of them load, and the first is still up to date.
    """
    files = [tmp_path / f"night-{number}.json" for number in range(12)]
    for number, file in enumerate(files):
        batch = (
            Batch(tmp_path / "res")
            .set_default_params(model=CLAUDE, max_tokens=50)
            .set_state(file=str(file))
        )
        batch.add_job(prompt=f"night {number}", id=f"n{number}").run()
    states = [StateManager(file).load() for file in files]
    assert [list(state.completed_results) for state in states if state is not None] == [
        [f"n{number}"] for number in range(12)
    ]
    before = books(emulator)
    again = (
        Batch(tmp_path / "res").set_default_params(model=CLAUDE).set_state(file=str(files[0])).run()
    )
    assert list(again.results()) == ["n0"]
    assert books(emulator) == before


def test_the_demo_deletes_nothing_that_it_did_not_make(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files of somebody else's in its folder stay; those of an earlier demo are made anew."""
    from rich.console import Console

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("batchata_tasks.cli.demo._BATCH_SECONDS", 0.2)
    own = [
        tmp_path / "data/out/demo" / name
        for name in ("my-notes.txt", "data/part-x.parquet", "anthropic/mine.txt")
    ]
    for path in own:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("mine")
    before = dict(os.environ)
    try:
        codes = [
            run_demo(Console(file=(tmp_path / "out.txt").open("w")), direct=True) for _ in range(2)
        ]
    finally:
        os.environ.clear()
        os.environ.update(before)
    assert codes == [0, 0]
    assert [path.read_text() for path in own] == ["mine"] * 3
    told = (tmp_path / "out.txt").read_text()
    assert "page 2, invoice-04.pdf, high, verified" in told
    assert "Gesamtbetrag: 5.997,60 EUR" in told


def test_the_demo_refuses_a_folder_of_somebody_else(tmp_path: Path) -> None:
    """It exits with 2 and one sentence, and starts nothing."""
    (tmp_path / "mine").mkdir()
    (tmp_path / "data/out/demo").mkdir(parents=True)
    (tmp_path / "data/out/demo/anthropic").symlink_to(tmp_path / "mine")
    done = batchata("demo", "--direct", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        "Error: demo: data/out/demo/anthropic is not a folder that the demo made; move "
        "data/out/demo away, or start the demo in another folder.\n"
    )
    assert list((tmp_path / "mine").iterdir()) == []
