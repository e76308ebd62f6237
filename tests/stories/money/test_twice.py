"""A proxy or gateway that repeats a create by itself, so that the provider accepts it twice.

It cannot be prevented. It is noticed, told, and counted; and nothing more is sent through it.
"""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import delete

from batchata_tasks.common.money import exact
from batchata_tasks.common.settings import Settings
from batchata_tasks.ledger import ChunkState, Ledger
from batchata_tasks.ledger import tables as t
from batchata_tasks.operations.rebuild import rebuild
from batchata_tasks.operations.reconcile_report import ReconcileRequest
from batchata_tasks.pipeline.steps import Steps
from batchata_tasks.planning.prepare import prepare_run
from tests.support.books import all_chunks, money, opened, run_with, stopping_at
from tests.support.operations import gather, reconcile, runs_overview
from tests.support.stuck import add_rows, told
from tests.support.table import APIS, Table
from tests.support.unclear import in_state

if TYPE_CHECKING:
    from pathlib import Path

    from batchata_tasks.emulator import Emulator
    from batchata_tasks.execution.run_ref import RunRef

ROWS = 3
BUDGET = {"name": "shared", "limit_usd": 5, "period": "month"}
EPOCH = datetime.fromtimestamp(0, UTC)


@pytest.fixture(autouse=True)
def _hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BATCHATA_PATIENCE", "0.3")
    monkeypatch.setenv("BATCHATA_UNCLEAR_GRACE", "0.2")


@pytest.fixture(params=[api for api in APIS if api != "anthropic"])
def named(request: pytest.FixtureRequest, emulator: Emulator, tmp_path: Path) -> Table:
    """Return a table for an API whose batches carry names."""
    return Table(tmp_path, emulator, request.param, ROWS)


def one_by_one(**changes: Any) -> dict[str, Any]:
    return {"items_per_batch": 1, "max_parallel_batches": 1, **changes}


def batches(table: Table) -> list[str]:
    """Return the ids of all that the provider accepted, oldest first."""
    return [line["id"] for line in table.ledger()["batches"]]


def bound() -> int:
    """Return the bound of the first chunk, in picodollars."""
    return all_chunks()[0].bound or 0


def counted() -> int:
    """Return what all runs spent for no row, in picodollars."""
    return gather("spec", EPOCH).total.totals.overhead


@pytest.mark.parametrize("proven", [True, False])
def test_a_repeated_create_is_told_counted_and_ends_the_sending(named: Table, proven: bool) -> None:
    """The next create's list shows the second batch: the run says so, sends nothing more, ends 3.

    What it can have cost counts in its money, its budget and `costs`; so it does behind a gateway
    whose lists prove nothing else.
    """
    control = named.emulator.control
    if not proven:
        control.faults(kind="lists_unproven")
    control.faults(kind="repeats_create")
    receipt, notes = told(named, **one_by_one(cost_limit_usd=1, budget=BUDGET))
    assert (receipt.exit_code, receipt.outcomes) == (3, {"succeeded": 1})
    assert (receipt.unsent_rows, receipt.batches, receipt.accepted_twice) == (2, 1, 1)
    assert ("Result", "a batch was accepted twice") in receipt.lines()
    first, second = batches(named)
    (warning,) = receipt.warnings
    (note,) = [note for note in notes if warning in note]
    assert "Nothing more is sent." in note
    stops = f"`batchata reconcile --cancel {first}` stops it"
    for words in (first, second, "repeats requests", stops):
        assert words in warning
    sums = money(named)
    assert (sums.reserved, sums.overhead, sums.settled) == (0, bound(), sums.dataset + bound())
    assert receipt.overhead_usd == exact(bound())
    assert receipt.budget is not None
    assert receipt.cost_usd == receipt.budget["spent_usd"] == exact(sums.settled)
    (group,) = gather("model", EPOCH).groups
    assert group.batches == 2
    assert (group.totals.settled, group.totals.overhead) == (sums.settled, bound())
    (run,) = runs_overview(None)
    assert run["accepted_twice"] == 1
    control.clear_faults()
    assert named.run(**one_by_one()).exit_code == 0
    assert (counted(), len(named.rows()), len(batches(named))) == (bound(), ROWS, 4)


def test_the_last_create_of_a_run_is_looked_at_too(named: Table) -> None:
    """A run lists its batches once more at its end; a second start tells and counts no more."""
    named.emulator.control.faults(kind="repeats_create")
    receipt = named.run()
    assert (receipt.exit_code, receipt.outcomes, receipt.unsent_rows) == (3, {"succeeded": 3}, 0)
    for _ in range(2):
        receipt = named.run()
        assert (receipt.exit_code, receipt.warnings, counted()) == (0, [], bound())


def test_a_list_that_fails_at_the_end_is_only_told(named: Table) -> None:
    """The run has its rows; that nobody looked is said, with the command that does."""
    control = named.emulator.control
    control.faults(kind="repeats_create")
    for call in range(2, 6):  # the first list goes before the create
        control.faults(kind="http_error", route="list", status=500, nth=call)
    receipt, notes = told(named)
    assert (receipt.exit_code, counted()) == (0, 0)
    assert any("`batchata reconcile` does" in note for note in notes)
    assert [batch.counted for batch in reconcile().strays] == [True]
    assert counted() == bound()


def test_a_successor_notices_what_a_dead_run_sent(named: Table) -> None:
    """A run that dies before it can look is carried on, notices it, and sends nothing more."""
    named.emulator.control.faults(kind="repeats_create")
    with pytest.raises(KeyboardInterrupt):
        run_with(named, stopping_at("poll", lambda _: True, KeyboardInterrupt()), **one_by_one())
    receipt = named.run(**one_by_one())
    assert (receipt.exit_code, receipt.accepted_twice, len(batches(named))) == (3, 1, 2)
    assert counted() == bound()


def test_a_lost_answer_of_a_repeated_create_is_adopted_once(named: Table) -> None:
    """Of two batches that were accepted, one is the chunk's; the other counts as spent."""
    named.emulator.control.faults(kind="repeats_create", count=1)
    with pytest.raises(KeyboardInterrupt):
        run_with(named, stopping_at("submit", lambda _: True, KeyboardInterrupt(), after=True))
    forget_answer()
    receipt = named.run()
    assert (receipt.exit_code, receipt.outcomes, receipt.accepted_twice) == (3, {"succeeded": 3}, 1)
    assert (len(batches(named)), counted()) == (2, bound())


def forget_answer() -> None:
    """Let the ledger not know of any batch yet, as if the process had died before the answer."""
    with opened() as ledger:

        def forget(connection: Any) -> None:
            connection.execute(delete(t.batches))
            connection.execute(t.chunks.update().values(state=ChunkState.UNCLEAR, batch_id=None))

        ledger.transact(forget, reading=False)


@pytest.mark.parametrize("lost", ["ledger", "money"])
def test_what_was_counted_outlives_the_ledger(
    named: Table, monkeypatch: pytest.MonkeyPatch, lost: str
) -> None:
    """A ledger that is rebuilt, or was left before it counted, counts it by the dataset's files."""
    named.emulator.control.faults(kind="repeats_create", count=1)
    named.run(budget=BUDGET)
    if lost == "ledger":
        monkeypatch.setenv("BATCHATA_LEDGER_URL", f"sqlite:///{named.folder / 'another.db'}")
        with closing(prepare_run(named.spec(budget=BUDGET), Settings())) as ready:
            rebuild(ready, Settings())
        assert counted() == bound()
    else:
        uncount = delete(t.reservations).where(t.reservations.c.chunk_id.like("%-%"))
        with opened() as ledger:
            ledger.transact(lambda connection: connection.execute(uncount), reading=False)
        assert counted() == 0
    receipt = named.run(budget=BUDGET)
    assert (receipt.exit_code, counted()) == (0, bound())
    assert receipt.budget is not None
    assert receipt.budget["spent_usd"] == exact(money(named).settled)


@pytest.mark.parametrize(
    "fault",
    [
        {"kind": "token_limit"},
        {"kind": "create_names_job"},
        {"kind": "drop_after"},
        {"kind": "accept_delay", "seconds": 0.1},
    ],
    ids=lambda fault: str(fault["kind"]),
)
def test_what_is_no_second_batch(named: Table, fault: dict[str, Any]) -> None:
    """One that was returned for lack of room, has another id, or was adopted is none."""
    named.emulator.control.faults(count=1, **fault)
    receipt = named.run()
    assert (receipt.exit_code, receipt.accepted_twice, counted()) == (0, 0, 0)
    assert receipt.outcomes == {"succeeded": ROWS}


def test_a_batch_that_ledger_and_folder_forgot_is_not_sent_again(
    named: Table, tmp_path: Path
) -> None:
    """A machine is set back to a snapshot: what it sent since carries its chunk's name."""
    snapshot, ledger = tmp_path / "snapshot", tmp_path / "ledger.db"

    def submit(ref: RunRef, chunk_id: str) -> dict[str, Any]:
        if not snapshot.exists():
            shutil.copytree(named.output, snapshot)
            with closing(sqlite3.connect(ledger)) as used, closing(sqlite3.connect(copy)) as to:
                used.backup(to)
                to.execute("UPDATE datasets SET lease_until = 0")
                to.commit()
        return Steps().submit(ref, chunk_id)

    copy = tmp_path / "copy.db"
    steps = replace(stopping_at("poll", lambda _: True, KeyboardInterrupt()), submit=submit)
    with pytest.raises(KeyboardInterrupt):
        run_with(named, steps)
    shutil.rmtree(named.output)
    shutil.copytree(snapshot, named.output)
    shutil.copyfile(copy, ledger)
    receipt = named.run()
    assert (receipt.exit_code, receipt.outcomes) == (0, {"succeeded": ROWS})
    assert named.ledger()["requests_accepted"] == ROWS
    assert receipt.accepted_twice == 0


def test_a_batch_without_a_token_is_known_by_its_file(named: Table) -> None:
    """Some servers keep no metadata: then the file that was uploaded for it alone tells."""
    control = named.emulator.control
    control.faults(kind="odd_objects", style="no_metadata")
    control.faults(kind="repeats_create", count=1)
    receipt = named.run(**one_by_one())
    assert (receipt.exit_code, receipt.accepted_twice, counted()) == (3, 1, bound())


def test_the_first_batch_of_a_chunk_that_was_sent_again_counts_too(named: Table) -> None:
    """A list that lagged behind let a chunk be sent again; later a run sees its first batch.

    It says so. Nothing repeats requests there, so it goes on sending.
    """
    control = named.emulator.control
    control.faults(kind="drop_after", count=1)
    control.faults(kind="list_lag", count=1, seconds=3600)
    assert named.run().exit_code == 0
    assert (len(batches(named)), counted()) == (2, 0)
    control.advance(3700)
    add_rows(named, 2)
    receipt = named.run(**one_by_one())
    assert (receipt.exit_code, receipt.unsent_rows, receipt.accepted_twice) == (3, 0, 1)
    (warning,) = receipt.warnings
    assert "which was taken for never accepted and sent again, as batch" in warning
    assert (len(named.rows()), counted()) == (ROWS + 2, bound())


def test_reconcile_counts_what_no_run_can_see(table: Table) -> None:
    """Anthropic's batches carry no name until their results: `reconcile` reads these, and counts.

    However often it is asked, each counts once.
    """
    control = table.emulator.control
    control.faults(kind="repeats_create")
    if table.provider == "openai":
        control.faults(kind="list_empty")
    assert table.run().exit_code == 0
    control.clear_faults()
    for _ in range(2):
        report = reconcile()
        (second,) = report.strays
        assert (second.twice, second.counted) == (all_chunks()[0].id, True)
        assert counted() == bound()
        (text,) = [text for label, text in report.lines() if label == "Sent twice"]
        assert "counted as spent" in text


def test_a_second_batch_that_has_not_ended_is_stopped_by_name(named: Table) -> None:
    """`reconcile --cancel` ends it, and calls it no other ledger's; the run lands its own."""
    control = named.emulator.control
    control.faults(kind="repeats_create")
    control.progress("seconds", 3600)
    with pytest.raises(KeyboardInterrupt):
        run_with(named, stopping_at("poll", lambda _: True, KeyboardInterrupt()))
    (second,) = reconcile().strays
    assert (second.twice, second.counted) == (all_chunks()[0].id, True)
    report = reconcile(ReconcileRequest(cancel=(second.batch_id,)))
    assert report.cancelled == [second.batch_id]
    assert not any("another ledger" in note for note in report.notes)
    control.progress("immediate")
    receipt = named.run()
    assert (receipt.exit_code, receipt.outcomes) == (3, {"succeeded": ROWS})
    assert (counted(), named.ledger()["billed_twice"]["number"]) == (bound(), 0)


def test_reconcile_leaves_the_counting_to_a_run_at_work(table: Table) -> None:
    """While a run holds the dataset, the batch is reported and not counted."""
    control = table.emulator.control
    control.faults(kind="repeats_create")
    control.faults(kind="list_empty")
    table.run()
    control.clear_faults()
    with closing(Ledger(Settings().ledger_url)) as ledger:
        lease = ledger.acquire_lease(all_chunks()[0].dataset_id, 60)
        assert [batch.counted for batch in reconcile().strays] == [False]
        ledger.release_lease(lease)
    assert counted() == 0


def test_a_chunk_that_was_freed_counts_when_its_batch_shows_up(table: Table) -> None:
    """A person said that it was never accepted, and its money was free again: it was accepted."""
    control = table.emulator.control
    control.faults(kind="lists_unproven")
    control.faults(kind="list_empty")
    control.faults(kind="http_error_after", status=402, count=1)
    table.run(budget=BUDGET)
    (chunk,) = in_state(ChunkState.HELD)
    reconcile(ReconcileRequest(resend=(chunk,)))
    assert in_state(ChunkState.DROPPED) == [chunk]
    assert table.run(budget=BUDGET).exit_code == 0
    control.clear_faults()
    for _ in range(2):
        (second,) = reconcile().strays
        assert (second.twice, second.freed, second.counted) == (chunk, True, True)
        assert counted() == bound()
    receipt = table.run(budget=BUDGET)
    assert receipt.budget is not None
    assert receipt.budget["spent_usd"] == exact(money(table).settled)
