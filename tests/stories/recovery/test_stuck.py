"""Batches that never end, told by every command, and from Python."""

from __future__ import annotations

import math
import shutil
from typing import TYPE_CHECKING, Any

import pytest
from typer.testing import CliRunner

from batchata_tasks import Batch
from batchata_tasks.cli.commands import app
from batchata_tasks.common.errors import HeldError, TransientError
from batchata_tasks.ledger import ChunkState
from batchata_tasks.operations import cancel as cancelling
from batchata_tasks.operations.reconcile_report import ReconcileRequest
from tests.support.books import all_chunks, check_money, money, opened, run_with, stopping_at
from tests.support.operations import cancel, reconcile, runs_overview
from tests.support.stuck import a_day_later, add_rows, left_overdue, limited, stick, told
from tests.support.table import MODELS, TIME_TO_SEND, Table
from tests.support.unclear import in_state, leave_in_doubt

if TYPE_CHECKING:
    from pathlib import Path

    from batchata_tasks.emulator import Emulator

pytestmark = pytest.mark.in_turn

ROWS = 3


@pytest.fixture(autouse=True)
def _short_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BATCHATA_PATIENCE", "0.3")
    monkeypatch.setenv("BATCHATA_CANCEL_GRACE", "0.2")


def leave_open(table: Table) -> str:
    """Leave a run dead with a batch that never ends; return the batch's id."""
    stick(table)
    steps = stopping_at("poll", lambda _: True, KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        run_with(table, steps)
    (batch,) = [line["id"] for line in table.ledger()["batches"]]
    return batch


def test_cancel_ends_although_a_batch_does_not(table: Table) -> None:
    """`cancel` waits for the grace, names the batch, ends with 3, and closes the run."""
    batch = leave_open(table)
    report = cancel(table.spec())
    assert (report.result, report.overdue, report.exit_code) == ("cancelled", (batch,), 3)
    assert any(batch in text and "--abandon" in text for _, text in report.lines())
    (run,) = runs_overview(table.spec())
    assert (run["state"], run["batches"][0]["state"]) == ("closed", "overdue")
    assert cancel(table.spec()).exit_code == 3  # no run is open, and the rows still are
    table.emulator.control.finish(batch)
    assert table.run().plan["up_to_date"] == ROWS
    assert cancel(table.spec()).exit_code == 0
    check_money(table)


def test_cancel_does_not_wait_for_ever_for_another_process(
    table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that holds the run and does not end it is named, after a bounded wait."""
    leave_open(table)
    monkeypatch.setattr(cancelling, "_SHORTEST", 0.1)
    monkeypatch.setattr(cancelling, "_PAUSE", 0.05)
    monkeypatch.setenv("BATCHATA_PATIENCE", "0")
    with opened() as ledger:
        (chunk,) = ledger.chunks_in((ChunkState.SUBMITTED,))
        lease = ledger.acquire_lease(chunk.dataset_id, 60)
        report = cancel(table.spec())
        ledger.release_lease(lease)
    assert report.at_work is not None
    assert report.exit_code == 3
    assert any("has not ended the run yet" in text for _, text in report.lines())


def test_a_provider_that_cannot_be_reached_does_not_keep_the_others_from_being_compared(
    table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`reconcile` notes it and goes on; if nobody can be reached, that is the error."""
    table.run()
    other = next(name for name in MODELS if name != table.provider)
    monkeypatch.setenv(f"{other.upper()}_BASE_URL", "http://127.0.0.1:9")
    report = reconcile()
    assert report.known == {table.provider: 1}
    (note,) = [note for note in report.notes if "could not be asked" in note]
    assert note.startswith(other)
    assert (report.unasked, report.exit_code) == ([other], 1)
    monkeypatch.setenv(f"{table.provider.upper()}_BASE_URL", "http://127.0.0.1:9")
    with pytest.raises(TransientError, match="cannot reach"):
        reconcile()


def test_a_run_goes_on_with_new_rows_while_an_overdue_batch_cannot_be_looked_at(
    table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a key for its provider, or under another key, an overdue batch stays as it is."""
    batch = left_overdue(table)
    other = next(name for name in MODELS if name != table.provider)
    key = f"{table.provider.upper()}_API_KEY"
    elsewhere: dict[str, Any] = {"model": MODELS[other], "rerun_on": ["new"]}
    table.values.append({"id": "new", "text": "a new row", "note": ""})
    table.write()
    with monkeypatch.context() as patch:
        patch.delenv(key)
        receipt, notes = told(table, **elsewhere)
    assert (receipt.outcomes, receipt.held_rows) == ({"succeeded": 1}, ROWS)
    assert any(batch in note and "3 rows are held" in note for note in notes)
    with monkeypatch.context() as patch:
        patch.setenv(key, "acct:other:key")
        receipt, notes = told(table, **elsewhere)
    assert receipt.held_rows == ROWS
    assert any("set " in note and batch in note for note in notes)
    assert len(in_state(ChunkState.OVERDUE)) == 1
    table.emulator.control.finish(batch)
    assert table.run(**elsewhere).held_rows == 0
    assert len(table.rows()) == ROWS + 1


def test_an_overdue_batch_that_cannot_be_told_does_not_keep_others_from_landing(
    table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A provider that answers 500 to the look at one batch is asked for the next one."""
    first = left_overdue(table)
    add_rows(table, ROWS)
    stick(table)
    told(table, limited())
    assert len(in_state(ChunkState.OVERDUE)) == 2
    monkeypatch.setenv("BATCHATA_PATIENCE", "0")
    for batch in table.ledger()["batches"]:
        table.emulator.control.finish(batch["id"])
    table.emulator.control.faults(kind="http_error", status=500, route="get", count=2)
    _, notes = told(table)
    assert any(first in note and "3 rows are held" in note for note in notes)
    assert len(in_state(ChunkState.OVERDUE)) == 1
    assert len(table.rows()) == ROWS


def test_an_overdue_batch_that_is_gone_stays_set_aside(table: Table) -> None:
    """It may have been paid for: its rows are sent again only once a person gives it up."""
    batch = left_overdue(table)
    table.emulator.control.vanish(batch)
    sent = table.ledger()["requests_accepted"]
    receipt, notes = told(table)
    assert any(f"batch {batch} is not at the provider any more" in note for note in notes)
    assert any(f"--abandon {batch}" in note for note in notes)
    assert (receipt.plan["held"], table.ledger()["requests_accepted"]) == (ROWS, sent)
    reconcile(ReconcileRequest(abandon=(batch,)))
    receipt, _ = told(table)
    assert (receipt.held_rows, receipt.exit_code) == (0, 0)
    assert len(table.rows()) == ROWS
    assert money(table).overhead > 0


def test_a_deleted_folder_names_the_batch_that_hides_its_rows(table: Table) -> None:
    """Which rows an overdue batch has is lost with the folder: the run says which batch it is.

    Once the batch has ended, its rows come back from its results.
    """
    batch = left_overdue(table)
    shutil.rmtree(table.output)
    with pytest.raises(HeldError, match=f"--abandon {batch}"):
        table.run()
    table.emulator.control.finish(batch)
    assert table.run().exit_code == 0
    assert table.ledger()["requests_accepted"] == ROWS
    check_money(table)


def test_a_stuck_pilot_ends_its_run_and_the_next_one_has_a_pilot_of_its_own(
    table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without its pilot's answers a run sends nothing more; the next goes on with new rows."""
    stick(table)
    pilot: dict[str, Any] = {"pilot": {"rows": 1, "max_invalid_share": 1.0}}
    with monkeypatch.context() as later:
        a_day_later(later)
        receipt, _ = told(table, **pilot)
    assert (receipt.exit_code, receipt.held_rows, receipt.unsent_rows) == (3, 1, ROWS - 1)
    receipt = table.run(**pilot)
    assert (receipt.outcomes, receipt.held_rows) == ({"succeeded": ROWS - 1}, 1)
    assert receipt.batches == 2


def test_jobs_of_a_batch_that_does_not_end_say_so(
    emulator: Emulator,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """From Python, such a job is held, not lost and not unsent; it names its chunk and what helps.

    Nobody knows what it costs.
    """
    emulator.control.faults(kind="stuck_finalizing", count=1)
    a_day_later(monkeypatch)
    batch = Batch(tmp_path / "res").set_default_params(model="gpt-6-luna", max_tokens=50)
    batch.set_state(tmp_path / "state.json").add_job(prompt="text", id="a")
    run = batch.run()
    assert run.receipt is not None
    assert (run.receipt.held_rows, run.receipt.exit_code) == (1, 3)
    ((chunk, stuck),) = [(one.id, one.batch_id) for one in all_chunks()]
    result = run.results()["a"]
    for text in (f"held: batch {stuck} has not ended", chunk, f"reconcile --abandon {stuck}`"):
        assert text in (result.error or "")
    assert (result.to_dict()["cost_usd"], run.status()["cost_usd"]) == (None, None)
    assert run.status(print_status=True)["held"] == 1
    assert "1 held (results() says why); unknown" in capsys.readouterr().out


def test_jobs_of_a_create_in_doubt_name_what_decides(
    emulator: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A held job names its chunk, what its create was answered, and the commands that decide.

    What it costs is not known; one that landed beside it has its cost.
    """
    monkeypatch.setenv("BATCHATA_UNCLEAR_GRACE", "0.2")
    for fault in ("lists_unproven", "list_empty"):
        emulator.control.faults(kind=fault, provider="openai")
    emulator.control.faults(kind="http_error_after", provider="openai", status=402, count=1)
    batch = Batch(tmp_path / "res").set_default_params(max_tokens=50)
    for number, model in enumerate(MODELS.values()):
        batch.add_job(prompt="text", id=f"j{number}", model=model)
    run = batch.run()
    landed, held = run.results()["j0"], run.results()["j1"]
    (chunk,) = in_state(ChunkState.HELD)
    error = held.error or ""
    assert error.startswith("held: nobody can tell whether its batch was accepted")
    for text in ("HTTP 402", f"--adopt {chunk}=BATCH", f"--resend {chunk}`"):
        assert text in error
    assert (landed.is_success(), landed.cost_usd > 0, math.isnan(held.cost_usd)) == (True,) * 3
    assert run.status()["cost_usd"] > 0


def test_a_batch_that_does_not_end_at_one_provider_keeps_none_of_the_other(
    emulator: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a run with two providers, one's answers land although the other's batch is stuck."""
    emulator.control.faults(kind="stuck_finalizing", provider="openai", count=1)
    a_day_later(monkeypatch)
    for attempt in range(2):
        batch = Batch(tmp_path / "res").set_default_params(max_tokens=50)
        for number, model in enumerate(MODELS.values()):
            batch.add_job(prompt="text", id=f"j{number}", model=model)
        if attempt:
            (stuck,) = [one["id"] for one in emulator.control.ledger()["openai"]["batches"]]
            emulator.control.finish(stuck)
        results = batch.run().results()
        assert results["j0"].is_success()
        assert results["j1"].is_success() == bool(attempt)


def test_a_create_in_doubt_does_not_keep_a_cancel_waiting_for_ever(
    emulator: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A nameless batch that may be ours and never ends holds its rows, after the grace."""
    table = Table(tmp_path, emulator, "anthropic", ROWS)
    monkeypatch.setenv("BATCHATA_UNCLEAR_GRACE", "0.1")
    table.emulator.control.faults(kind="never_ends", count=1)
    chunk = leave_in_doubt(table, monkeypatch)
    report = cancel(table.spec())
    assert (report.result, in_state(ChunkState.HELD)) == ("cancelled", [chunk])


def test_the_command_line_gives_a_batch_up(table: Table) -> None:
    """`batchata reconcile --abandon BATCH` ends with 0 and says what it did."""
    batch = left_overdue(table)
    done = CliRunner().invoke(app, ["reconcile", "--abandon", batch])
    assert done.exit_code == 0
    assert f"batch {batch}: its rows are planned again" in " ".join(done.stdout.split())
    assert in_state(ChunkState.ABANDONED)


def test_one_of_two_batches_that_does_not_end_keeps_nothing_else(
    table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The others land, and money of the stuck one is not waited for under a limit."""
    stick(table)
    a_day_later(monkeypatch)
    receipt, _ = told(table, items_per_batch=1, max_parallel_batches=1, cost_limit_usd=1)
    assert (receipt.outcomes, receipt.held_rows, receipt.exit_code) == ({"succeeded": 2}, 1, 3)


def test_a_time_limit_bounds_the_wait_for_an_earlier_runs_batches(table: Table) -> None:
    """A spec that was given a time limit since does not wait on for what an older one left."""
    batch = leave_open(table)
    receipt = table.run(time_limit=TIME_TO_SEND, prompt="{{ id }}: {{ text }}")
    assert receipt.held_rows == ROWS
    assert batch in " ".join(receipt.warnings)
