"""Whole batches that fail, wait, expire, are cancelled, lose their results, or never end."""

from __future__ import annotations

import sqlite3
import threading
import time
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from batchata_tasks.common.clock import now_us
from batchata_tasks.common.errors import CredentialsError, TerminalError, TransientError
from batchata_tasks.execution import look
from batchata_tasks.ledger import ChunkState
from batchata_tasks.operations.reconcile import ReconcileRequest
from batchata_tasks.pipeline.enrich import enrich
from batchata_tasks.progress.listener import LineProgress
from batchata_tasks.providers import provider_type
from tests.support.books import all_chunks, check_money, run_with, stopping_at
from tests.support.operations import preview, reconcile
from tests.support.queued import per_row
from tests.support.table import TIME_TO_SEND, Table
from tests.support.waiting import PATIENCE, until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from batchata_tasks.emulator import Emulator
    from batchata_tasks.pipeline.receipt import Receipt

pytestmark = pytest.mark.in_turn

ROWS = 8
_DAY_US = 86_400_000_000


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BATCHATA_PATIENCE", "0.2")


def ended(receipt: Receipt) -> dict[str, int]:
    return {name: rows for name, rows in receipt.outcomes.items() if rows}


def bound_of(table: Table, **changes: Any) -> int:
    """Return the most that the rows of a first round can cost."""
    bound = preview(table.spec(output=str(table.folder / "other"), **changes)).summary.bound
    assert bound is not None
    return bound


def creates(table: Table) -> list[int | None]:
    """Return the answer to every create, in order."""
    return [seen["status"] for seen in table.emulator.control.ledger()["creates"]]


def batches(table: Table) -> list[dict[str, Any]]:
    """Return the provider's batches of ours, oldest first."""
    return list(table.ledger()["batches"])


class Aside:
    """A run in another thread, and its result."""

    def __init__(self, work: Callable[[], Receipt]) -> None:
        self.receipt: Receipt | None = None
        self.error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, args=(work,))
        self._thread.start()

    def _run(self, work: Callable[[], Receipt]) -> None:
        try:
            self.receipt = work()
        except BaseException as error:  # noqa: BLE001 - raised in the test
            self.error = error

    def end(self) -> Receipt:
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive()
        if self.error is not None:
            raise self.error
        assert self.receipt is not None
        return self.receipt


# --- OpenAI's validation --------------------------------------------------------------------------


def test_only_the_bad_lines_of_a_failed_batch_fail(openai: Table) -> None:
    """A validation names two lines: these are wrong requests, the rest is sent again and succeeds.

    None is paid twice.
    """
    for row in (2, 5):
        openai.emulator.control.faults(kind="request_invalid_line", contains=f"row {row}")
    receipt = openai.run()
    assert (receipt.result, receipt.rounds, ended(receipt)) == (
        "some_rows_failed",
        2,
        {"errored": 2, "succeeded": ROWS - 2},
    )
    rows = {row["id"]: row for row in openai.rows()}
    assert {key for key, row in rows.items() if row["_status"] == "errored"} == {"k2", "k5"}
    for key in ("k2", "k5"):
        assert rows[key]["_error"].startswith("request: invalid_request")
    assert {row["_attempts"] for key, row in rows.items() if key not in ("k2", "k5")} == {1}
    book = openai.ledger()
    assert (book["batches_refused"], book["requests_accepted"], book["requests_billed"]) == (
        1,
        ROWS - 2,
        ROWS - 2,
    )
    bodies = openai.bodies()
    for key, row in rows.items():
        assert row["_status"] == "errored" or f"text of row {key[1:]}" in str(
            bodies[row["_custom_id"]]
        )
    check_money(openai)
    assert openai.run().plan["exhausted"] == 2


def test_a_batch_that_fails_for_no_line_is_tried_again(openai: Table) -> None:
    """A failure that names no line sends all rows again.

    It does so as often as attempts allow, at no cost.
    """
    openai.emulator.control.faults(kind="token_limit", count=1)
    receipt = openai.run()
    assert (receipt.result, ended(receipt)) == ("succeeded", {"succeeded": ROWS})
    check_money(openai)


def test_rows_that_never_ran_have_their_one_attempt(openai: Table) -> None:
    """Even with `max_attempts: 1`, rows of a batch with a bad line are sent again.

    They had no attempt yet.
    """
    openai.emulator.control.faults(kind="request_invalid_line", contains="row 2")
    assert ended(openai.run(max_attempts=1)) == {"errored": 1, "succeeded": ROWS - 1}


# --- a full queue ---------------------------------------------------------------------------------


@pytest.mark.parametrize("rows", [ROWS, 1])
def test_a_full_queue_is_waited_for_and_the_same_chunk_sent(openai: Table, rows: int) -> None:
    """With another batch open, the chunk waits for its end and is sent again whole.

    It is the same round. That also holds for a chunk of one row.
    """
    openai.emulator.control.limits(openai_enqueued_tokens=per_row(openai) * ROWS)
    (blocking,) = openai.emulator.control.foreign("openai", requests=60, ends="never")
    notes: list[str] = []
    run = Aside(lambda: enrich(openai.spec(limit=rows), progress=LineProgress(notes.append)))
    until(lambda: any("queue is full" in text for text in notes))
    openai.emulator.control.vanish(blocking)
    receipt = run.end()
    assert (receipt.result, ended(receipt), receipt.batches, receipt.rounds) == (
        "succeeded",
        {"succeeded": rows},
        1,
        1,
    )
    assert [(batch["requests"], batch["accepted"]) for batch in batches(openai)] == [
        (rows, False),
        (rows, True),
    ]
    assert {row["_attempts"] for row in openai.rows()} == {1}
    openai.check_answers()
    check_money(openai)


@pytest.mark.parametrize("room", [1, 3, 7])
def test_a_batch_too_large_for_an_empty_queue_is_halved(openai: Table, room: int) -> None:
    """With nothing else open it is halved, and again, until each part fits; no row runs twice."""
    openai.emulator.control.limits(openai_enqueued_tokens=per_row(openai) * room)
    receipt = openai.run()
    assert (receipt.result, ended(receipt), receipt.rounds) == ("succeeded", {"succeeded": ROWS}, 1)
    book = openai.ledger()
    assert max(batch["requests"] for batch in batches(openai) if batch["accepted"]) <= room
    assert (
        book["requests_accepted"],
        book["billed_twice"]["number"],
        book["accepted_twice"]["number"],
    ) == (ROWS, 0, 0)
    assert sorted(row for chunk in all_chunks() for row in range(chunk.start, chunk.stop)) == list(
        range(ROWS)
    )
    openai.check_answers()
    check_money(openai)


def test_a_row_that_never_fits_is_one_failed_row(openai: Table) -> None:
    """A request larger than the whole queue fails alone, never paid; all others succeed."""
    openai.values[3]["text"] = "long " * 2000
    openai.write()
    openai.emulator.control.limits(openai_enqueued_tokens=per_row(openai) * ROWS)
    receipt = openai.run()
    assert (receipt.exit_code, ended(receipt)) == (3, {"canceled": 1, "succeeded": ROWS - 1})
    (row,) = [row for row in openai.rows() if row["_status"] != "succeeded"]
    assert (row["id"], row["_attempts"], row["_cost_usd"]) == ("k3", 0, 0)
    assert "token_limit_exceeded" in row["_error"]
    assert openai.ledger()["accepted_twice"]["number"] == 0
    check_money(openai)


def test_many_chunks_at_a_time_and_little_room(emulator: Emulator, tmp_path: Path) -> None:
    """Forty rows in batches of ten, four at once, with room for eight rows: all succeed.

    Nothing is sent twice, and money settles.
    """
    table = Table(tmp_path, emulator, "openai", 40)
    emulator.control.limits(openai_enqueued_tokens=per_row(table) * 8 + 8)
    emulator.control.progress("reads", 2)
    receipt = table.run(items_per_batch=10, max_parallel_batches=4)
    assert (receipt.result, ended(receipt)) == ("succeeded", {"succeeded": 40})
    book = table.ledger()
    assert (
        book["requests_accepted"],
        book["billed_twice"]["number"],
        book["accepted_twice"]["number"],
    ) == (40, 0, 0)
    table.check_answers()
    check_money(table)


@pytest.mark.parametrize("after", ["poll", "submit", "return"])
def test_a_run_that_dies_for_want_of_room_is_carried_on(
    openai: Table, monkeypatch: pytest.MonkeyPatch, after: str
) -> None:
    """A run dies after the create, after a status read, or after it gave the batch up.

    The next run continues, and sends nothing twice.
    """
    openai.emulator.control.limits(openai_enqueued_tokens=per_row(openai) * 3)
    with monkeypatch.context() as dying:
        if after == "return":
            from batchata_tasks.execution import queue_full as room

            def cut(*_: Any) -> None:
                raise KeyboardInterrupt

            dying.setattr(room, "split_chunk", cut)
            with pytest.raises(KeyboardInterrupt):
                openai.run()
        else:
            with pytest.raises(KeyboardInterrupt):
                run_with(
                    openai, stopping_at(after, lambda _chunk: True, KeyboardInterrupt(), after=True)
                )
    receipt = openai.run()
    assert receipt.continued
    assert ended(receipt) == {"succeeded": ROWS}
    book = openai.ledger()
    assert (book["requests_accepted"], book["billed_twice"]["number"]) == (ROWS, 0)
    openai.check_answers()
    check_money(openai)


def test_the_time_limit_ends_the_wait_for_room(openai: Table) -> None:
    """If the queue stays full, the run ends by its time limit, its rows unsent and unpaid.

    The next one sends them.
    """
    openai.emulator.control.limits(openai_enqueued_tokens=per_row(openai) * ROWS)
    (blocking,) = openai.emulator.control.foreign("openai", requests=60, ends="never")
    receipt = openai.run(time_limit="1s")
    assert (receipt.result, receipt.exit_code, receipt.unsent_rows) == (
        "time_limit_reached",
        5,
        ROWS,
    )
    assert openai.ledger()["requests_billed"] == 0
    assert [chunk.state for chunk in all_chunks()] == [ChunkState.DROPPED]
    openai.emulator.control.vanish(blocking)
    openai.emulator.control.limits(openai_enqueued_tokens=0)
    assert ended(openai.run()) == {"succeeded": ROWS}
    check_money(openai)


def test_a_limit_of_cost_holds_while_batches_come_back(openai: Table) -> None:
    """A chunk that is given back and split keeps its money.

    It neither breaks the limit nor uses it up.
    """
    openai.emulator.control.limits(openai_enqueued_tokens=per_row(openai) * 3)
    bound = bound_of(openai)
    receipt = openai.run(cost_limit_usd=bound / 10**12)
    assert (receipt.result, ended(receipt)) == ("succeeded", {"succeeded": ROWS})
    assert check_money(openai).settled <= bound


def test_a_full_queue_of_requests_is_waited_for(
    anthropic: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Anthropic answers 429 while our own batches fill the queue: the others wait.

    None fails, and none is sent twice.
    """
    monkeypatch.setenv("BATCHATA_PATIENCE", "5")
    anthropic.emulator.control.limits(anthropic_queued_requests=4)
    anthropic.emulator.control.progress("reads", 30)
    receipt = anthropic.run(items_per_batch=2, max_parallel_batches=4)
    assert (receipt.result, ended(receipt)) == ("succeeded", {"succeeded": ROWS})
    assert 429 in creates(anthropic)
    book = anthropic.ledger()
    assert (book["requests_accepted"], book["accepted_twice"]["number"]) == (ROWS, 0)
    anthropic.check_answers()
    check_money(anthropic)


def test_a_queue_that_others_fill_is_waited_for(anthropic: Table) -> None:
    """If others fill the queue, the run waits for longer than its patience."""
    anthropic.emulator.control.limits(anthropic_queued_requests=10)
    (blocking,) = anthropic.emulator.control.foreign("anthropic", requests=5, ends="never")
    run = Aside(anthropic.run)
    until(lambda: len(creates(anthropic)) >= 1)
    time.sleep(0.5)
    anthropic.emulator.control.vanish(blocking)
    assert ended(run.end()) == {"succeeded": ROWS}
    check_money(anthropic)


def test_a_queue_that_empties_right_after_the_429_stops_nothing(
    anthropic: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The batch that filled the queue ends between the refusal and the list of open ones.

    There is room then.
    """
    anthropic.emulator.control.limits(anthropic_queued_requests=10)
    (blocking,) = anthropic.emulator.control.foreign("anthropic", requests=5, ends="never")
    kind = provider_type("anthropic")
    real = kind.open_batches

    def open_batches(self: Any, model: str | None = None) -> set[str]:
        anthropic.emulator.control.vanish(blocking)
        return real(self, model)

    monkeypatch.setattr(kind, "open_batches", open_batches)
    assert ended(anthropic.run()) == {"succeeded": ROWS}


def test_a_rate_limit_with_nothing_open_ends_the_run(
    table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If 429 stays and there is no batch to wait for, the run ends in an error after its patience.

    The next run sends all.
    """
    monkeypatch.setenv("BATCHATA_PATIENCE", "0.04")
    table.emulator.control.faults(kind="http_429", route="create")
    with pytest.raises(TransientError, match="429"):
        table.run()
    assert len(creates(table)) <= 3
    table.emulator.control.clear_faults()
    assert ended(table.run()) == {"succeeded": ROWS}
    check_money(table)


# --- batches that end otherwise -------------------------------------------------------------------


@pytest.mark.parametrize("share", [0.0, 0.25])
@pytest.mark.parametrize("kind", ["batch_expires", "batch_cancelled"])
def test_what_ran_of_a_batch_is_kept(table: Table, kind: str, share: float) -> None:
    """With one attempt, what ran is landed and paid, and what never ran is no attempt.

    The next run sends just that.
    """
    ran = int(ROWS * share)
    table.emulator.control.faults(kind=kind, share=share, count=1)
    receipt = table.run(rerun_on=["new"])
    never = "expired" if kind == "batch_expires" else "canceled"
    assert ended(receipt) == {never: ROWS - ran} | ({"succeeded": ran} if ran else {})
    assert sorted(row["_attempts"] for row in table.rows()) == [0] * (ROWS - ran) + [1] * ran
    check_money(table)
    assert ended(table.run()) == {"succeeded": ROWS - ran}
    assert table.ledger()["billed_twice"]["number"] == 0
    check_money(table)


def left_and_deleted(table: Table, how: str) -> str:
    """Stop a run once its batch has ended, and delete that at the provider; return its name."""
    with pytest.raises(KeyboardInterrupt):
        run_with(table, stopping_at("poll", lambda _chunk: True, KeyboardInterrupt(), after=True))
    batch: str = batches(table)[0]["id"]
    getattr(table.emulator.control, how)(batch)
    return batch


def test_results_that_are_gone_cost_their_bound_and_an_attempt(
    anthropic: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the provider deleted them, a month old, the bound counts and the rows are missing.

    Nobody can say what the answers cost. The next attempt works.
    """
    table = anthropic
    left_and_deleted(table, "archive")
    monkeypatch.setattr(look, "now_us", lambda: now_us() + 40 * _DAY_US)
    receipt = table.run()
    assert (receipt.continued, receipt.rounds, ended(receipt)) == (True, 2, {"succeeded": ROWS})
    assert {row["_attempts"] for row in table.rows()} == {2}
    sums = check_money(table, lost=True)
    assert sums.overhead == bound_of(table)
    assert any("without a readable result line" in text for text in receipt.warnings)


@pytest.mark.parametrize("how", ["archive", "vanish"])
def test_a_batch_that_somebody_deleted_is_not_sent_again_unasked(table: Table, how: str) -> None:
    """It was paid for: its rows are held until a person gives it up, and runs end.

    So are the rows of a batch that a server lost.
    """
    if how == "archive" and table.provider == "openai":
        how = "delete_outputs"
    batch, sent = left_and_deleted(table, how), table.ledger()["requests_accepted"]
    receipt = table.run()
    assert (receipt.held_rows, receipt.exit_code) == (ROWS, 3)
    assert table.ledger()["requests_accepted"] == sent
    reconcile(ReconcileRequest(abandon=(batch,)))
    assert ended(table.run()) == {"succeeded": ROWS}
    assert table.ledger()["requests_accepted"] == sent + ROWS
    assert check_money(table, lost=True).overhead == bound_of(table)


@pytest.mark.parametrize("late", [{"reads": 2}, {"seconds": 0.5}])
def test_output_files_that_are_named_late_are_awaited(
    openai: Table, monkeypatch: pytest.MonkeyPatch, late: dict[str, float]
) -> None:
    """`completed` without its files is awaited: no row is missing, none is sent again."""
    monkeypatch.setenv("BATCHATA_PATIENCE", "2")
    openai.emulator.control.faults(kind="late_files", **late)
    receipt = openai.run()
    assert (receipt.result, receipt.rounds) == ("succeeded", 1)
    assert openai.ledger()["requests_accepted"] == ROWS
    check_money(openai)


# --- stops ----------------------------------------------------------------------------------------


def test_the_time_limit_cancels_what_never_ends_and_lands_what_ran(table: Table) -> None:
    """The open batch is cancelled, its finished part landed and paid, and the exit code is 5.

    The next run sends the rest.
    """
    table.emulator.control.faults(kind="never_ends", share=0.5, count=1)
    receipt = table.run(time_limit=TIME_TO_SEND)
    assert (receipt.result, receipt.exit_code) == ("time_limit_reached", 5)
    assert ended(receipt) == {"canceled": ROWS // 2, "succeeded": ROWS // 2}
    assert [batch["ending"] for batch in batches(table)] == ["cancelled"]
    assert sorted(row["_attempts"] for row in table.rows()) == [0] * (ROWS // 2) + [1] * (ROWS // 2)
    check_money(table)
    later = table.run()
    assert (later.plan["reasons"], ended(later)) == (
        {"failed": ROWS // 2},
        {"succeeded": ROWS // 2},
    )
    assert table.ledger()["billed_twice"]["number"] == 0
    check_money(table)


def test_the_time_limit_sends_nothing_more(table: Table) -> None:
    """Waiting batches are not sent once the time is over."""
    table.emulator.control.faults(kind="never_ends", share=0.0)
    receipt = table.run(time_limit=TIME_TO_SEND, items_per_batch=2, max_parallel_batches=2)
    assert (receipt.exit_code, receipt.unsent_rows, ended(receipt)) == (5, 4, {"canceled": 4})
    assert table.ledger()["batches_accepted"] == 2
    table.emulator.control.clear_faults()
    assert ended(table.run()) == {"succeeded": ROWS}
    check_money(table)


def test_a_batch_cancelled_before_it_was_validated_cost_nothing(openai: Table) -> None:
    """Such a batch has no files and no counts.

    Its rows never ran, which is no attempt and costs nothing.
    """
    openai.emulator.control.progress("reads", 2000)
    receipt = openai.run(time_limit=TIME_TO_SEND)
    assert (receipt.exit_code, openai.ledger()["requests_billed"]) == (5, 0)
    assert ended(receipt) == {"canceled": ROWS}
    assert {row["_attempts"] for row in openai.rows()} == {0}
    assert check_money(openai).settled == 0


@pytest.mark.parametrize("name", ["anthropic", "openai"])
def test_a_time_limit_that_passed_while_the_run_was_dead(
    emulator: Emulator, tmp_path: Path, name: str
) -> None:
    """The limit counts from the run's start: carried on too late, it lands what ran.

    It sends nothing.
    """
    table = Table(tmp_path, emulator, name, ROWS)
    with pytest.raises(KeyboardInterrupt):
        run_with(
            table,
            stopping_at("poll", lambda _chunk: True, KeyboardInterrupt(), after=True),
            time_limit="1h",
            items_per_batch=4,
            max_parallel_batches=1,
        )
    with closing(sqlite3.connect(tmp_path / "ledger.db")) as ledger, ledger:
        ledger.execute("update runs set started_at = started_at - 3600000000")
    receipt = table.run(time_limit="1h", items_per_batch=4, max_parallel_batches=1)
    assert (receipt.continued, receipt.exit_code, receipt.unsent_rows) == (True, 5, 4)
    assert ended(receipt) == {"succeeded": 4}
    assert table.ledger()["requests_accepted"] == 4
    check_money(table)


@contextmanager
def ended_by_others(table: Table) -> Iterator[None]:
    """Let somebody end the first batch once the create after it was answered."""

    def end() -> None:
        until(lambda: len(creates(table)) >= 2)
        table.emulator.control.cancel(batches(table)[0]["id"], share=1.0)

    thread = threading.Thread(target=end)
    thread.start()
    try:
        yield
    finally:
        thread.join(PATIENCE)


@pytest.mark.parametrize("kind", ["spend_cap", "hard_limit"])
def test_a_spend_cap_is_asked_once_and_what_is_under_way_is_landed(table: Table, kind: str) -> None:
    """A create that waiting does not help is not repeated; the batch accepted before is landed.

    The next run continues.
    """
    table.emulator.control.faults(kind="never_ends", share=0.5, count=1)
    table.emulator.control.faults(kind=kind, nth=2)
    table.emulator.control.faults(kind=kind, nth=3)
    with ended_by_others(table), pytest.raises(TerminalError):
        table.run(items_per_batch=2, max_parallel_batches=2)
    answers = sorted(creates(table))  # creates whose batches have names go side by side
    assert answers[0] == 200
    assert len(answers) == 2
    assert [chunk.state for chunk in all_chunks()].count(ChunkState.LANDED) == 1
    table.emulator.control.clear_faults()
    receipt = table.run(items_per_batch=2, max_parallel_batches=2)
    assert receipt.continued
    assert ended(receipt) == {"succeeded": ROWS}
    assert table.ledger()["billed_twice"]["number"] == 0
    check_money(table)


def test_a_key_that_is_revoked_half_way(table: Table) -> None:
    """The error says so; with the key restored the next run lands every row, nothing twice."""
    table.emulator.control.progress("reads", 400)
    run = Aside(lambda: table.run(items_per_batch=4, max_parallel_batches=2))
    until(lambda: len(batches(table)) == 2)
    table.emulator.control.revoke()
    with pytest.raises((TerminalError, CredentialsError), match="key"):
        run.end()
    table.emulator.control.progress("immediate")
    with pytest.raises((TerminalError, CredentialsError), match="key"):
        table.run(items_per_batch=4, max_parallel_batches=2)
    table.emulator.control.restore()
    receipt = table.run(items_per_batch=4, max_parallel_batches=2)
    assert receipt.continued
    assert ended(receipt) == {"succeeded": ROWS}
    book = table.ledger()
    assert (book["requests_accepted"], book["accepted_twice"]["number"]) == (ROWS, 0)
    table.check_answers()
    check_money(table)
