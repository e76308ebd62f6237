"""Creates of unknown fate that are hard to look up.

There are others' batches, late acceptance, lagging lists, wrong clocks, and batches that disappear.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from batchata_tasks.common.errors import TerminalError
from batchata_tasks.common.money import usd
from batchata_tasks.ledger import ChunkState
from batchata_tasks.pipeline.enrich import enrich
from batchata_tasks.progress.listener import LineProgress
from tests.support.books import all_chunks, check_money, money, opened
from tests.support.operations import preview
from tests.support.table import MODELS, TIME_TO_SEND, Table
from tests.support.unclear import leave_in_doubt
from tests.support.waiting import PATIENCE, until

if TYPE_CHECKING:
    from pathlib import Path

    from batchata_tasks.emulator import Emulator
    from batchata_tasks.pipeline.receipt import Receipt

ROWS = 5
LOST = ["http_500_after", "drop_after"]
NEVER_CAME = ["http_500_before", "drop_before"]


@pytest.fixture(autouse=True)
def _short_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BATCHATA_PATIENCE", "0.4")


def check_once(table: Table, batches: int = 1) -> None:
    """Check that every row was accepted once, in this number of batches, with its own answer."""
    book = table.ledger()
    assert (book["batches_accepted"], book["requests_accepted"]) == (batches, ROWS)
    assert (book["accepted_twice"]["number"], book["billed_twice"]["number"]) == (0, 0)
    assert len(table.rows()) == ROWS
    table.check_answers()
    check_money(table)


class Told:
    """A run in another thread, with what it reports."""

    def __init__(self, table: Table, **changes: Any) -> None:
        self.notes: list[str] = []
        self._control = table.emulator.control
        self._found: list[Any] = []
        self._thread = threading.Thread(target=self._run, args=(table, changes))
        self._thread.start()

    def _run(self, table: Table, changes: dict[str, Any]) -> None:
        try:
            self._found.append(
                enrich(table.spec(**changes), progress=LineProgress(self.notes.append))
            )
        except BaseException as error:  # noqa: BLE001 - raised in the test
            self._found.append(error)

    def tells(self, text: str) -> None:
        until(lambda: any(text in note for note in self.notes))

    def looks_at_one(self) -> None:
        """Wait until it has seen a list that was asked for from now on: it asks for another one."""
        self._control.faults(kind="slow", route="list", nth=10**9)  # only counts
        until(lambda: self._lists() > 1)

    def _lists(self) -> int:
        faults = self._control.list_faults()
        return next(fault["calls"] for fault in faults if fault["route"] == "list")

    def end(self) -> Receipt:
        self._thread.join(PATIENCE)
        (found,) = self._found
        if isinstance(found, BaseException):
            raise found
        receipt: Receipt = found
        return receipt


# --- others' batches ------------------------------------------------------------------------------


# one without a name that never ends is awaited if ours never came: see the test below
CROWDS = [
    (provider, fault, ends)
    for provider in MODELS
    for fault in (*LOST, *NEVER_CAME)
    for ends in ("at_once", "never", "pace")
    if not (provider == "anthropic" and fault in NEVER_CAME and ends == "never")
]


@pytest.mark.sampled(8)
@pytest.mark.parametrize(("provider", "fault", "ends"), CROWDS)
def test_batches_of_others_of_equal_size_are_not_ours(
    emulator: Emulator, tmp_path: Path, provider: str, fault: str, ends: str
) -> None:
    """Others' batches made just before ours, ended or running, are left alone.

    Ours is adopted, or sent once its absence is proven.
    """
    table = Table(tmp_path, emulator, provider, ROWS)
    foreign = table.emulator.control.foreign(
        table.provider, batches=7, requests=ROWS, ends=ends, offset=-2
    )
    table.emulator.control.faults(kind=fault, nth=1)
    receipt = table.run()
    assert receipt.outcomes == {"succeeded": ROWS}
    assert receipt.rounds == 1
    check_once(table)
    with opened() as ledger:
        assert not ledger.known_batches(foreign)
    assert {batch["ending"] for batch in table.ledger()["foreign"]} == {
        None if ends == "never" else "finished"
    }


def test_a_nameless_batch_that_runs_is_awaited_before_anything_is_sent(anthropic: Table) -> None:
    """A running batch of equal size could be ours.

    Nothing is sent until it has ended or is gone.
    """
    (foreign,) = anthropic.emulator.control.foreign("anthropic", requests=ROWS, ends="never")
    anthropic.emulator.control.faults(kind="drop_before", nth=1)
    run = Told(anthropic)
    run.tells("Looking it up")
    time.sleep(1)
    assert len(anthropic.emulator.control.ledger()["creates"]) == 1
    anthropic.emulator.control.cancel(foreign, share=1.0)
    assert run.end().outcomes == {"succeeded": ROWS}
    check_once(anthropic)


@pytest.mark.in_turn
@pytest.mark.parametrize("fault", ["drop_after", "drop_before"])
def test_ours_is_found_among_a_thousand(table: Table, fault: str) -> None:
    """Ten pages of others' ended batches of our size, made before and after ours."""
    table.emulator.control.foreign(
        table.provider, batches=960, requests=ROWS, ends="at_once", offset=-4000, every=0.1
    )
    table.emulator.control.faults(kind=fault, nth=1)
    table.emulator.control.faults(kind="http_429", route="list", nth=2)
    run = Told(table)
    run.tells("Looking it up")
    table.emulator.control.foreign(table.provider, batches=40, requests=ROWS, ends="at_once")
    assert run.end().outcomes == {"succeeded": ROWS}
    check_once(table)


# --- acceptance and lists -------------------------------------------------------------------------


@pytest.mark.parametrize("seconds", [0.1, 0.8])
def test_a_batch_that_is_accepted_late_is_adopted(
    table: Table, monkeypatch: pytest.MonkeyPatch, seconds: float
) -> None:
    """A batch that appears within the grace is found then, and never sent again."""
    monkeypatch.setenv("BATCHATA_UNCLEAR_GRACE", "60")
    table.emulator.control.faults(kind="accept_delay", seconds=seconds, nth=1)
    assert table.run().outcomes == {"succeeded": ROWS}
    check_once(table)


def test_a_list_that_lags_hides_nothing(table: Table, monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch whose answer was lost is adopted though lists omit it for a while.

    The while is shorter than the grace.
    """
    monkeypatch.setenv("BATCHATA_UNCLEAR_GRACE", "60")
    table.emulator.control.faults(kind="list_lag", seconds=0.8, nth=1)
    table.emulator.control.faults(kind="drop_after", nth=1)
    assert table.run().outcomes == {"succeeded": ROWS}
    check_once(table)


def test_the_grace_begins_when_an_answer_is_lost_and_not_when_its_create_began(
    table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that looks for an old create gives the lists the whole grace.

    It may have been accepted long after its intent was written: it was uploaded slowly, say.
    """
    table.emulator.control.faults(kind="list_lag", seconds=1.2, nth=1)
    leave_in_doubt(table, monkeypatch)
    monkeypatch.setenv("BATCHATA_UNCLEAR_GRACE", "0.6")
    time.sleep(0.7)
    assert table.run().outcomes == {"succeeded": ROWS}
    check_once(table)


def test_a_clock_that_is_set_back_lets_nobody_wait(
    table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A create in doubt is decided after the grace, though the clock went back by two days."""
    set_back, seconds, nanoseconds = [0], time.time, time.time_ns
    monkeypatch.setattr("time.time", lambda: seconds() - set_back[0])
    monkeypatch.setattr("time.time_ns", lambda: nanoseconds() - set_back[0] * 10**9)
    table.emulator.control.faults(kind="drop_before", nth=1)
    notes = list[str]()

    def note(text: str) -> None:
        notes.append(text)
        set_back[0] = 2 * 86_400 if "Looking it up" in text else set_back[0]

    receipt = enrich(table.spec(), progress=LineProgress(note))
    assert receipt.outcomes == {"succeeded": ROWS}
    assert (set_back != [0], receipt.seconds) == (True, 0.0)
    assert any("shows no batch of these 5 requests" in note for note in notes)
    check_once(table)


def test_a_lag_alone_changes_nothing(table: Table) -> None:
    """A create that got its answer needs no list."""
    table.emulator.control.faults(kind="list_lag", seconds=3600)
    assert table.run(items_per_batch=3).outcomes == {"succeeded": ROWS}
    check_once(table, batches=2)


def test_a_list_that_fails_proves_no_absence(table: Table) -> None:
    """While lists fail nothing is sent again, however old the create is."""
    table.emulator.control.faults(kind="drop_after", nth=1)
    table.emulator.control.faults(kind="http_error", status=500, route="list", nth=2)
    table.emulator.control.faults(kind="http_error", status=429, route="list", nth=3)
    assert table.run().outcomes == {"succeeded": ROWS}
    check_once(table)


@pytest.mark.parametrize(
    ("fault", "count"), [("drop_after", 3), ("drop_before", 1), ("http_500_after", 3)]
)
def test_several_creates_in_doubt_at_a_time(table: Table, fault: str, count: int) -> None:
    """Unanswered batches of equal size are told apart, and none is sent twice."""
    table.emulator.control.faults(kind=fault, count=count)
    assert table.run(items_per_batch=1, max_parallel_batches=3).outcomes == {"succeeded": ROWS}
    check_once(table, batches=ROWS)


def test_another_datasets_create_in_doubt_blocks_none_of_equal_size_that_has_a_name(
    emulator: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At OpenAI, whose lists name batches, a run goes on beside a dead one of another dataset."""
    (tmp_path / "dead").mkdir()
    dead, alive = (Table(tmp_path / name, emulator, "openai", ROWS) for name in ("dead", ""))
    leave_in_doubt(dead, monkeypatch)
    alive.values = [row | {"text": f"other {row['text']}"} for row in alive.values]
    alive.write()
    assert alive.run(time_limit="20s").outcomes == {"succeeded": ROWS}
    assert dead.run().outcomes == {"succeeded": ROWS}
    assert alive.ledger()["batches_accepted"] == 2


# --- clocks ---------------------------------------------------------------------------------------


@pytest.mark.sampled(6)
@pytest.mark.parametrize("fault", ["drop_after", "drop_before"])
@pytest.mark.parametrize("hours", [-2, 2])
@pytest.mark.parametrize("others", [0, 3])
def test_a_clock_that_is_hours_off_sends_nothing_twice(
    table: Table, fault: str, hours: int, others: int
) -> None:
    """With the provider's clock two hours off, accepted batches are found, the others sent."""
    table.emulator.control.advance(3600 * hours)
    if others:
        table.emulator.control.foreign(
            table.provider, batches=others, requests=ROWS, ends="at_once", offset=-1
        )
    table.emulator.control.faults(kind=fault, nth=1)
    assert table.run().outcomes == {"succeeded": ROWS}
    check_once(table)


@pytest.mark.parametrize("hours", [-2, 2])
def test_a_clock_that_is_hours_off_waits_for_room(anthropic: Table, hours: int) -> None:
    """Open batches are seen at any clock: with a full queue the run waits for one, and ends."""
    anthropic.emulator.control.advance(3600 * hours)
    anthropic.emulator.control.limits(anthropic_queued_requests=ROWS)
    (blocking,) = anthropic.emulator.control.foreign("anthropic", requests=1, ends="never")
    run = Told(anthropic)
    run.tells("Waiting until one of the account's batches ends (1 open).")
    anthropic.emulator.control.vanish(blocking)
    assert run.end().outcomes == {"succeeded": ROWS}
    check_once(anthropic)


# --- batches that change meanwhile ----------------------------------------------------------------


def test_a_candidate_that_somebody_cancelled_is_adopted(table: Table) -> None:
    """A batch that lost its answer and was cancelled half-way is adopted.

    What ran is landed, the rest is sent again, and nothing is paid twice.
    """
    table.emulator.control.faults(kind="never_ends", share=0.4, nth=1)
    table.emulator.control.faults(kind="drop_after", nth=1)
    run = Told(table)
    run.tells("Looking it up")
    time.sleep(0.2)
    table.emulator.control.cancel(table.ledger()["batches"][0]["id"])
    receipt = run.end()
    assert (receipt.result, receipt.rounds, receipt.outcomes["succeeded"]) == ("succeeded", 2, ROWS)
    book = table.ledger()
    assert (book["requests_accepted"], book["requests_billed"], book["billed_twice"]["number"]) == (
        ROWS + 3,
        ROWS,
        0,
    )
    assert {row["_attempts"] for row in table.rows()} == {1}
    table.check_answers()
    check_money(table)


def test_a_candidate_that_went_away_unjudged_is_held(anthropic: Table) -> None:
    """A candidate that was deleted before it ended may have been anybody's.

    The exit code is 3, the rows are held, and no run sends them again.
    """
    anthropic.emulator.control.faults(kind="never_ends", nth=1)
    anthropic.emulator.control.faults(kind="drop_after", nth=1)
    run = Told(anthropic)
    run.tells("Looking it up")
    until(lambda: len(anthropic.emulator.control.ledger()["creates"]) == 1)
    run.looks_at_one()
    anthropic.emulator.control.vanish(anthropic.ledger()["batches"][0]["id"])
    receipt = run.end()
    assert (receipt.exit_code, receipt.held_rows, receipt.result) == (3, ROWS, "some_rows_failed")
    assert any("held" in text for text in receipt.warnings)
    assert [chunk.state for chunk in all_chunks()] == [ChunkState.HELD]
    assert anthropic.rows() == []
    reserved = money(anthropic).reserved
    assert reserved > 0
    for _ in range(2):
        later = anthropic.run()
        assert (later.plan["in_flight"], later.plan["requests"], later.batches) == (ROWS, 0, 0)
    assert len(anthropic.emulator.control.ledger()["creates"]) == 1
    assert money(anthropic).reserved == reserved


def test_a_run_says_that_rows_are_held_by_an_earlier_one(anthropic: Table) -> None:
    """As long as rows are held, a run over them is no success.

    It exits with 3 and says how many.
    """
    test_a_candidate_that_went_away_unjudged_is_held(anthropic)
    receipt = anthropic.run()
    assert (receipt.exit_code, receipt.held_rows) == (3, ROWS)


def test_held_rows_do_not_hold_up_others(anthropic: Table) -> None:
    """Of three batches one is held: the other two land, in the same run."""
    anthropic.emulator.control.faults(kind="never_ends", nth=1)
    anthropic.emulator.control.faults(kind="drop_after", nth=1)
    run = Told(anthropic, items_per_batch=2, max_parallel_batches=1)
    run.tells("Looking it up")
    run.looks_at_one()
    anthropic.emulator.control.vanish(anthropic.ledger()["batches"][0]["id"])
    receipt = run.end()
    assert (receipt.exit_code, receipt.held_rows, receipt.outcomes) == (3, 2, {"succeeded": 3})
    assert sorted(chunk.state for chunk in all_chunks()) == [
        ChunkState.HELD,
        ChunkState.LANDED,
        ChunkState.LANDED,
    ]
    assert anthropic.ledger()["requests_accepted"] == ROWS


def test_money_of_held_rows_is_not_waited_for(anthropic: Table) -> None:
    """Nobody waits for money of a held batch.

    If it has the rest of the limit, the run ends and reports that the limit stopped it.
    """
    anthropic.emulator.control.faults(kind="never_ends", nth=1)
    anthropic.emulator.control.faults(kind="drop_after", nth=1)
    plan = preview(anthropic.spec()).summary
    assert plan.bound is not None
    limit = float(usd(plan.bound * 3 // ROWS))  # three of the five rows
    run = Told(anthropic, items_per_batch=2, max_parallel_batches=1, cost_limit_usd=limit)
    run.tells("Looking it up")
    run.looks_at_one()
    anthropic.emulator.control.vanish(anthropic.ledger()["batches"][0]["id"])
    receipt = run.end()
    assert (receipt.exit_code, receipt.held_rows, receipt.unsent_rows) == (4, 2, 2)
    assert anthropic.ledger()["requests_billed"] <= 3


def test_a_foreign_candidate_that_goes_away_holds_nothing_of_a_name(
    emulator: Emulator, tmp_path: Path
) -> None:
    """OpenAI's batches carry our token: a deleted batch of others leaves no doubt."""
    table = Table(tmp_path, emulator, "openai", ROWS)
    (foreign,) = emulator.control.foreign("openai", requests=ROWS, ends="never")
    emulator.control.faults(kind="drop_before", nth=1)
    run = Told(table)
    run.tells("Looking it up")
    emulator.control.vanish(foreign)
    assert run.end().outcomes == {"succeeded": ROWS}
    check_once(table)


def test_a_stop_resolves_doubt_and_cancels_what_it_finds(
    emulator: Emulator, tmp_path: Path
) -> None:
    """If the time limit passes during the search, the batch is found, cancelled and landed."""
    table = Table(tmp_path, emulator, "openai", ROWS)
    table.emulator.control.faults(kind="never_ends", share=0.4, nth=1)
    table.emulator.control.faults(kind="drop_after", nth=1)
    receipt = table.run(time_limit=TIME_TO_SEND)
    assert (receipt.result, receipt.outcomes) == (
        "time_limit_reached",
        {"canceled": 3, "succeeded": 2},
    )
    check_money(table)


def test_a_candidate_whose_results_are_archived_is_held(anthropic: Table) -> None:
    """If nobody can read whose it was, its rows are held, and later runs do not fail over it."""
    (foreign,) = anthropic.emulator.control.foreign("anthropic", requests=ROWS, ends="at_once")
    anthropic.emulator.control.archive(foreign)
    anthropic.emulator.control.faults(kind="drop_before", nth=1)
    receipt = anthropic.run()
    assert (receipt.exit_code, receipt.held_rows) == (3, ROWS)
    assert anthropic.run().plan["in_flight"] == ROWS


def test_a_create_of_another_dataset_in_doubt_is_waited_for_aloud(
    anthropic: Table, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Two creates of one size could not be told apart, so the second dataset's run waits.

    It says for what, heeds a request to stop, and sends once the first run was carried on.
    """
    monkeypatch.setattr("batchata_tasks.execution.rivals._LONG", 0.0)
    leave_in_doubt(anthropic, monkeypatch)
    monkeypatch.setenv("BATCHATA_UNCLEAR_GRACE", "3600")
    said = list[str]()
    for stops in (True, False):
        progress = LineProgress(said.append)
        spec = anthropic.spec(output=str(tmp_path / "another"), prompt="Other: {{ text }}")
        receipts: list[Receipt] = []
        run = threading.Thread(
            target=lambda progress=progress, spec=spec, receipts=receipts: receipts.append(
                enrich(spec, progress=progress)
            )
        )
        run.start()
        until(lambda: any("settle it with `batchata reconcile`" in line for line in said))
        said.clear()
        if stops:
            assert progress.handle is not None
            progress.handle.request_stop("shutdown")
        else:
            anthropic.run()
        run.join(PATIENCE)
        (receipt,) = receipts
        assert receipt.result == ("cancelled" if stops else "succeeded")
    assert anthropic.ledger()["accepted_twice"]["number"] == 0


def test_a_create_of_a_run_that_stopped_is_not_waited_for_without_end(
    anthropic: Table, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Once the grace is over the second dataset's run ends, naming the first one; nothing is sent.

    It goes on once that is settled.
    """
    chunk = leave_in_doubt(anthropic, monkeypatch)
    other = {"output": str(tmp_path / "another"), "prompt": "Other: {{ text }}"}
    with pytest.raises(TerminalError, match=rf"by a run of table that stopped \(chunk {chunk}\)"):
        anthropic.run(**other)
    assert anthropic.ledger()["batches_accepted"] == 1
    assert anthropic.run().outcomes == {"succeeded": ROWS}
    assert anthropic.run(**other).outcomes == {"succeeded": ROWS}
    assert anthropic.ledger()["accepted_twice"]["number"] == 0


def test_a_create_of_the_same_run_is_not_called_in_doubt(
    anthropic: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While a run's own create waits for its answer, the next one waits, and says for what."""
    monkeypatch.setattr("batchata_tasks.execution.rivals._LONG", 0.0)
    anthropic.emulator.control.faults(kind="slow_after", route="create", seconds=0.4, nth=1)
    said = list[str]()
    spec = anthropic.spec(items_per_batch=1, limit=2)
    assert enrich(spec, progress=LineProgress(said.append)).outcomes == {"succeeded": 2}
    (waiting,) = [line for line in said if line.startswith("waiting: ")]
    assert "another create of this run, also of 1 request, is not answered yet" in waiting
    assert "in doubt" not in waiting
    assert "reconcile" not in waiting
