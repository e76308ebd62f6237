"""Servers whose results never come: what they are sent, and until when."""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from batchata_tasks import Batch
from batchata_tasks.common.errors import HeldError
from batchata_tasks.common.settings import Settings
from batchata_tasks.operations.rebuild import rebuild
from batchata_tasks.operations.reconcile_report import ReconcileRequest
from batchata_tasks.pipeline.steps import Steps
from batchata_tasks.planning.prepare import prepare_run
from batchata_tasks.planning.summary import Options
from batchata_tasks.reports.status import runs_in_the_way
from tests.support.books import check_money
from tests.support.operations import preview, reconcile, runs_overview
from tests.support.stuck import add_rows, limited, stick, told
from tests.support.table import APIS, MODELS, Table
from tests.support.waiting import PATIENCE

if TYPE_CHECKING:
    from pathlib import Path

    from batchata_tasks.emulator import Emulator
    from batchata_tasks.execution.run_ref import RunRef

pytestmark = pytest.mark.in_turn

ROWS = 4
ONE_BY_ONE: dict[str, Any] = {"items_per_batch": 1, "max_parallel_batches": 1}
PAGE = {"kind": "garbled_answer", "html": True}
REFUSED = {"kind": "http_error", "status": 403}
ABSENT = {"kind": "http_error", "status": 404}
EMPTY = {"kind": "garbled_answer", "empty": True}


@pytest.fixture(autouse=True)
def _short_patience(emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    del emulator  # it sets a patience of its own
    monkeypatch.setenv("BATCHATA_PATIENCE", "0.02")
    monkeypatch.setenv("BATCHATA_CANCEL_GRACE", "0.2")


@pytest.fixture(params=APIS)
def table(request: pytest.FixtureRequest, emulator: Emulator, tmp_path: Path) -> Table:
    """Return a table of four rows, for each API."""
    return Table(tmp_path, emulator, request.param, ROWS)


def keep_back(table: Table, how: dict[str, Any] = PAGE, **more: Any) -> None:
    """Let no results be had from now on."""
    route = "results" if table.provider == "anthropic" else "content"
    table.emulator.control.faults(**how, route=route, **more)


def creates(table: Table) -> int:
    return len(table.emulator.control.ledger()["creates"])


def silent_for_two_runs(table: Table) -> list[str]:
    """Send rows in two runs whose results cannot be had; return the batches."""
    keep_back(table)
    for _ in range(2):
        assert table.run().exit_code == 3
        add_rows(table, 1)
    return [line["id"] for line in table.ledger()["batches"]]


# --- within a run ---------------------------------------------------------------------------------


@pytest.mark.parametrize("how", [PAGE, REFUSED, ABSENT, EMPTY], ids=["page", "403", "404", "empty"])
def test_a_run_sends_nothing_more_once_results_could_not_be_had(
    table: Table, how: dict[str, Any]
) -> None:
    """What is not sent stays planned, is counted, and goes out with the next run that may."""
    keep_back(table, how)
    receipt, notes = told(table, **ONE_BY_ONE)
    assert (receipt.exit_code, receipt.held_rows, receipt.unsent_rows) == (3, 1, ROWS - 1)
    assert creates(table) == 1
    assert sum("sends nothing more" in note for note in notes) == 1
    table.emulator.control.clear_faults()
    assert table.run(**ONE_BY_ONE).exit_code == 0
    assert len(table.rows()) == creates(table) == ROWS
    check_money(table)


def test_a_run_goes_on_once_another_batch_of_it_has_landed(table: Table) -> None:
    """One batch without results among others that land stops nothing for long."""
    keep_back(table)
    failed = threading.Event()

    def collect(ref: RunRef, chunk_id: str) -> dict[str, Any]:
        if not failed.is_set():
            try:
                return Steps().collect(ref, chunk_id)
            finally:
                failed.set()
        table.emulator.control.clear_faults()
        return Steps().collect(ref, chunk_id)

    def poll(ref: RunRef, chunk_id: str) -> dict[str, Any]:
        polled = Steps().poll(ref, chunk_id)
        with turn:
            if order:
                failed.wait(PATIENCE)
            order.append(chunk_id)
        return polled

    turn, order = threading.Lock(), list[str]()
    steps = replace(Steps(), poll=poll, collect=collect)
    receipt, _ = told(table, steps, items_per_batch=1, max_parallel_batches=2)
    assert (receipt.held_rows, receipt.unsent_rows, creates(table)) == (1, 0, ROWS)


def test_a_run_that_is_carried_on_remembers_it(table: Table) -> None:
    """A process that is killed after results could not be had leaves that to the next one."""
    keep_back(table)

    def killed(ref: RunRef, chunk_id: str) -> dict[str, Any]:
        Steps().collect(ref, chunk_id)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        told(table, replace(Steps(), collect=killed), **ONE_BY_ONE)
    receipt = table.run(**ONE_BY_ONE)
    assert (receipt.held_rows, receipt.unsent_rows, creates(table)) == (1, ROWS - 1, 1)


def test_batches_that_only_do_not_end_keep_no_rows_back(table: Table) -> None:
    """New rows go on, however many runs left such a batch."""
    for number in range(1, 4):
        stick(table, "ignores")
        told(table, limited())
        assert creates(table) == number
        add_rows(table, 1)


# --- across runs ----------------------------------------------------------------------------------


def test_plan_and_status_say_beforehand_that_no_run_begins(table: Table) -> None:
    """Both name the batches and the ways out, also for the whole ledger, until a batch lands."""
    batches = silent_for_two_runs(table)
    commands = [" ".join(f"--abandon {batch}" for batch in batches), "--retry-failed"]
    (first,) = [text for label, text in preview(table.spec()).lines() if label == "First"]
    for spec in (table.spec(), None):
        newest, older = runs_overview(spec)
        assert older["blocked"] is None
        (told_of,) = runs_in_the_way([newest, older])
        for text in (first, told_of):
            assert "2 batches have ended in 2 runs without results" in text
            assert all(command in text for command in commands)
    table.emulator.control.clear_faults()
    assert table.run().exit_code == 0
    assert not preview(table.spec()).in_the_way
    assert runs_in_the_way(runs_overview(None)) == []


def test_nothing_is_sent_once_two_runs_had_no_results(
    table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sentence names the batches, why, and the ways out; a rebuilt ledger says the same."""
    batches = silent_for_two_runs(table)
    for _ in range(2):
        with pytest.raises(HeldError, match="--retry-failed") as refused:
            table.run()
        assert all(batch in str(refused.value) for batch in batches)
        assert "its results name none of its requests" in str(refused.value)
        assert f"`batchata reconcile --abandon {batches[0]} --abandon {batches[1]}`" in str(
            refused.value
        )
        monkeypatch.setenv("BATCHATA_LEDGER_URL", f"sqlite:///{table.folder / 'another.db'}")
        if not (table.folder / "another.db").exists():
            rebuild(prepare_run(table.spec(), Settings()), Settings())
    assert creates(table) == 2
    table.emulator.control.clear_faults()
    assert table.run().exit_code == 0
    assert (len(table.rows()), creates(table)) == (ROWS + 2, 3)


def test_a_person_can_have_new_rows_sent_all_the_same(table: Table) -> None:
    """`--retry-failed` is that; the next start without it sends nothing again."""
    silent_for_two_runs(table)
    assert table.run(Options(retry_failed=True)).held_rows == ROWS + 2
    assert creates(table) == 3
    add_rows(table, 1)
    with pytest.raises(HeldError):
        table.run()
    assert creates(table) == 3


def test_a_batch_that_is_given_up_lets_runs_go_on(table: Table) -> None:
    """Once the batches of one run alone are left, new rows are sent, and those given up."""
    first, _ = silent_for_two_runs(table)
    reconcile(ReconcileRequest(abandon=(first,)))
    table.run()
    assert creates(table) == 3


def test_a_batch_that_landed_meanwhile_shows_that_results_come(table: Table) -> None:
    """Two runs with a batch without results, and one between them that landed, stop nothing."""

    def submit(ref: RunRef, chunk_id: str) -> dict[str, Any]:
        table.emulator.control.clear_faults()  # the old batch was asked for before
        return Steps().submit(ref, chunk_id)

    keep_back(table)
    table.run()
    add_rows(table, 1)
    assert told(table, replace(Steps(), submit=submit))[0].outcomes == {"succeeded": 1}
    add_rows(table, 1)
    keep_back(table)
    assert table.run().held_rows == ROWS + 1
    add_rows(table, 1)
    assert table.run().held_rows == ROWS + 2
    assert creates(table) == 4


def test_a_batch_of_jobs_says_how_to_send_all_the_same(table: Table) -> None:
    """Jobs have no command line: what sends them is a keyword of `Batch`."""
    keep_back(table)

    def batch(count: int, **settings: Any) -> Batch:
        jobs = Batch(results_dir=str(table.folder / "jobs"), **settings)
        for i in range(count):
            jobs.add_job(
                messages=[{"role": "user", "content": f"text {i}"}],
                model=MODELS[table.provider],
                id=f"j{i}",
            )
        return jobs

    for count in (1, 2):
        batch(count).run()
    with pytest.raises(HeldError, match=r"`Batch\(retry_failed=True\)` sends"):
        batch(3).run()
    assert creates(table) == 2
    batch(3, retry_failed=True).run()
    assert creates(table) == 3


def test_a_batch_that_landed_beside_the_first_one_hides_no_later_ones(table: Table) -> None:
    """What landed before the others were sent does not show that results come by now."""
    both, turn = threading.Barrier(2), threading.Lock()

    def poll(ref: RunRef, chunk_id: str) -> dict[str, Any]:
        both.wait(PATIENCE)  # both are sent
        return Steps().poll(ref, chunk_id)

    def collect(ref: RunRef, chunk_id: str) -> dict[str, Any]:
        with turn:
            collected = Steps().collect(ref, chunk_id)
            keep_back(table)
            return collected

    steps = replace(Steps(), poll=poll, collect=collect)
    first, _ = told(table, steps, items_per_batch=2, max_parallel_batches=2)
    assert (first.exit_code, first.held_rows, first.outcomes) == (3, 2, {"succeeded": 2})
    add_rows(table, 1)
    assert table.run().held_rows == 3
    add_rows(table, 1)
    sent = creates(table)
    with pytest.raises(HeldError, match="no batch of this dataset has landed since"):
        table.run()
    assert creates(table) == sent
