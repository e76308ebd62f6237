"""Ends, counts and files of batches that are late, wrong, or taken back: no row is lost or resent.

Each case is a server, or one of several replicas of it, that tells a batch otherwise than it is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from batchata_tasks.common.clock import now_us
from batchata_tasks.common.errors import SpecError, TransientError
from batchata_tasks.execution import look as looking
from batchata_tasks.ledger import sending
from batchata_tasks.providers.openai.batches import look_of
from batchata_tasks.providers.result_lines import without_line
from batchata_tasks.types.outcome import Outcome
from tests.support.books import check_money, money
from tests.support.operations import preview
from tests.support.table import APIS, Table

if TYPE_CHECKING:
    from pathlib import Path

    from batchata_tasks.emulator import Emulator

pytestmark = pytest.mark.in_turn

ROWS = 5
_DAY = 86_400 * 10**6  # microseconds
NO_COUNTS = {"kind": "odd_objects", "style": "no_counts"}
LOW_COUNTS = {"kind": "odd_objects", "style": "low_counts"}
EMPTY_LIST = {"kind": "list_empty"}
NONSENSE = {"kind": "odd_objects", "style": "nonsense"}
Fault = dict[str, Any]


@pytest.fixture(autouse=True)
def _short_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BATCHATA_PATIENCE", "0.6")
    monkeypatch.setenv("BATCHATA_UNCLEAR_GRACE", "0.3")


@pytest.fixture(params=APIS)
def table(request: pytest.FixtureRequest, emulator: Emulator, tmp_path: Path) -> Table:
    """Return a table of five rows, for each API."""
    return Table(tmp_path, emulator, request.param, ROWS)


@pytest.fixture(params=["openai", "responses"])
def openai(request: pytest.FixtureRequest, emulator: Emulator, tmp_path: Path) -> Table:
    """Return a table of five rows, for each of OpenAI's endpoints."""
    return Table(tmp_path, emulator, request.param, ROWS)


def strike(table: Table, *faults: Fault) -> None:
    for fault in faults:
        table.emulator.control.faults(**fault)


def check_once(table: Table) -> None:
    """Check that every row was accepted once, landed once, and was paid for once."""
    assert all(rule["strikes"] for rule in table.emulator.control.list_faults())
    book = table.ledger()
    assert (book["batches_accepted"], book["requests_accepted"]) == (1, ROWS)
    assert len(table.rows()) == ROWS
    table.check_answers()
    check_money(table)


def download(kind: str, **settings: Any) -> Fault:
    """Return a fault of the first download, whichever provider's."""
    return {"kind": kind, "count": 1, **settings}


# --- what is late ---------------------------------------------------------------------------------


@pytest.mark.parametrize("counts", [{}, NO_COUNTS, LOW_COUNTS], ids=["true", "absent", "low"])
@pytest.mark.parametrize("file", [None, "output", "error"])
def test_files_that_are_named_late_are_waited_for(
    openai: Table, file: str | None, counts: Fault
) -> None:
    """Both files, or either one, may be named after the end, whatever the counts say by then."""
    strike(openai, {"kind": "late_files", "reads": 1, "file": file}, *filter(None, [counts]))
    strike(openai, {"kind": "request_invalid", "contains": "row 2"})
    receipt = openai.run(max_attempts=1)
    assert receipt.outcomes == {"errored": 1, "succeeded": ROWS - 1}
    assert openai.ledger()["requests_accepted"] == ROWS
    assert next(row for row in openai.rows() if row["id"] == "k2")["_error"].startswith("request: ")
    check_money(openai)


@pytest.mark.parametrize("counts", [NO_COUNTS, LOW_COUNTS, NONSENSE])
def test_counts_that_say_nothing_or_too_little_lose_no_row(table: Table, counts: Fault) -> None:
    """Where results are whole, counts that are absent, too low, or no counts change nothing."""
    strike(table, counts)
    receipt = table.run()
    assert (receipt.outcomes, receipt.warnings) == ({"succeeded": ROWS}, [])
    check_once(table)


CUTS: list[Fault] = [
    download("cut_download", after_bytes=1200, clean=True),
    download("cut_download", after_bytes=0, clean=True),
    download("garbled_answer", html=True),
    download("garbled_answer", empty=True),
    download("garbled_answer", gzip=True),
    download("cut_download", after_bytes=1200, clean=True, status=206),
]


@pytest.mark.sampled(5)
@pytest.mark.parametrize("counts", [NO_COUNTS, LOW_COUNTS], ids=["absent", "low"])
@pytest.mark.parametrize("cut", CUTS, ids=["half", "nothing", "page", "empty", "gzip", "part"])
def test_results_that_end_early_without_an_error_are_fetched_again(
    table: Table, cut: Fault, counts: Fault
) -> None:
    """Each request of a batch that ended has a line: fewer are not all, whatever the counts say."""
    route = "results" if table.provider == "anthropic" else "content"
    strike(table, counts, {**cut, "route": route})
    receipt = table.run()
    assert (receipt.outcomes, receipt.warnings) == ({"succeeded": ROWS}, [])
    check_once(table)


def test_a_page_in_place_of_results_lands_nothing(
    table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As long as a proxy answers for the provider, all rows are held; the next run lands them."""
    monkeypatch.setenv("BATCHATA_PATIENCE", "0.05")
    route = "results" if table.provider == "anthropic" else "content"
    strike(table, {"kind": "garbled_answer", "route": route, "html": True}, NO_COUNTS)
    assert (table.run().held_rows, table.rows()) == (ROWS, [])
    table.emulator.control.clear_faults()
    assert table.run().plan["up_to_date"] == ROWS
    check_once(table)


# --- ends that are none ---------------------------------------------------------------------------


def test_an_end_that_is_taken_back_is_waited_for_again(table: Table) -> None:
    """A replica that lags behind says that the batch goes on: its results are not all yet."""
    strike(table, {"kind": "end_taken_back", "reads": 2}, {"kind": "late_files", "reads": 3})
    table.run()
    table.emulator.control.clear_faults()
    check_once(table)


def test_an_end_that_stays_taken_back_lands_nothing(
    openai: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the batch is said to go on for good, no row is given up, and none is sent again."""
    monkeypatch.setenv("BATCHATA_PATIENCE", "0.05")
    strike(openai, {"kind": "end_taken_back", "reads": 9}, {"kind": "late_files", "reads": 3})
    with pytest.raises(TransientError, match="had ended and has not: 'in_progress'"):
        openai.run()
    assert openai.ledger()["batches_accepted"] == 1
    monkeypatch.setenv("BATCHATA_PATIENCE", "5")
    assert openai.run().outcomes == {"succeeded": ROWS}
    check_once(openai)


@pytest.mark.parametrize("pace", [0.0, 0.3], ids=["ended", "running"])
def test_an_end_without_a_reason_is_not_believed_at_once(table: Table, pace: float) -> None:
    """A batch is asked for again where it has failed, or ended, without anything to show for it."""
    table.emulator.control.progress("seconds", pace)
    strike(table, {"kind": "false_end", "reads": 2})
    assert table.run().outcomes == {"succeeded": ROWS}
    check_once(table)


def test_results_that_are_not_found_are_no_end(
    emulator: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A batch that was said to end, and runs on, is looked at before its results count as lost."""
    table = Table(tmp_path, emulator, "anthropic", ROWS)
    monkeypatch.setenv("BATCHATA_PATIENCE", "0.05")
    emulator.control.progress("seconds", 9)
    strike(table, {"kind": "false_end"})
    with pytest.raises(TransientError, match="had ended and has not: 'in_progress'"):
        table.run()
    emulator.control.progress("immediate")
    assert table.run().outcomes == {"succeeded": ROWS}
    check_once(table)


# --- ends without results -------------------------------------------------------------------------


@pytest.mark.parametrize("counts", [{}, NO_COUNTS], ids=["true", "absent"])
def test_results_of_a_batch_that_expired_may_come_late(openai: Table, counts: Fault) -> None:
    """What ran of a stopped batch is waited for; what did not run goes out once more."""
    strike(openai, {"kind": "batch_expires", "share": 0.6, "nth": 1})
    strike(openai, {"kind": "late_files", "reads": 1}, *filter(None, [counts]))
    assert openai.run().outcomes == {"succeeded": ROWS}
    book = openai.ledger()
    assert (book["billed_twice"]["number"], book["requests_billed"]) == (0, ROWS)
    check_money(openai)


@pytest.mark.parametrize(
    "faults",
    [
        [{"kind": "fails_billed"}],
        [{"kind": "fails_billed", "message": "the file could not be written"}],
        [{"kind": "batch_expires", "share": 1.0}, {"kind": "late_files", "reads": 99}, NO_COUNTS],
    ],
    ids=["failed", "failed-why", "expired"],
)
def test_what_may_have_run_without_results_is_held(
    openai: Table, monkeypatch: pytest.MonkeyPatch, faults: list[Fault]
) -> None:
    """If nothing says that requests did not run, none is sent again and their bound is reserved."""
    monkeypatch.setenv("BATCHATA_PATIENCE", "0.05")
    bound = preview(openai.spec()).summary.bound
    strike(openai, *faults)
    for _ in range(2):
        assert openai.run().held_rows == ROWS
    assert openai.ledger()["batches_accepted"] == 1
    assert money(openai).reserved == bound


@pytest.mark.parametrize("status", ["failed", "completed"])
@pytest.mark.parametrize("counts", [None, {"total": 3, "completed": 2, "failed": 0}])
def test_an_error_of_a_whole_batch_does_not_mean_that_nothing_ran(
    status: str, counts: dict[str, int] | None
) -> None:
    """Only counts of 0, or errors of the validation, prove that; else a request may have run."""
    error = {"code": "internal_error", "message": "the worker crashed"}
    look = look_of({"id": "b", "status": status, "errors": [error], "request_counts": counts})
    _, absent = without_line(look, 0)
    assert (absent.outcome, absent.readable) == (Outcome.MISSING, False)
    refused = look_of({"id": "b", "status": "failed", "errors": [{**error, "line": 2}]})
    named, absent = without_line(refused, 0)
    assert (named.keys(), absent.outcome) == ({1}, Outcome.CANCELED)


@pytest.mark.parametrize("status", ["completed", "expired", "cancelled"])
def test_counts_of_nothing_tell_nothing(status: str) -> None:
    """A batch that ended with counts of 0 for all may have run: only a failure is before that."""
    none = {"total": 0, "completed": 0, "failed": 0}
    errors = [{"code": "internal_error", "message": "the output file could not be written"}]
    look = look_of({"id": "b", "status": status, "errors": errors, "request_counts": none})
    _, absent = without_line(look, 0)
    assert (look.done, look.refused, absent.outcome) == (None, False, Outcome.MISSING)
    failed = look_of({"id": "b", "status": "failed", "errors": errors, "request_counts": none})
    assert (failed.done, failed.refused) == (0, True)


@pytest.mark.parametrize("status", [400, 410, 422])
def test_a_batch_that_cannot_be_looked_at_keeps_no_other_rows(
    openai: Table, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    """Looks that are refused for good set the batch aside, named; later runs ask again."""
    monkeypatch.setenv("BATCHATA_PATIENCE", "0.05")
    openai.emulator.control.progress("reads", 2)
    lists = [{"kind": "lists_unproven"}, EMPTY_LIST]
    strike(openai, {"kind": "http_error", "route": "get", "status": status, "nth": 2}, *lists)
    receipt = openai.run()
    (batch,) = [line["id"] for line in openai.ledger()["batches"]]
    assert (receipt.held_rows, receipt.exit_code) == (ROWS, 3)
    assert batch in receipt.warnings[0]
    openai.emulator.control.clear_faults()
    for _ in range(3):
        openai.run()
    check_once(openai)


@pytest.mark.parametrize("began", [True, False])
def test_an_error_with_a_line_is_of_the_validation_before_a_batch_begins(began: bool) -> None:
    """One that names a line later may be of a request that ran."""
    error = {"code": "internal_error", "message": "worker died", "line": 1}
    batch = {"id": "b", "status": "failed", "errors": [error], "in_progress_at": 1_700_000_000}
    assert look_of(batch if began else batch | {"in_progress_at": None}).refused is not began


@pytest.mark.parametrize(
    ("counts", "file", "no_room"),
    [(None, None, True), (0, None, True), (2, None, False), (2, "f", False), (0, "f", False)],
)
def test_a_batch_that_ran_in_part_was_let_in(
    counts: int | None, file: str | None, no_room: bool
) -> None:
    """A full queue is no reason to send again what ran: its results land."""
    done = None if counts is None else {"total": 3, "completed": counts, "failed": 0}
    errors = [{"code": "token_limit_exceeded", "message": "Enqueued token limit reached"}]
    batch = {"id": "b", "status": "failed", "errors": errors, "request_counts": done}
    assert look_of(batch | {"output_file_id": file}).no_room is no_room


@pytest.mark.parametrize("status", [400, 403, 410])
def test_results_that_are_refused_are_held(
    table: Table, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    """Whatever refuses the results of a batch, new rows go on, and the batch is named."""
    monkeypatch.setenv("BATCHATA_PATIENCE", "0.05")
    route = "results" if table.provider == "anthropic" else "content"
    strike(table, {"kind": "http_error", "route": route, "status": status})
    receipt = table.run()
    (batch,) = [line["id"] for line in table.ledger()["batches"]]
    assert (receipt.held_rows, receipt.exit_code) == (ROWS, 3)
    assert f"batchata reconcile --abandon {batch}" in receipt.warnings[0]
    table.emulator.control.clear_faults()
    assert table.run().plan["up_to_date"] == ROWS
    check_once(table)


def test_a_json_error_in_place_of_results_is_none(
    table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A 200 with an error of the server lands nothing, and stops no run as unreadable."""
    monkeypatch.setenv("BATCHATA_PATIENCE", "0.05")
    route = "results" if table.provider == "anthropic" else "content"
    error = '{"error": {"message": "storage is down"}}'
    strike(table, {"kind": "garbled_answer", "route": route, "body": error})
    assert (table.run().held_rows, table.rows()) == (ROWS, [])
    table.emulator.control.clear_faults()
    assert table.run().plan["up_to_date"] == ROWS
    check_once(table)


@pytest.mark.parametrize("change", [{"types": {"id": "int"}}, {"key": "text"}], ids=str)
def test_a_key_does_not_change_while_its_rows_are_held(table: Table, change: Fault) -> None:
    """A source with another key is refused, although nothing landed yet: its rows were sent."""
    for value in table.values:
        value["id"] = value["id"].removeprefix("k")
    table.write()
    strike(table, {"kind": "drop_after", "nth": 1}, {"kind": "lists_unproven"}, EMPTY_LIST)
    assert table.run().held_rows == ROWS
    with pytest.raises(SpecError, match=r"a dataset keeps (its key|what landed)"):
        table.run(**change)
    assert table.ledger()["batches_accepted"] == 1


# --- clocks ---------------------------------------------------------------------------------------


def test_results_that_only_our_clock_takes_for_gone_are_awaited(
    table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A batch that was sent while the clock was weeks behind is not old: its rows are held."""
    monkeypatch.setenv("BATCHATA_PATIENCE", "0.1")
    monkeypatch.setattr(sending, "now_us", lambda: now_us() - 40 * _DAY)
    route = "results" if table.provider == "anthropic" else "content"
    strike(table, {"kind": "not_found", "route": route})
    assert table.run().held_rows == ROWS
    table.emulator.control.clear_faults()
    table.run()
    assert table.ledger()["requests_accepted"] == len(table.rows()) == ROWS
    check_money(table)


def test_one_404_takes_no_old_results_for_gone(
    table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Results that are a month old are asked for again before their rows are missing."""
    monkeypatch.setattr(looking, "now_us", lambda: now_us() + 40 * _DAY)
    route = "results" if table.provider == "anthropic" else "content"
    strike(table, {"kind": "not_found", "route": route, "nth": 1})
    assert table.run().outcomes == {"succeeded": ROWS}
    check_once(table)


# --- parts ----------------------------------------------------------------------------------------


def test_results_that_are_told_to_be_a_part_are_not_landed(
    table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cache that only ever has a part (206) has no row sent again: the batch is awaited."""
    monkeypatch.setenv("BATCHATA_PATIENCE", "0.1")
    strike(table, {"kind": "cut_download", "after_bytes": 1200, "clean": True, "status": 206})
    assert table.run().held_rows == ROWS
    table.emulator.control.clear_faults()
    table.run()
    assert table.ledger()["requests_accepted"] == len(table.rows()) == ROWS
    check_money(table)
