"""Files lost between runs: the dataset, the ledger, Prefect's results. No row is paid for twice."""

from __future__ import annotations

import json
import shutil
import sqlite3
import threading
from contextlib import closing, nullcontext
from dataclasses import replace
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import orjson
import pytest
from typer.testing import CliRunner

from batchata_tasks.cli.commands import app
from batchata_tasks.common.clock import now_us
from batchata_tasks.common.errors import (
    HeldError,
    TerminalError,
    TransientError,
    WrongLedgerError,
)
from batchata_tasks.common.files import put_in_place, read_json, write_json
from batchata_tasks.common.money import usd
from batchata_tasks.common.settings import Settings
from batchata_tasks.emulator import answer_text
from batchata_tasks.execution import download
from batchata_tasks.execution.contexts import context_of
from batchata_tasks.execution.land import collect_and_land
from batchata_tasks.execution.look import look_once
from batchata_tasks.ledger import Ledger
from batchata_tasks.operations.rebuild import rebuild
from batchata_tasks.operations.reconcile_report import ReconcileRequest
from batchata_tasks.pipeline.steps import Steps
from batchata_tasks.planning.prepare import prepare_run
from batchata_tasks.providers.anthropic.adapter import AnthropicAdapter
from batchata_tasks.providers.base import Limits
from batchata_tasks.providers.openai.chat import OpenAIAdapter
from batchata_tasks.reports.status import runs_in_the_way
from tests.support.books import all_chunks, billed, check_money, money, run_with, stopping_at
from tests.support.built import request_of
from tests.support.operations import cancel, preview, reconcile, runs_overview
from tests.support.stuck import left_overdue
from tests.support.table import Table
from tests.support.unclear import in_state, leave_in_doubt
from tests.support.waiting import PATIENCE, until

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from batchata_tasks.emulator import Emulator
    from batchata_tasks.execution.run_ref import RunRef
    from batchata_tasks.ledger import Chunk


pytestmark = pytest.mark.in_turn

ROWS = 12


def interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def die_with_batches_open(
    table: Table, monkeypatch: pytest.MonkeyPatch, looks: int = 3, **changes: Any
) -> None:
    """Run until some batches landed and others are open at the provider; then die."""
    table.emulator.control.progress("reads", 1)
    looks_left = iter([look_once] * looks)

    def look(*asked: Any) -> Any:
        return next(looks_left, interrupt)(*asked)

    with monkeypatch.context() as dying:
        dying.setattr("batchata_tasks.execution.poll.look_once", look)
        with pytest.raises(KeyboardInterrupt):
            table.run(items_per_batch=3, max_parallel_batches=1, **changes)
    assert table.ledger()["requests_accepted"] == 6
    assert len(table.rows()) == 3


def check(table: Table) -> None:
    """Check that each row is there once with its own answer, sent once.

    The money adds up to the last digit.
    """
    rows, builder = table.rows(), prepare_run(table.spec(), Settings()).table.builder
    assert [row["_attempts"] for row in rows] == [1] * 12
    for row, value in zip(rows, sorted(table.values, key=lambda value: value["id"]), strict=True):
        body = request_of(builder, value).body
        assert (row["id"], row["_response"]) == (
            value["id"],
            answer_text(table.provider, orjson.loads(body)),
        )
    assert table.ledger()["accepted_twice"]["number"] == 0
    assert table.ledger()["requests_accepted"] == 12
    ledger = Ledger(Settings().ledger_url)
    settled = sum(ledger.money(run.id)[0] for run in ledger.runs_of(None, 100))
    assert all(ledger.money(run.id)[1] == 0 for run in ledger.runs_of(None, 100))
    ledger.close()
    assert sum((row["_cost_usd"] for row in table.rows()), Decimal(0)) == usd(settled)


@pytest.mark.parametrize("what", ["the dataset's folder", "the rows alone"])
def test_a_deleted_dataset_comes_back_from_the_provider(
    table: Table, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """The folder is deleted with batches landed and open: all of them are fetched again.

    Only what was never sent is sent.
    """
    die_with_batches_open(table, monkeypatch)
    shutil.rmtree(table.output if what == "the dataset's folder" else table.output / "data")
    receipt = table.run(items_per_batch=3)
    assert (receipt.plan["recovered"], receipt.exit_code) == (
        6 if what == "the dataset's folder" else 0,
        0,
    )
    check(table)


def test_a_lost_ledger_is_rebuilt_from_the_dataset_and_the_provider(
    table: Table, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The ledger is lost with batches landed and open: a new one is refused, then rebuilt.

    Nothing is sent twice.
    """
    die_with_batches_open(table, monkeypatch)
    (tmp_path / "ledger.db").rename(tmp_path / "lost.db")
    with pytest.raises(WrongLedgerError, match=rf"`batchata status {table.output} --rebuild`"):
        table.run(items_per_batch=3)
    table.emulator.control.progress("immediate")
    report = rebuild(prepare_run(table.spec(), Settings()), Settings())
    assert (report.runs, report.chunks, report.open_chunks) == (1, 2, 1)
    receipt = table.run(items_per_batch=3)
    assert (receipt.plan["up_to_date"], receipt.outcomes) == (6, {"succeeded": 6})
    check(table)
    with pytest.raises(WrongLedgerError, match="already"):
        rebuild(prepare_run(table.spec(), Settings()), Settings())


@pytest.mark.parametrize("since", ["another run", "a batch of the same run", "a landed run"])
def test_a_ledger_from_a_backup_is_refused_until_it_is_brought_up_to_date(
    table: Table, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, since: str
) -> None:
    """A ledger that does not know what was sent since sends nothing, and pays nothing again.

    What was landed since counts as spent once more.
    """
    ledger, backup = tmp_path / "ledger.db", tmp_path / "backup.db"
    values, in_halves = table.values, {"items_per_batch": 6, "max_parallel_batches": 1}
    if since == "a batch of the same run":
        die_before_the_second_send(table)
    else:
        table.values = values[:6]
        table.write()
        table.run()
    shutil.copyfile(ledger, backup)
    table.values = values
    table.write()
    if since == "a landed run":
        table.run()
    else:
        with pytest.raises(KeyboardInterrupt):
            run_with(table, stopping_at("poll", lambda _: True, KeyboardInterrupt()), **in_halves)
    before = None if since != "a landed run" else books()
    shutil.copyfile(backup, ledger)
    sent = table.ledger()["requests_accepted"]
    for _ in range(2):
        with pytest.raises(WrongLedgerError, match=r"older than the dataset.*1 batch .*--rebuild"):
            table.run(**in_halves)
        for ask in (preview, cancel):
            with pytest.raises(WrongLedgerError, match="older than the dataset"):
                ask(table.spec())
        for spec in (table.spec(), None):
            (told_of,) = runs_in_the_way(runs_overview(spec))
            assert "the ledger is older than the dataset" in told_of
    assert table.ledger()["requests_accepted"] == sent == 12
    rebuild(prepare_run(table.spec(), Settings()), Settings())
    assert before in (None, books())
    table.run(**in_halves)
    check(table)


def test_an_older_copy_takes_nothing_from_a_ledger_that_was_rebuilt(
    table: Table, tmp_path: Path
) -> None:
    """The copy belongs to the ledger that is lost, and knows nothing of what was sent since.

    The ledger in use does: what it knows beyond the copy stays, and comes back unpaid.
    """
    table.run(items_per_batch=6)
    copy = shutil.copytree(table.output, tmp_path / "copy")
    (tmp_path / "ledger.db").unlink()
    rebuild(prepare_run(table.spec(), Settings()), Settings())
    table.values[0]["text"] += ", changed"
    table.write()
    table.run(items_per_batch=6)
    before, sent = table.rows(), table.ledger()["requests_accepted"]
    shutil.rmtree(table.output)
    shutil.copytree(copy, table.output)
    with pytest.raises(WrongLedgerError, match="another ledger"):
        table.run(items_per_batch=6)
    rebuild(prepare_run(table.spec(), Settings()), Settings())
    assert table.run(items_per_batch=6).plan["requests"] == 0
    assert table.ledger()["requests_accepted"] == sent == 13
    said = ("id", "label", "words", "_response", "_status", "_fingerprint", "_cost_usd")
    assert [{k: row[k] for k in said} for row in table.rows()] == [
        {k: row[k] for k in said} for row in before
    ]
    check_money(table)


def back_up(folder: Path) -> None:
    """Copy the ledger while it is in use."""
    with (
        closing(sqlite3.connect(folder / "ledger.db")) as used,
        closing(sqlite3.connect(folder / "backup.db")) as copy,
    ):
        used.backup(copy)


def restore_the_backup(folder: Path) -> None:
    """Replace the ledger; the process that used it then has ended since."""
    shutil.copyfile(folder / "backup.db", folder / "ledger.db")
    with closing(sqlite3.connect(folder / "ledger.db")) as ledger, ledger:
        ledger.execute("UPDATE datasets SET lease_until = 0")


def check_that_it_is_older(table: Table) -> None:
    """Check that no run begins, and bring the ledger up to date."""
    creates = table.emulator.control.ledger()["creates"]
    with pytest.raises(WrongLedgerError, match=r"older than the dataset.*1 batch .*--rebuild"):
        table.run()
    assert table.emulator.control.ledger()["creates"] == creates
    rebuild(prepare_run(table.spec(), Settings()), Settings())
    with pytest.raises(WrongLedgerError, match="already"):
        rebuild(prepare_run(table.spec(), Settings()), Settings())


def test_a_backup_from_before_a_batch_landed_takes_no_answer_for_missing(
    table: Table, tmp_path: Path
) -> None:
    """The batch was open then; by now its rows are here, and its results gone."""

    def copied(_: Chunk) -> bool:
        back_up(tmp_path)
        return False

    run_with(table, stopping_at("poll", copied, AssertionError()))
    before, rows = books(), table.rows()
    restore_the_backup(tmp_path)
    for route in ("results", "content", "get"):
        table.emulator.control.faults(kind="not_found", route=route)
    check_that_it_is_older(table)
    assert (books(), table.rows()) == (before, rows)
    assert table.run().outcomes == {}
    check(table)


def test_a_backup_from_before_a_batch_was_sent_anew_sends_nothing(
    emulator: Emulator, tmp_path: Path
) -> None:
    """The batch of then found no room in the queue; its chunk was sent again, and is open."""
    table = Table(tmp_path, emulator, "openai", ROWS)
    emulator.control.faults(kind="token_limit", count=1)
    polled = list[str]()

    def again(chunk: Chunk) -> bool:
        if not polled:
            back_up(tmp_path)
        polled.append(chunk.id)
        return len(polled) > 1 and chunk.id == polled[0]

    with pytest.raises(KeyboardInterrupt):
        run_with(table, stopping_at("poll", again, KeyboardInterrupt()), max_parallel_batches=1)
    restore_the_backup(tmp_path)
    check_that_it_is_older(table)
    table.run()
    assert len(table.rows()) == ROWS
    assert table.ledger()["billed_twice"]["number"] == 0
    check_money(table)


def test_a_backup_from_before_a_batch_was_taken_back_sends_nothing(
    table: Table, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was given up then; since, its results came, and a person adopted them."""
    monkeypatch.setenv("BATCHATA_CANCEL_GRACE", "0.2")
    batch = left_overdue(table)
    reconcile(ReconcileRequest(abandon=(batch,)))
    back_up(tmp_path)
    table.emulator.control.finish(batch)
    reconcile(ReconcileRequest(adopt={all_chunks()[0].id: batch}))
    restore_the_backup(tmp_path)
    check_that_it_is_older(table)
    table.run()
    check(table)


def test_what_was_reserved_for_unsent_rows_is_not_left_behind_by_a_rebuild(
    table: Table, tmp_path: Path
) -> None:
    """A ledger from a backup, brought up to date, counts only what was sent."""
    halves: dict[str, Any] = {"items_per_batch": 6, "max_parallel_batches": 2}
    both, sent = threading.Barrier(2, lambda: back_up(tmp_path)), threading.Event()

    def submit(ref: RunRef, chunk_id: str) -> dict[str, Any]:
        both.wait(PATIENCE)  # money is reserved for both
        if context_of(ref).ledger.chunk(chunk_id).start:
            sent.wait(PATIENCE)
            raise KeyboardInterrupt
        submitted = Steps().submit(ref, chunk_id)
        sent.set()
        return submitted

    with pytest.raises(KeyboardInterrupt):
        run_with(table, replace(Steps(), submit=submit), **halves)
    restore_the_backup(tmp_path)
    assert money(table).reserved > 0
    check_that_it_is_older(table)
    table.run(**halves)
    assert money(table).reserved == 0
    check(table)


@pytest.mark.parametrize("lost", [["out"], ["out/data", "out/_batchata/responses"]])
def test_results_that_lack_lines_by_now_are_no_reason_to_pay_again(
    table: Table, monkeypatch: pytest.MonkeyPatch, lost: list[str]
) -> None:
    """Nothing is sent for rows that had answers; they come back once the results are whole."""
    monkeypatch.setenv("BATCHATA_PATIENCE", "0.05")
    monkeypatch.setattr(download, "_NO_LINES", 1)
    table.run()
    for folder in lost:
        shutil.rmtree(table.folder / folder)
    table.emulator.control.faults(kind="cut_download", clean=True, after_bytes=3000)
    for _ in range(2):
        with pytest.raises(TransientError, match=r"landed before, .* from a copy"):
            table.run()
    table.emulator.control.clear_faults()
    assert table.run().outcomes == {}
    check(table)


@pytest.mark.parametrize("kept", [3000, 0])
@pytest.mark.parametrize("lost", [["out"], ["out/data", "out/_batchata/responses"]])
def test_results_that_lack_lines_for_good_are_given_up_by_a_person(
    table: Table, monkeypatch: pytest.MonkeyPatch, lost: list[str], kept: int
) -> None:
    """What there is of them lands, and the other rows alone are sent, and paid for, again."""
    monkeypatch.setenv("BATCHATA_PATIENCE", "0.05")
    monkeypatch.setattr(download, "_NO_LINES", 1)
    table.run()
    (batch,) = (line["id"] for line in table.ledger()["batches"])
    for folder in lost:
        shutil.rmtree(table.folder / folder)
    table.emulator.control.faults(kind="cut_download", clean=True, after_bytes=kept)
    with pytest.raises(TransientError, match=f"--abandon {batch}"):
        table.run()
    reconcile(ReconcileRequest(abandon=(batch,)))
    before = table.ledger()["requests_accepted"]
    table.run()
    table.emulator.control.clear_faults()
    table.run()
    assert len(table.rows()) == ROWS
    again = table.ledger()["requests_accepted"] - before
    assert again == ROWS if kept == 0 else 0 < again < ROWS
    assert {row["_status"] for row in table.rows()} == {"succeeded"}


def test_what_missing_rows_may_have_cost_is_not_forgotten_with_the_folder(table: Table) -> None:
    """Their bound counts as spent, also once the rows that were answered are fetched again."""
    table.emulator.control.faults(kind="request_missing", contains="row 3", count=1)
    table.run()
    before = money(table)
    assert before.overhead > 0
    shutil.rmtree(table.output)
    assert table.run().outcomes == {}
    after = money(table)
    assert (after.settled, after.overhead) == (before.settled, before.overhead)
    assert after.settled == after.dataset + after.superseded + after.overhead


def test_status_says_that_the_ledger_is_lost(
    table: Table, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A ledger that knows nothing of the dataset does not say that there were no runs."""
    table.run()
    monkeypatch.setenv("BATCHATA_LEDGER_URL", f"sqlite:///{tmp_path / 'new.db'}")
    with pytest.raises(WrongLedgerError, match=r"belongs to another ledger.*--rebuild"):
        runs_overview(table.spec())
    rebuild(prepare_run(table.spec(), Settings()), Settings())
    assert [run["result"] for run in runs_overview(table.spec())] == ["rebuilt"]


def die_before_the_second_send(table: Table) -> None:
    """Leave a run of two batches dead, of which one has landed and the other is planned."""
    with pytest.raises(KeyboardInterrupt):
        run_with(
            table,
            stopping_at("submit", lambda chunk: chunk.start > 0, KeyboardInterrupt()),
            items_per_batch=6,
            max_parallel_batches=1,
        )


def test_a_refused_create_makes_no_ledger_look_old(table: Table) -> None:
    """What the provider refused for certain leaves no trace of having been sent."""
    table.emulator.control.faults(kind="http_error", route="create", status=400, nth=1)
    with pytest.raises(TerminalError):
        table.run()
    assert table.run().outcomes == {"succeeded": ROWS}
    check(table)


def test_a_rebuilt_ledger_knows_what_the_lost_one_knew(table: Table, tmp_path: Path) -> None:
    """Runs, outcomes, tokens and money are the same to the last digit.

    That includes failures, rounds and superseded rows.
    """
    table.emulator.control.faults(kind="request_error", contains="row 4", times=1)
    table.emulator.control.faults(kind="request_refusal", contains="row 7")
    table.run(items_per_batch=5)
    table.run(items_per_batch=5, prompt="Again: {{ text }}")
    before = books()
    (tmp_path / "ledger.db").rename(tmp_path / "lost.db")
    rebuild(prepare_run(table.spec(), Settings()), Settings())
    assert books() == before
    assert table.run(prompt="Again: {{ text }}").outcomes == {}


def books() -> list[Any]:
    """Return the ledger's figures of each run."""
    ledger = Ledger(Settings().ledger_url)
    runs = [
        (run.id, run.name, ledger.money(run.id), ledger.outcomes(run.id))
        for run in ledger.runs_of(None, 100)
    ]
    ledger.close()
    return sorted(
        (*run[:3], sorted((name, tally) for name, tally in run[3].items() if tally.rows))
        for run in runs
    )


def test_rows_that_are_held_stay_held_in_a_rebuilt_ledger(
    table: Table, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """An unclear create that nobody can judge is not sent again because the ledger was lost."""
    chunk = leave_in_doubt(table, monkeypatch)
    with monkeypatch.context() as rotated:
        rotated.setenv(f"{table.provider.upper()}_API_KEY", "another key")
        reconcile(ReconcileRequest(hold=(chunk,)))
    (tmp_path / "ledger.db").rename(tmp_path / "lost.db")
    assert rebuild(prepare_run(table.spec(), Settings()), Settings()).held_chunks == 1
    assert table.run().plan["in_flight"] == 12
    assert table.ledger()["requests_accepted"] == 12


def test_ledger_and_rows_are_lost_together(table: Table, tmp_path: Path) -> None:
    """Manifests and commits are enough: the parts are restored, and nothing is sent."""
    table.run(items_per_batch=3)
    (tmp_path / "ledger.db").rename(tmp_path / "lost.db")
    shutil.rmtree(table.output / "data")
    rebuild(prepare_run(table.spec(), Settings()), Settings())
    assert table.run(items_per_batch=3).outcomes == {}
    check(table)


@pytest.mark.parametrize("lost", ["out", "out/data"])
def test_a_recovery_that_dies_is_taken_up_by_the_next_run(
    table: Table, monkeypatch: pytest.MonkeyPatch, lost: str
) -> None:
    """Wherever it died, every row is there in the end, and was paid for once."""
    table.run(items_per_batch=3)
    shutil.rmtree(table.folder / lost)
    with monkeypatch.context() as dying:
        dying.setattr("batchata_tasks.pipeline.recover.collect_and_land", interrupt)
        dying.setattr("batchata_tasks.pipeline.land_again.land_again", interrupt)
        with pytest.raises(KeyboardInterrupt):
            table.run(items_per_batch=3)
    assert table.run(items_per_batch=3).exit_code == 0
    check(table)


def test_what_was_paid_for_comes_back_whatever_is_asked(table: Table) -> None:
    """`limit` and `rerun_on` decide what is sent, not what is landed."""
    table.run(items_per_batch=3)
    shutil.rmtree(table.output)
    receipt = table.run(items_per_batch=3, limit=1, rerun_on=["failed"])
    assert receipt.plan["recovered"] == 12
    check(table)


@pytest.mark.parametrize("lost", ["out", "out/data"])
def test_attempts_are_remembered_when_a_dataset_is_lost(table: Table, lost: str) -> None:
    """Rows that are out of attempts are not sent again, and cost what all their attempts cost."""
    table.emulator.control.faults(kind="request_truncated", contains="row 4")
    table.run(items_per_batch=6)
    before = table.rows()
    shutil.rmtree(table.folder / lost)
    receipt = table.run(items_per_batch=6)
    assert receipt.outcomes == {}
    columns = ("id", "_status", "_attempts", "_cost_usd", "_response")
    assert [[row[name] for name in columns] for row in table.rows()] == [
        [row[name] for name in columns] for row in before
    ]
    assert table.run(items_per_batch=6).plan["exhausted"] == 1


def test_one_part_is_lost(table: Table) -> None:
    """It is written again just as it was; every other row and all money stay the same."""
    table.run(items_per_batch=3)
    before = table.rows()
    next((table.output / "data").iterdir()).unlink()
    assert table.run(items_per_batch=3).outcomes == {}
    assert table.rows() == before
    check(table)


def test_a_ledger_rebuilt_under_another_key_holds_what_it_cannot_look_for(
    table: Table, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Nothing is sent for it; with the right key again, it is found and adopted."""
    leave_in_doubt(table, monkeypatch)
    (tmp_path / "ledger.db").rename(tmp_path / "lost.db")
    with monkeypatch.context() as rotated:
        rotated.setenv(f"{table.provider.upper()}_API_KEY", "acct:other:key")
        assert rebuild(prepare_run(table.spec(), Settings()), Settings()).held_chunks == 1
        assert table.run().plan["in_flight"] == 12
    (line,) = table.ledger()["batches"]
    ledger = Ledger(Settings().ledger_url)
    (chunk,) = ledger.chunks_in(("held",))
    ledger.close()
    assert reconcile(ReconcileRequest(adopt={chunk.id: line["id"]})).adopted
    table.run()
    check(table)


# --- a part of a loss, a part of a recovery -------------------------------------------------------


def dying_after(calls: int, real: Callable[..., Any]) -> Callable[..., Any]:
    """Return a step that dies the `times`th time."""
    calls_left = iter([real] * calls)

    def step(*asked: Any) -> Any:
        return next(calls_left, interrupt)(*asked)

    return step


def test_no_key_is_doubled_when_rows_are_lost_in_the_middle_of_a_run(
    table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that has replaced some rows of an older part dies, and data/ is lost.

    Each key is there once in the end.
    """
    table.run()
    table.emulator.control.progress("reads", 1)
    with monkeypatch.context() as dying:
        dying.setattr("batchata_tasks.execution.poll.look_once", dying_after(3, look_once))
        with pytest.raises(KeyboardInterrupt):
            table.run(items_per_batch=3, max_parallel_batches=1, prompt="Again: {{ text }}")
    shutil.rmtree(table.output / "data")
    assert table.run(
        items_per_batch=3, max_parallel_batches=1, prompt="Again: {{ text }}"
    ).continued
    assert len(table.rows()) == 12
    assert table.ledger()["accepted_twice"]["number"] == 0
    check_money(table)


@pytest.mark.parametrize("landed", [0, 1, 2])
def test_a_folder_that_was_away_is_back(
    table: Table, monkeypatch: pytest.MonkeyPatch, landed: int
) -> None:
    """A run without the folder began to recover, and died.

    The rows are there as before, and their money counts once.
    """
    table.run(items_per_batch=4)
    before = table.rows()
    table.output.rename(table.folder / "aside")
    with monkeypatch.context() as dying:
        dying.setattr(
            "batchata_tasks.pipeline.recover.collect_and_land",
            dying_after(landed, collect_and_land),
        )
        with pytest.raises(KeyboardInterrupt):
            table.run(items_per_batch=4)
    shutil.rmtree(table.output)
    (table.folder / "aside").rename(table.output)
    assert table.run(items_per_batch=4).outcomes == {}
    assert table.rows() == before
    check(table)
    check_money(table)


@pytest.mark.parametrize("landed", [0, 1, 2])
def test_a_recovery_that_dies_between_rounds_sends_nothing(
    table: Table, monkeypatch: pytest.MonkeyPatch, landed: int
) -> None:
    """Under any options, the answer of a later attempt is landed and not sent for again."""
    table.emulator.control.faults(kind="request_truncated", contains="row 4", times=1)
    assert table.run(items_per_batch=6).rounds == 2
    before, sent = table.rows(), table.ledger()["requests_accepted"]
    shutil.rmtree(table.output)
    with monkeypatch.context() as dying:
        dying.setattr(
            "batchata_tasks.pipeline.recover.collect_and_land",
            dying_after(landed, collect_and_land),
        )
        with pytest.raises(KeyboardInterrupt):
            table.run(items_per_batch=6)
    table.run(items_per_batch=6, rerun_on=["new"])
    table.run(items_per_batch=6)
    columns = ("id", "_status", "_attempts", "_cost_usd", "_response")
    assert [[row[name] for name in columns] for row in table.rows()] == [
        [row[name] for name in columns] for row in before
    ]
    assert table.ledger()["requests_accepted"] == sent
    check_money(table)


def test_a_part_that_cannot_be_had_again_is_paid_for_once(
    table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its results are gone, too: its rows are sent again, and their cost counts once.

    A later attempt carries some of that cost.
    """
    table.emulator.control.faults(kind="request_truncated", contains="row 4", times=1)
    table.run()
    next((table.output / "data").glob("*.v2.parquet")).unlink()
    shutil.rmtree(table.output / "_batchata/responses")
    (first, _) = [chunk.batch_id for chunk in all_chunks()]
    control = table.emulator.control
    (control.archive if table.provider == "anthropic" else control.delete_outputs)(str(first))
    monkeypatch.setenv("BATCHATA_PATIENCE", "0.1")
    assert table.run().outcomes == {"succeeded": 11}
    sums = money(table)
    assert sums.settled == sums.dataset + sums.superseded + sums.overhead
    assert len(table.rows()) == 12


def test_manifests_and_a_part_are_lost(table: Table) -> None:
    """The cost of earlier attempts in the remaining rows is not counted again; nothing is sent."""
    table.emulator.control.faults(kind="request_truncated", contains="row", times=1)
    table.run(items_per_batch=3)
    before, sent = table.rows(), table.ledger()["requests_accepted"]
    min((table.output / "data").iterdir()).unlink()
    shutil.rmtree(table.output / "_batchata/intents")
    table.run(items_per_batch=3)
    columns = ("id", "_status", "_attempts", "_cost_usd", "_response")
    assert [[row[name] for name in columns] for row in table.rows()] == [
        [row[name] for name in columns] for row in before
    ]
    assert table.ledger()["requests_accepted"] == sent
    check_money(table)


def test_the_plan_of_a_later_round_is_lost(table: Table) -> None:
    """The rows are planned again: no run depends on a file that can be made again."""
    table.emulator.control.faults(kind="request_truncated", contains="row 4", times=1)
    with pytest.raises(KeyboardInterrupt):
        run_with(table, stopping_at("submit", lambda chunk: chunk.round > 1, KeyboardInterrupt()))
    for path in (table.output / "_batchata/runs").rglob("plan-2.*"):
        path.unlink()
    assert table.run().exit_code == 0
    assert len(table.rows()) == 12
    check_money(table)


def test_a_batch_that_another_chunk_adopted_holds_nothing(
    table: Table, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The ledger is lost with batches of equal size in flight: each chunk waits for its own.

    The others may find theirs at any time.
    """
    table.emulator.control.faults(kind="never_ends", nth=2)

    def die(*_: object) -> None:
        until(lambda: table.ledger()["batches_accepted"] == 2)
        raise KeyboardInterrupt

    with monkeypatch.context() as dying:
        dying.setattr("batchata_tasks.pipeline.steps.poll", die)
        with pytest.raises(KeyboardInterrupt):
            table.run(items_per_batch=6)
    first, second = (line["id"] for line in table.ledger()["batches"])
    (tmp_path / "ledger.db").rename(tmp_path / "lost.db")
    rebuild(prepare_run(table.spec(), Settings()), Settings())
    # the second needs its end, or its token, to be told
    adopted = set(reconcile().adopted.values())
    assert {first} <= adopted <= {first, second}
    for chunk in all_chunks():  # as a run leaves them that saw both, and died
        path = table.output / f"_batchata/intents/{chunk.id}.json"
        write_json(path, {**(read_json(path) or {}), "candidates": [first, second]})
    ends = threading.Timer(2.5, table.emulator.control.cancel, (second,), {"share": 1.0})
    ends.start()
    receipt = table.run(items_per_batch=6)
    ends.join()
    assert (receipt.held_rows, len(table.rows()), receipt.exit_code) == (0, 12, 0)
    check(table)


def test_what_failed_and_comes_back_is_tried_again_at_once(table: Table) -> None:
    """A run that recovers a row worth another attempt makes that attempt.

    It reports how the row ended.
    """
    table.emulator.control.faults(kind="request_truncated", contains="row 4", times=1)
    assert table.run(max_attempts=1, rerun_on=["new"]).exit_code == 3
    shutil.rmtree(table.output)
    receipt = table.run()
    assert (receipt.plan["recovered"], receipt.plan["reasons"], receipt.exit_code) == (
        12,
        {"failed": 1},
        0,
    )
    assert {row["_status"] for row in table.rows()} == {"succeeded"}
    check_money(table)


def test_answers_that_nobody_wants_any_more_count_with_what_they_cost(
    table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows in flight when the folder was lost have another prompt since.

    They are settled from their usage, not from their bound.
    """
    die_with_batches_open(table, monkeypatch)
    shutil.rmtree(table.output)
    table.emulator.control.progress("immediate")
    assert table.run(items_per_batch=3, prompt="Again: {{ text }}").outcomes == {"succeeded": 12}
    sums = money(table)
    assert sums.settled == sums.dataset + sums.overhead == billed(table)


def test_rows_that_cannot_be_sent_survive_the_loss_of_the_ledger(
    table: Table, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Rows that were landing when the run died land under the rebuilt ledger.

    Nothing is looked up.
    """
    for provider in (AnthropicAdapter, OpenAIAdapter):
        monkeypatch.setattr(provider, "limits", Limits(1000, 10))
    with monkeypatch.context() as dying:
        appearing = "batchata_tasks.execution.land.put_in_place"
        dying.setattr(appearing, dying_after(0, put_in_place))
        with pytest.raises(KeyboardInterrupt):
            table.run()
    (tmp_path / "ledger.db").rename(tmp_path / "lost.db")
    assert rebuild(prepare_run(table.spec(), Settings()), Settings()).open_chunks == 1
    assert table.run().exit_code == 3
    assert {row["_status"] for row in table.rows()} == {"errored"}
    check_money(table)


def test_a_dataset_that_came_back_outlives_its_ledger(table: Table, tmp_path: Path) -> None:
    """A dataset is recovered, then its ledger is lost and rebuilt twice.

    The batches are known, and nothing is sent.
    """
    table.run(items_per_batch=3)
    shutil.rmtree(table.output)
    table.run(items_per_batch=3)
    (tmp_path / "ledger.db").rename(tmp_path / "lost.db")
    rebuild(prepare_run(table.spec(), Settings()), Settings())
    assert reconcile().strays == []
    shutil.rmtree(table.output / "data")
    shutil.rmtree(table.output / "_batchata/intents")
    assert table.run(items_per_batch=3).plan["recovered"] == 12
    check(table)
    check_money(table)


def test_the_books_of_a_dataset_that_came_back_outlive_its_ledger(
    table: Table, tmp_path: Path
) -> None:
    """The folder is lost and recovered, then the ledger is lost and rebuilt.

    Prices, bounds, outcomes and money of each run are what they were, to the last digit; runs keep
    their begin, and nothing is sent.
    """
    table.emulator.control.faults(kind="request_error", contains="row 4", times=1)
    table.emulator.control.faults(kind="request_refusal", contains="row 7")
    table.run(items_per_batch=5)
    table.run(items_per_batch=5, prompt="Again: {{ text }}")
    shutil.rmtree(table.output)
    lost_at, sent = now_us(), table.ledger()["requests_accepted"]
    table.run(items_per_batch=5, prompt="Again: {{ text }}")
    before, sums, costs = books_of_sent(), money(table), costs_told()
    (tmp_path / "ledger.db").rename(tmp_path / "lost.db")
    rebuild(prepare_run(table.spec(), Settings()), Settings())
    assert (books_of_sent(), money(table), costs_told()) == (before, sums, costs)
    ledger = Ledger(Settings().ledger_url)
    assert all(run.started_at < lost_at for run in ledger.runs_of(None, 100))
    ledger.close()
    assert table.run(items_per_batch=5, prompt="Again: {{ text }}").outcomes == {}
    assert table.ledger()["requests_accepted"] == sent
    assert money(table) == sums


def books_of_sent() -> list[Any]:
    """Return the ledger's figures of each run that sent something."""
    return [run for run in books() if run[2] != (0, 0)]


def costs_told() -> dict[str, Any]:
    """Return what `batchata costs` says, but for the number of runs: some sent nothing."""
    report = json.loads(CliRunner().invoke(app, ["costs", "--json"]).stdout)
    for one in (*report["groups"], report["total"]):
        del one["runs"]
    return report


@pytest.mark.parametrize("state", ["held", "overdue", "abandoned"])
def test_what_was_set_aside_outlives_folder_and_ledger(
    table: Table, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, state: str
) -> None:
    """Rows that are held or given up are that after both losses: nobody pays for them unasked."""
    monkeypatch.setenv("BATCHATA_CANCEL_GRACE", "0.2")
    monkeypatch.setenv("BATCHATA_PATIENCE", "0.3")
    if state == "held":
        leave_in_doubt(table, monkeypatch)
        with monkeypatch.context() as rotated:
            rotated.setenv(f"{table.provider.upper()}_API_KEY", "another key")
            reconcile(ReconcileRequest(hold=tuple(in_state("unclear"))))
    else:
        batch = left_overdue(table)
        if state == "abandoned":
            reconcile(ReconcileRequest(abandon=(batch,)))
    sent = money(table)
    shutil.rmtree(table.output)
    with nullcontext() if state == "abandoned" else pytest.raises(HeldError, match="is lost"):
        table.run(rerun_on=["failed"])
    (tmp_path / "ledger.db").rename(tmp_path / "lost.db")
    rebuild(prepare_run(table.spec(), Settings()), Settings())
    assert len(in_state(state)) == 1
    assert money(table) == sent


def test_doubt_that_outlives_the_folder_is_held(
    emulator: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If nobody can say whether a create was accepted, nor which rows it had, it is held.

    A person frees it, as the runs say, and its rows are sent.
    """
    table = Table(tmp_path, emulator, "anthropic", rows=12)
    chunk = leave_in_doubt(table, monkeypatch, "drop_before")
    (other,) = emulator.control.foreign("anthropic", requests=12, ends="at_once")
    emulator.control.archive(other)
    shutil.rmtree(table.output)
    monkeypatch.setenv("BATCHATA_PATIENCE", "0.4")
    for _ in range(2):
        with pytest.raises(HeldError, match="batchata reconcile"):
            table.run()
    assert reconcile(ReconcileRequest(resend=(chunk,))).freed == [chunk]
    assert table.run().outcomes == {"succeeded": 12}
    check(table)


def test_batches_of_a_lost_folder_can_be_cancelled(
    table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They continue at the provider; the next run lands what ran by then and sends the rest.

    Nothing is paid for twice.
    """
    die_with_batches_open(table, monkeypatch)
    shutil.rmtree(table.output)
    assert cancel(table.spec(items_per_batch=3)).result == "cancelled"
    table.emulator.control.progress("immediate")
    receipt = table.run(items_per_batch=3)
    assert (receipt.exit_code, len(table.rows())) == (0, 12)
    assert "cancelled" in {line["ending"] for line in table.ledger()["batches"]}
    assert table.ledger()["billed_twice"]["number"] == 0
    check_money(table)
