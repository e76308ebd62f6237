"""`batchata reconcile` and `batchata cancel`: the provider's batches against the ledger."""

from __future__ import annotations

import json
import os
import re
import socket
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from batchata_tasks.common.clock import now_us
from batchata_tasks.common.errors import CredentialsError, SpecError, TerminalError
from batchata_tasks.common.settings import Settings
from batchata_tasks.execution.look import look_once
from batchata_tasks.ledger import ChunkState, Ledger
from batchata_tasks.operations import in_doubt
from batchata_tasks.operations.in_doubt import InDoubt
from batchata_tasks.operations.reconcile_report import ReconcileRequest, pairs_of
from batchata_tasks.progress.listener import LineProgress
from tests.support.books import check_money
from tests.support.operations import cancel, reconcile
from tests.support.unclear import in_state, leave_in_doubt

if TYPE_CHECKING:
    from tests.support.table import Table

pytestmark = pytest.mark.in_turn

ROWS = 6


def test_a_batch_that_was_never_confirmed_is_adopted(
    table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An unconfirmed batch is found in the provider's list and written to the ledger.

    The next run lands it and sends nothing.
    """
    chunk = leave_in_doubt(table, monkeypatch)
    table.emulator.control.advance(5)
    report = reconcile()
    assert list(report.adopted) == [chunk]
    assert in_state(ChunkState.SUBMITTED) == [chunk]
    assert table.run().outcomes == {"succeeded": 6}
    assert table.ledger()["requests_accepted"] == 6
    table.check_answers()


def test_what_nobody_owns_is_reported_and_cancelled_on_request(table: Table) -> None:
    """Other programs' batches are listed with size and age, and left alone unless named."""
    table.run()
    table.emulator.control.progress("seconds", 3600)
    table.emulator.control.foreign(table.provider, batches=2, requests=7)
    report = reconcile()
    assert report.known[table.provider] == 1
    assert [stray.requests for stray in report.strays if stray.requests] in ([7, 7], [])
    assert len(report.strays) == 2
    assert {stray.ours for stray in report.strays} == {
        None if table.provider == "anthropic" else False
    }
    named = report.strays[0].batch_id
    assert reconcile(ReconcileRequest(cancel=(named,))).cancelled == [named]
    with pytest.raises(SpecError, match="no such batch that nobody owns"):
        reconcile(ReconcileRequest(cancel=(table.rows()[0]["_batch_id"],)))


def test_batches_of_another_ledger_are_not_called_another_programs(
    table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Batches of another ledger are not reported as another program's.

    Ended ones are recognised by their requests' names, open ones if the provider says enough; the
    remedy is in a note.
    """
    table.emulator.control.progress("seconds", 3600)
    (foreign,) = table.emulator.control.foreign(table.provider, ends="at_once")
    with monkeypatch.context() as dying:
        dying.setattr("batchata_tasks.execution.poll.look_once", interrupt)
        with pytest.raises(KeyboardInterrupt):
            table.run()
    (own,) = [line["id"] for line in table.ledger()["batches"]]
    monkeypatch.setenv("BATCHATA_LEDGER_URL", f"sqlite:///{table.folder / 'another.db'}")
    remedy = (
        "Note",
        "if a ledger was lost, or is from a backup: `batchata status SPEC --rebuild`.",
    )
    unknown = table.provider == "anthropic"
    report = reconcile()
    assert {stray.batch_id: stray.ours for stray in report.strays} == {
        own: None if unknown else True,
        foreign: False,
    }
    (told,) = [
        text
        for what, text in report.lines()
        if what == ("Unknown" if unknown else "Another ledger's")
    ]
    assert ("or of another ledger of this one (the provider does not tell)" in told) == unknown
    assert remedy in report.lines()
    table.emulator.control.advance(7200)
    report = reconcile()
    assert {stray.batch_id: stray.ours for stray in report.strays} == {own: True, foreign: False}
    assert remedy in report.lines()


def test_of_batches_without_number_the_newest_are_printed(
    table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of each kind that needs no decision 20 lines are printed, and how many more there are.

    Those that may be ours are printed all, and the JSON has everything.
    """
    table.emulator.control.progress("seconds", 3600)
    chunk = leave_in_doubt(table, monkeypatch)
    monkeypatch.setattr(InDoubt, "adopt_ours", _nothing)
    table.emulator.control.foreign(table.provider, batches=33, requests=7)
    report = reconcile()
    assert len(report.to_json()["strays"]) == 34
    lines = [f"{label} {value}" for label, value in report.lines()]
    strangers = [line for line in lines if "of another program" in line]
    (more,) = [line for line in lines if "older ones" in line]
    assert (len(strangers), more.partition(" ")[2]) == (20, "13 older ones, which `--json` lists")
    assert [line for line in lines if line.startswith("Perhaps ours") and chunk in line]


def test_batches_of_other_programs_alone_need_no_remedy(table: Table) -> None:
    """If no batch can be of a lost ledger, the report mentions none."""
    table.emulator.control.foreign(table.provider, ends="at_once")
    report = reconcile()
    assert [what for what, _ in report.lines()] == ["Known", "Nobody's"]


def test_cancelling_tells_what_had_ended_and_what_may_be_of_another_ledger(table: Table) -> None:
    """An ended batch is not reported as cancelled.

    One that this program may have sent comes with a warning.
    """
    control = table.emulator.control
    (ended,) = control.foreign(table.provider, ends="at_once")
    report = reconcile(ReconcileRequest(cancel=(ended,)))
    assert (report.cancelled, report.had_ended) == ([], [ended])
    assert (
        "Not cancelled",
        f"batch {ended} had already ended; nothing to cancel",
    ) in report.lines()
    (open_,) = control.foreign(table.provider, ends="never")
    report = reconcile(ReconcileRequest(cancel=(open_,)))
    assert (report.cancelled, report.had_ended) == ([open_], [])
    assert any("may have been sent by this program" in note for note in report.notes) == (
        table.provider == "anthropic"
    )


def test_without_any_key_nothing_is_compared_and_that_is_said(
    table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without any key, the result is an error that names the variables, not an empty report."""
    table.run()
    for name in ("ANTHROPIC_API_KEY", "OPENAI_API_KEY"):
        monkeypatch.delenv(name)
    with pytest.raises(
        CredentialsError, match=r"nothing was compared.*ANTHROPIC_API_KEY.*OPENAI_API_KEY"
    ):
        reconcile()


def test_a_chunk_that_was_never_accepted_is_freed_by_a_person(
    table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    """--hold keeps runs from waiting for a chunk, --resend lets its rows be planned again.

    Each row is sent once.
    """
    chunk = leave_in_doubt(table, monkeypatch, "drop_before")
    with pytest.raises(SpecError, match=f"--hold {chunk} --resend {chunk}"):
        reconcile(ReconcileRequest(resend=(chunk,)))
    assert reconcile(ReconcileRequest(hold=(chunk,))).held == [chunk]
    assert in_state(ChunkState.HELD) == [chunk]
    receipt = table.run()
    assert (receipt.held_rows, receipt.exit_code, receipt.continued) == (6, 3, True)
    assert any("batchata reconcile" in text for text in receipt.warnings)
    assert table.run().plan["in_flight"] == 6
    assert table.ledger()["requests_accepted"] == 0
    report = reconcile(ReconcileRequest(resend=(chunk,)))
    assert report.freed == [chunk]
    assert any("paid for twice" in note for note in report.notes)
    assert table.run().outcomes == {"succeeded": 6}
    assert table.ledger()["requests_accepted"] == 6


@pytest.mark.parametrize("closed", [False, True])
def test_a_chunk_that_was_freed_too_early_is_adopted(
    table: Table, monkeypatch: pytest.MonkeyPatch, closed: bool
) -> None:
    """Its batch shows up before its rows are sent again: `--adopt` lands it, and nothing is sent.

    `reconcile` says so, and does not call it sent twice. A run that sees it listed sends nothing.
    """
    chunk = leave_in_doubt(table, monkeypatch, "drop_after", add="list_empty")
    reconcile(ReconcileRequest(hold=(chunk,)))
    if closed:
        assert table.run().held_rows == 6
    reconcile(ReconcileRequest(resend=(chunk,)))
    table.emulator.control.clear_faults()
    (batch,) = (line["id"] for line in table.ledger()["batches"])
    (stray,) = reconcile().strays
    assert (stray.may_be, stray.freed, stray.twice, stray.counted) == (chunk, True, None, False)
    assert any(f"--adopt {chunk}={batch}" in text for _, text in reconcile().lines())
    if closed and table.provider == "openai":
        with pytest.raises(TerminalError, match=f"--adopt {chunk}={batch}"):
            table.run()
    assert reconcile(ReconcileRequest(adopt={chunk: batch})).adopted == {chunk: batch}
    table.run()
    assert (len(table.rows()), table.ledger()["requests_accepted"]) == (6, 6)
    check_money(table)


def test_a_chunk_that_was_freed_and_sent_again_is_not_adopted(
    table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its rows have newer requests by then."""
    chunk = leave_in_doubt(table, monkeypatch, "drop_after", add="list_empty")
    reconcile(ReconcileRequest(hold=(chunk,)))
    table.run()
    reconcile(ReconcileRequest(resend=(chunk,)))
    table.run()
    table.emulator.control.clear_faults()
    batch = table.ledger()["batches"][0]["id"]
    with pytest.raises(SpecError, match="nor was it freed without anything being sent since"):
        reconcile(ReconcileRequest(adopt={chunk: batch}))
    assert reconcile().strays[0].twice == chunk


def test_a_list_proves_nothing_of_a_create_that_is_too_young(
    table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That --resend is safe is said only once lists had the time to show the batch."""
    chunk = leave_in_doubt(table, monkeypatch, "drop_before")
    (doubt,) = reconcile(ReconcileRequest(hold=(chunk,))).doubts
    (doubt,) = reconcile().doubts
    assert re.search("look again in 1[01] minutes", doubt.note)
    monkeypatch.setattr(in_doubt, "now_us", lambda: now_us() + 3600 * 10**6)
    (doubt,) = reconcile().doubts
    assert "most likely never accepted" in doubt.note
    assert "shows others" not in doubt.note  # it is empty
    assert "lists of this server show all batches" in doubt.note
    table.run(output=str(table.folder / "another"))
    (doubt,) = reconcile().doubts
    assert "shows others that the ledger knows" in doubt.note
    assert reconcile(ReconcileRequest(resend=(chunk,))).notes == []


@pytest.mark.parametrize("ended", [False, True])
def test_a_held_chunk_is_adopted_as_the_batch_that_a_person_names(
    table: Table, monkeypatch: pytest.MonkeyPatch, ended: bool
) -> None:
    """Another program's batch is refused; the chunk's own is landed by the next run.

    That also holds if the run that sent it has ended.
    """
    chunk = leave_in_doubt(table, monkeypatch)
    (foreign,) = table.emulator.control.foreign(table.provider, requests=6, ends="at_once")
    with monkeypatch.context() as rotated:
        rotated.setenv(f"{table.provider.upper()}_API_KEY", "another key of the same account")
        assert reconcile(ReconcileRequest(hold=(chunk,))).held == [chunk]
        if ended:
            assert table.run().held_rows == 6
        (own,) = [line["id"] for line in table.ledger()["batches"]]
        with pytest.raises(SpecError, match="holds other requests"):
            reconcile(ReconcileRequest(adopt={chunk: foreign}))
        assert reconcile(ReconcileRequest(adopt={chunk: own})).adopted == {chunk: own}
        receipt = table.run()
        assert (receipt.outcomes, receipt.plan["up_to_date"]) == (
            ({}, 6) if ended else ({"succeeded": 6}, 0)
        )
    assert table.ledger()["requests_accepted"] == 6
    table.check_answers()


def test_requests_are_read_with_care() -> None:
    """A pair without its batch is refused."""
    assert pairs_of(["a=b"]) == {"a": "b"}
    with pytest.raises(SpecError, match="CHUNK=BATCH"):
        pairs_of(["a="])


def start(table: Table, **changes: Any) -> tuple[threading.Thread, list[Any]]:
    """Run a spec in a thread of its own; return the thread and the list for its receipt."""
    receipts: list[Any] = []
    thread = threading.Thread(target=lambda: receipts.append(table.run(**changes)))
    thread.start()
    return thread, receipts


def test_a_working_run_is_cancelled_from_elsewhere(table: Table) -> None:
    """It cancels its batches, lands what ran, sends nothing more, and says so."""
    table.emulator.control.progress("reads", 10**6)
    thread, receipts = start(table, items_per_batch=2, max_parallel_batches=2)
    while len(in_state(ChunkState.SUBMITTED)) < 2:
        time.sleep(0.02)
    told: list[str] = []
    report = cancel(table.spec(), progress=LineProgress(told.append))
    thread.join()
    (receipt,) = receipts
    asked = (
        "it is asked to cancel its batches and to land what ran: its own receipt tells the outcome."
    )
    here = f"process {os.getpid()} on {socket.gethostname()} (this machine)"
    assert told == [f"{here} is at work on this dataset; {asked}"]
    assert (report.result, receipt.result, receipt.exit_code) == ("cancelled", "cancelled", 3)
    assert report.outcomes == receipt.outcomes == {"canceled": 4}
    assert receipt.unsent_rows == 2
    again = cancel(table.spec())
    assert again.run_id is None
    assert "just starting is not seen yet" in again.lines()[0][1]


def test_cancelling_where_no_run_began_says_what_it_cannot_see(table: Table) -> None:
    """A run that is just starting has no dataset yet, so nobody reads that nothing is running."""
    with pytest.raises(
        SpecError, match=r"no dataset in .*a run that is just starting is not seen yet\."
    ):
        cancel(table.spec())


def interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def test_a_dead_run_is_cancelled_here(table: Table, monkeypatch: pytest.MonkeyPatch) -> None:
    """What ran is landed and paid for, the rest is cancelled; the next run takes it."""
    table.emulator.control.progress("reads", 5)
    with monkeypatch.context() as dying:
        looks = iter([look_once] * 3)

        def look(*asked: Any) -> Any:
            return next(looks, interrupt)(*asked)

        dying.setattr("batchata_tasks.execution.poll.look_once", look)
        with pytest.raises(KeyboardInterrupt):
            table.run()
    report = cancel(table.spec())
    assert report.result == "cancelled"
    assert report.outcomes is not None
    assert sum(report.outcomes.values()) == 6
    assert 0 < report.outcomes["succeeded"] < 6
    table.emulator.control.progress("immediate")
    assert table.run().outcomes == {"succeeded": report.outcomes["canceled"]}
    assert table.ledger()["billed_twice"]["number"] == 0
    table.check_answers()
    assert json.loads(json.dumps(report.to_json()))["result"] == "cancelled"


def test_a_batch_that_a_chunk_cannot_be_is_not_adopted(
    table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A batch that a chunk cannot be is refused, and nothing changes.

    It is another chunk's, of another size, or not ended while only its results could decide.
    """
    table.run(limit=2)
    (other,) = [line["id"] for line in table.ledger()["batches"]]
    table.run(limit=2, prompt="x {{ text }}", rerun_on=["new"])  # a third and a fourth row
    table.values[0]["text"] = "changed"
    table.write()
    chunk, control = leave_in_doubt(table, monkeypatch, "drop_before"), table.emulator.control
    control.progress("seconds", 3600)
    (smaller,) = control.foreign(table.provider, requests=1)
    for batch, reason in (
        (other, "another chunk's"),
        (smaller, "other requests|when it has ended"),
    ):
        with pytest.raises(SpecError, match=reason):
            reconcile(ReconcileRequest(adopt={chunk: batch}))
    assert in_state(ChunkState.UNCLEAR) == [chunk]


def test_a_batch_that_may_be_a_chunk_in_doubt_is_told_and_not_cancelled(
    table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A batch that may be an unclear chunk's is reported and not cancelled.

    Until a run or a person has decided, that could cancel paid rows.
    """
    table.emulator.control.progress("seconds", 3600)
    chunk = leave_in_doubt(table, monkeypatch)
    (batch,) = [line["id"] for line in table.ledger()["batches"]]
    table.emulator.control.foreign(table.provider, requests=7)
    held = Ledger(Settings().ledger_url)
    # a run is at work, so it is left to that
    lease = held.acquire_lease(held.chunk(chunk).dataset_id, 60)
    report = reconcile()
    assert {stray.batch_id: stray.may_be for stray in report.strays if stray.may_be} == {
        batch: chunk
    }
    (told,) = [text for what, text in report.lines() if what == "Perhaps ours"]
    assert f"may be chunk {chunk}" in told
    with pytest.raises(SpecError, match=f"it may be chunk {chunk}"):
        reconcile(ReconcileRequest(cancel=(batch,)))
    held.release_lease(lease)
    held.close()
    assert table.ledger()["batches"][0]["ending"] is None


@pytest.mark.parametrize("asked", ["adopt", "hold"])
def test_what_was_settled_meanwhile_stays_as_it_is(
    table: Table, monkeypatch: pytest.MonkeyPatch, asked: str
) -> None:
    """A decision on an old listing is refused if a run has found the batch since.

    Nothing of the chunk changes.
    """
    chunk = leave_in_doubt(table, monkeypatch)
    (batch,) = [line["id"] for line in table.ledger()["batches"]]
    request = ReconcileRequest(hold=(chunk,))
    if asked == "adopt":
        request = ReconcileRequest(adopt={chunk: batch})
    real = Ledger.acquire_lease

    def late(ledger: Ledger, *asked: Any) -> Any:
        monkeypatch.setattr(Ledger, "acquire_lease", real)
        table.run()
        return real(ledger, *asked)

    monkeypatch.setattr(InDoubt, "adopt_ours", _nothing)
    monkeypatch.setattr(Ledger, "acquire_lease", late)
    with pytest.raises(SpecError, match="any more"):
        reconcile(request)
    assert in_state(ChunkState.LANDED) == [chunk]
    assert "held" not in (table.output / f"_batchata/intents/{chunk}.json").read_text()


def test_a_chunk_that_a_run_settles_while_we_look_is_left_to_it(
    table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A chunk that was unclear in the list and has landed since is no error, nor reported."""
    leave_in_doubt(table, monkeypatch, "drop_before")
    real = Ledger.acquire_lease

    def late(ledger: Ledger, *asked: Any) -> Any:
        monkeypatch.setattr(Ledger, "acquire_lease", real)
        table.run()
        return real(ledger, *asked)

    monkeypatch.setattr(Ledger, "acquire_lease", late)
    report = reconcile()
    assert (report.adopted, report.doubts, report.strays) == ({}, [], [])


def _nothing(_in_doubt: InDoubt) -> None:
    """Stand in for the search for batches."""
