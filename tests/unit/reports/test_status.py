"""`status` says of each run what it was: refused, idle, stopped while it planned."""

from __future__ import annotations

import json
import socket
import threading
from io import StringIO
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest
from rich.console import Console

from batchata_tasks.common.clock import now_us
from batchata_tasks.common.errors import SourceError
from batchata_tasks.common.settings import Settings
from batchata_tasks.execution.held_dataset import LettingGo, SuspendedRunError
from batchata_tasks.ledger import opened_ledger
from batchata_tasks.operations.cancel import request_cancel
from batchata_tasks.pipeline.enrich import run_prepared
from batchata_tasks.pipeline.steps import Steps
from batchata_tasks.planning.prepare import prepare_run
from batchata_tasks.progress.listener import silent
from batchata_tasks.reports.follow import follow
from batchata_tasks.reports.status import runs_in_the_way, runs_remedies, runs_table
from tests.support.books import opened, run_with
from tests.support.commands import batchata
from tests.support.operations import runs_overview
from tests.support.table import Table, open_batches

if TYPE_CHECKING:
    from pathlib import Path

    from batchata_tasks.emulator import Emulator
    from batchata_tasks.execution.run_ref import RunRef
    from batchata_tasks.spec.enrichment import EnrichmentSpec


@pytest.fixture
def table(emulator: Emulator, tmp_path: Path) -> Table:
    return Table(tmp_path, emulator, "anthropic", rows=3)


def states(table: Table) -> list[str]:
    """Return the state of each run as the table has it, the newest first."""
    console = Console(file=(screen := StringIO()), width=250)
    console.print(runs_table(runs := runs_overview(table.spec())))
    lines = screen.getvalue().splitlines()[1:]
    assert len(lines) == len(runs)
    return [line.split("table", 1)[1].strip() for line in lines]


def test_a_run_that_was_refused_says_so(table: Table) -> None:
    """Bad input ends a run: it is not to be started again as it is, nor did a later run end it."""
    table.values[2]["id"] = "k1"
    table.write()
    with pytest.raises(SourceError, match="same key"):
        table.run()
    (run,) = runs = runs_overview(table.spec())
    assert (run["state"], run["result"], runs_remedies(runs)) == ("closed", "refused", [])
    assert states(table)[0].startswith("refused, nothing was sent")
    (text,) = runs_in_the_way(runs)
    assert "same key" in text
    table.values[2]["id"] = "k2"
    table.write()
    assert table.run().continued is False
    succeeded, refused = states(table)
    assert succeeded.startswith("succeeded ")
    assert refused.startswith("refused, nothing was sent")


def test_a_run_that_waits_without_a_process_says_so(table: Table) -> None:
    """It has not stopped: whoever looks after it goes on with it, and it is followed meanwhile."""
    spec = table.spec()
    with open_batches(table.emulator):
        ready = prepare_run(spec, Settings())
        with pytest.raises(SuspendedRunError):
            run_prepared(ready, run="flow run 7", letting_go=LettingGo(0))
        assert states(table)[0].startswith("waiting ")
        with opened_ledger(Settings().ledger_url) as ledger:
            ledger.note_watched()
        runs = runs_overview(spec)
        (remedy,) = runs_remedies(runs)
        assert remedy.startswith("table: waiting without a process: flow run 7 let go of it")
        assert "`watch` has it go on then" in remedy
        assert runs_in_the_way(runs) == []
        following = threading.Thread(target=follow, args=(spec, Settings(), silent()))
        following.start()
        following.join(1)
        assert following.is_alive()
    assert table.run().outcomes == {"succeeded": 3}
    following.join(30)
    assert not following.is_alive()


@pytest.mark.parametrize(
    ("seconds", "told"),
    [
        (None, "no scheduled pass of `watch` has looked at this ledger; suspended runs are not"),
        (12 * 60, "`watch` last looked 12 min ago; suspended runs are not resumed: is its deploy"),
        (4 * 60, None),
    ],
    ids=["never", "long ago", "lately"],
)
def test_that_nobody_resumes_what_waits_is_told(
    table: Table, monkeypatch: pytest.MonkeyPatch, seconds: int | None, told: str | None
) -> None:
    """From five minutes after the last pass on, as long as a run waits; else nobody needs it."""
    spec = table.spec()
    with open_batches(table.emulator):
        with pytest.raises(SuspendedRunError):
            run_prepared(prepare_run(spec, Settings()), run="flow run 7", letting_go=LettingGo(0))
        if seconds is not None:
            with opened_ledger(Settings().ledger_url) as ledger:
                monkeypatch.setattr(ledger, "clock", lambda _: now_us() - seconds * 1_000_000)
                ledger.note_watched()
        runs = runs_overview(spec)
    said = runs_in_the_way(runs)
    assert said == [] if told is None else said[-1].startswith(told)
    assert ("`watch` has it go on" in str(runs_remedies(runs))) is (told is None)
    table.run()
    assert runs_in_the_way(runs_overview(spec)) == []


@pytest.mark.parametrize("url", ["", "http://127.0.0.1:{port}/api", "http://127.0.0.1:1", "what"])
def test_a_server_that_does_not_answer_neither_fails_nor_holds_up(table: Table, url: str) -> None:
    """`status` does without one that is not there, or silent, or whose address is none."""
    with open_batches(table.emulator):
        ready = prepare_run(table.spec(), Settings())
        with pytest.raises(SuspendedRunError):
            run_prepared(ready, run=f"flow run {uuid4()}", letting_go=LettingGo(0))
        with socket.create_server(("127.0.0.1", 0)) as silent_one:
            set_to = url.format(port=silent_one.getsockname()[1])
            done = batchata("status", "--json", env={"PREFECT_API_URL": set_to} if url else {})
    assert (done.returncode, done.stderr) == (0, "")
    (run,) = json.loads(done.stdout)
    assert run["work"].startswith("flow run ")
    assert run["flow_run"] is None


def test_rows_that_are_to_come_are_counted_in_one_line(table: Table) -> None:
    """Of a run that waits: what has landed, and what is planned, also on a narrow terminal."""
    spec = table.spec(items_per_batch=2)
    with open_batches(table.emulator):
        with pytest.raises(SuspendedRunError):
            run_prepared(prepare_run(spec, Settings()), run="flow run 7", letting_go=LettingGo(0))
        (run,) = runs_overview(spec)
        assert run["planned_rows"] == 3
        console = Console(file=(screen := StringIO()), width=80)
        console.print(runs_table([run], 80))
    _, line = screen.getvalue().splitlines()
    assert line.split("waiting", 1)[1].split()[:4] == ["2", "open", "3", "planned"]
    table.run(items_per_batch=2)
    (run,) = runs_overview(spec)
    assert (run["planned_rows"], run["outcomes"]) == (0, {"succeeded": 3})


def test_a_run_that_had_nothing_to_do_says_so(table: Table) -> None:
    """Its rows were up to date, or had failed for good before; nothing failed in it."""
    table.run()
    table.run()
    assert states(table)[0].startswith("succeeded, nothing to send")
    table.emulator.control.faults(kind="request_refusal", contains="row 1")
    change: dict[str, Any] = {"system": "Say it."}
    table.run(**change)
    table.run(**change)
    idle, worked, *_ = states(table)
    assert idle.startswith("some rows failed, nothing to send")
    assert worked.startswith("some rows failed  ")


def test_a_run_that_died_while_it_planned(table: Table) -> None:
    """Nothing was sent, so nothing is to be landed; the next run begins anew, and that is told."""

    def killed(ref: RunRef) -> dict[str, Any]:
        raise KeyboardInterrupt(ref)

    with pytest.raises(KeyboardInterrupt):
        run_with(table, Steps(plan=killed))
    runs = runs_overview(table.spec())
    assert states(table)[0].startswith("stopped while planning")
    assert runs_remedies(runs) == [
        "table: stopped while planning: nothing was sent; start the same command again."
    ]
    table.run()
    assert states(table)[1].startswith("stopped while planning")
    with opened() as ledger:
        assert ledger.run(runs[0]["run_id"]).result == "abandoned"


def test_each_sentence_about_all_runs_says_which_it_is_about(table: Table) -> None:
    """Of runs that stopped, wait, or are to be cancelled, each is named by its spec."""

    def killed(ref: RunRef, chunk_id: str) -> dict[str, Any]:
        raise KeyboardInterrupt(ref, chunk_id)

    def spec(name: str) -> EnrichmentSpec:
        return table.spec(name=name, output=str(table.folder / name))

    for name in ("first", "second"):
        with pytest.raises(KeyboardInterrupt):
            run_prepared(prepare_run(spec(name), Settings()), steps=Steps(submit=killed))
    with open_batches(table.emulator):
        for name in ("third", "fourth", "fifth"):
            ready = prepare_run(spec(name), Settings())
            with pytest.raises(SuspendedRunError):
                run_prepared(ready, run=f"flow run of {name}", letting_go=LettingGo(0))
        request_cancel(spec("third"), Settings())
        with opened() as ledger:
            ledger.note_watched()
        runs = runs_overview(None)
    stopped, waiting = runs_remedies(runs)
    assert stopped.startswith("second, first: stopped; start the same command again: it carries on")
    assert waiting.startswith("fifth, fourth: waiting without a process: flow runs let go of them ")
    assert waiting.endswith(" `watch` has them go on then; the same command does so now.")
    (text,) = runs_in_the_way(runs)
    assert text.startswith("third: a cancel was asked for")


def test_it_says_that_there_are_more_runs(table: Table) -> None:
    """Ten are shown, unless more are asked for; if that is all of them, nothing is said."""
    for number in range(12):
        table.run(name=f"n{number}", output=str(table.folder / f"n{number}"))
    told = batchata("status", cwd=table.folder).stdout
    assert told.count("succeeded") == 20
    assert "10 of 12 runs, the newest first: `--runs 12` shows all." in told
    all_of_them = batchata("status", "--runs", "12", cwd=table.folder).stdout
    assert all_of_them.count("succeeded") == 24
    assert "of 12 runs" not in all_of_them
    of_one = batchata("status", str(table.folder / "n3"), cwd=table.folder).stdout
    assert of_one.count("succeeded") == 2
    assert "runs, the newest" not in of_one


@pytest.mark.parametrize("width", [80, 100, 200])
def test_the_runs_fit_the_terminal(table: Table, width: int) -> None:
    """Also at 80 columns each count stands beside its outcome, and the spec's name is whole."""
    name = "labels-of-all-customer-tickets"
    table.run(name=name, output=str(table.folder / "other"))
    (run,) = (one for one in runs_overview(None) if one["name"] == name)
    run["outcomes"] = {"succeeded": 123_456, "invalid": 312, "refused": 41}
    run |= {"result": "some_rows_failed", "settled_usd": "12.34", "in_flight_usd": "1.2"}
    console = Console(file=(screen := StringIO()), width=width)
    console.print(runs_table([run], width))
    lines = screen.getvalue().splitlines()
    assert max(map(len, lines)) <= width
    assert lines[0].startswith("Started UTC  Spec")
    for count in ("123,456 succeeded", "312 invalid", "41 refused", "$12.34", "$1.20"):
        assert any(count in line for line in lines), count
    start, end = (lines[0].index(column) for column in ("Spec", "State"))
    assert "".join(line[start:end].strip() for line in lines[1:]) == name
    assert len(lines) == (2 if width == 200 else 4 if width == 100 else 5)
