"""Downloads that are cut, doubled, contradictory, unknown or incomplete.

Every row counts once, and every paid answer is kept.
"""

from __future__ import annotations

import threading
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from importlib import import_module
from typing import TYPE_CHECKING, Any

import orjson
import pytest

from batchata_tasks.common.money import PICO
from batchata_tasks.emulator import answer_text
from batchata_tasks.emulator.anthropic.batch import AnthropicBatch
from batchata_tasks.operations.reconcile_report import ReconcileRequest
from batchata_tasks.pipeline.steps import Steps
from batchata_tasks.providers import provider_type
from tests.support.books import all_chunks, billed, check_money, money, run_with, stopping_at
from tests.support.operations import preview, reconcile
from tests.support.stuck import told
from tests.support.table import Table

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from batchata_tasks.emulator import Emulator
    from batchata_tasks.execution.run_ref import RunRef
    from batchata_tasks.pipeline.receipt import Receipt

pytestmark = pytest.mark.in_turn

ROWS = 6
TOPIC = {"type": "object", "properties": {"topic": {"type": "string"}}, "required": ["topic"]}


def ended(receipt: Receipt) -> dict[str, int]:
    return {name: rows for name, rows in receipt.outcomes.items() if rows}


def bound_of(table: Table, **changes: Any) -> int:
    bound = preview(table.spec(output=str(table.folder / "other"), **changes)).summary.bound
    assert bound is not None
    return bound


def row_of(table: Table, key: str) -> dict[str, Any]:
    return next(row for row in table.rows() if row["id"] == key)


# --- cut ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("clean", [False, True])
@pytest.mark.parametrize("after", [0, 1, 60, 701, 1500, 2500])
def test_a_stream_that_is_cut_counts_no_row_twice(table: Table, after: int, clean: bool) -> None:
    """A stream that ends early, with an error or without, is fetched again.

    Each row is there once and paid once.
    """
    table.emulator.control.faults(kind="cut_download", after_bytes=after, clean=clean, count=1)
    receipt = table.run()
    assert [rule["strikes"] for rule in table.emulator.control.list_faults()] == [1]
    assert (receipt.outcomes, receipt.rounds, receipt.warnings) == ({"succeeded": ROWS}, 1, [])
    assert table.ledger()["requests_accepted"] == ROWS
    table.check_answers()
    check_money(table)


@pytest.mark.parametrize("clean", [False, True])
def test_the_second_of_two_files_is_cut(emulator: Emulator, tmp_path: Path, clean: bool) -> None:
    """If the error file breaks off after the file of answers, both are complete in the end."""
    table = Table(tmp_path, emulator, "openai", ROWS)
    for row in (1, 2):
        emulator.control.faults(kind="request_invalid", contains=f"row {row}")
    emulator.control.faults(kind="cut_download", after_bytes=300, clean=clean, nth=2)
    receipt = table.run()
    assert ended(receipt) == {"errored": 2, "succeeded": ROWS - 2}
    assert all(
        row["_error"] is None or row["_error"].startswith("request: ") for row in table.rows()
    )
    check_money(table)


@pytest.fixture(params=["openai", "responses"])
def two_files(request: pytest.FixtureRequest, emulator: Emulator, tmp_path: Path) -> Table:
    """Return a table of which two rows end in the file of errors."""
    for row in (1, 2):
        emulator.control.faults(kind="request_invalid", contains=f"row {row}")
    return Table(tmp_path, emulator, request.param, ROWS)


def losing(which: int) -> Steps:
    """Return steps before whose first landing one of the two result files is deleted."""

    def collect(ref: RunRef, chunk_id: str) -> dict[str, Any]:
        adapter = provider_type("openai", "chat")()
        look = adapter.look(next(c.batch_id or "" for c in all_chunks() if c.id == chunk_id))
        if len(look.files) > 1:
            adapter.discard_upload(look.files[which])
        return Steps().collect(ref, chunk_id)

    return replace(Steps(), collect=collect)


def test_answers_land_without_their_file_of_errors(
    two_files: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are paid for; only rows of the lost file are sent again, and cost their bound."""
    monkeypatch.setenv("BATCHATA_PATIENCE", "0.05")
    receipt, notes = told(two_files, losing(1))
    assert ended(receipt) == {"errored": 2, "succeeded": ROWS - 2}
    assert (receipt.rounds, receipt.held_rows) == (2, 0)
    assert any("without its file of errors" in note for note in notes)
    book = two_files.ledger()
    assert (book["requests_accepted"], book["requests_billed"]) == (ROWS + 2, ROWS - 2)
    assert check_money(two_files, lost=True).overhead > 0


def test_errors_do_not_land_without_their_file_of_answers(
    two_files: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All rows are held, as where no file can be had: the answers may come after all."""
    monkeypatch.setenv("BATCHATA_PATIENCE", "0.05")
    receipt, _ = told(two_files, losing(0))
    assert (receipt.held_rows, receipt.outcomes) == (ROWS, {})
    assert two_files.ledger()["requests_accepted"] == ROWS


def test_a_file_of_errors_that_is_refused_keeps_answers_back_for_one_run(
    two_files: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A refusal may pass, so the rows are held first; if it lasts, the answers land."""
    monkeypatch.setenv("BATCHATA_PATIENCE", "0.05")
    for nth in (2, 4):
        two_files.emulator.control.faults(kind="http_error", route="content", status=403, nth=nth)
    assert two_files.run().held_rows == ROWS
    receipt = two_files.run()
    assert receipt.held_rows == 0
    answered = [row for row in two_files.rows() if row["_status"] == "succeeded"]
    assert len(answered) == ROWS - 2


def test_a_stream_that_breaks_each_time_lands_nothing(
    table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No row is guessed: all are held, and the next run lands the paid rows.

    It sends nothing.
    """
    monkeypatch.setenv("BATCHATA_PATIENCE", "0.05")
    table.emulator.control.faults(kind="cut_download", after_bytes=900)
    assert table.run().held_rows == ROWS
    assert table.rows() == []
    table.emulator.control.clear_faults()
    assert table.run().plan["up_to_date"] == ROWS
    assert table.ledger()["requests_accepted"] == ROWS
    check_money(table)


def test_a_file_that_stays_short_is_landed_once_a_person_gives_up_what_it_lacks(
    table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Many rows without a line may have been paid for: their batch is set aside.

    Given up, it lands what is there; the other rows are missing at their bound, and sent again.
    """
    monkeypatch.setenv("BATCHATA_PATIENCE", "0.05")
    table.emulator.control.faults(kind="cut_download", after_bytes=1100, clean=True)
    for _ in range(2):
        receipt = table.run(max_attempts=1)
        assert (receipt.exit_code, table.rows()) == (3 if receipt.held_rows else 0, [])
    (batch,) = (batch["id"] for batch in table.ledger()["batches"])
    report = reconcile(ReconcileRequest(abandon=(batch,)))
    assert report.abandoned == []
    assert any("have results" in note for note in report.notes)
    assert table.run(max_attempts=1).outcomes == {}
    lost = [row["id"] for row in table.rows() if row["_status"] != "succeeded"]
    assert 2 < len(lost) < ROWS
    assert table.ledger()["requests_accepted"] == ROWS
    sums = check_money(table, lost=True)
    assert sums.overhead == sum(bound_of(table, where=f"id == '{key}'") for key in lost)
    table.emulator.control.clear_faults()
    assert table.run(max_attempts=2).outcomes == {"succeeded": len(lost)}
    table.check_answers()


def test_a_cut_download_of_a_dead_run_is_not_trusted(
    table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run died after the batch ended.

    The next download breaks once and succeeds at the second try.
    """
    with pytest.raises(KeyboardInterrupt):
        run_with(table, stopping_at("poll", lambda _chunk: True, KeyboardInterrupt(), after=True))
    table.emulator.control.faults(kind="cut_download", after_bytes=1000, count=1)
    receipt = table.run()
    assert (receipt.continued, receipt.outcomes) == (True, {"succeeded": ROWS})
    check_money(table)


# --- lines that should not be ---------------------------------------------------------------------


def test_a_line_that_comes_twice_counts_once(table: Table) -> None:
    """The receipt says so, and its cost is not counted again."""
    table.emulator.control.faults(kind="request_duplicated", contains="row 4")
    receipt = table.run()
    assert (receipt.outcomes, receipt.rounds) == ({"succeeded": ROWS}, 1)
    assert receipt.warnings == ["1 result line that came twice (counted once)"]
    table.check_answers()
    check_money(table)


@pytest.mark.parametrize("order", ["first", "last"])
def test_of_an_error_and_an_answer_the_paid_answer_counts(table: Table, order: str) -> None:
    """Of two lines for one request, in either order, the answer is kept and paid once.

    Nothing is sent again.
    """
    table.emulator.control.faults(kind=f"request_error_{order}", contains="row 4")
    receipt = table.run()
    assert (ended(receipt), receipt.rounds) == ({"succeeded": ROWS}, 1)
    assert row_of(table, "k4")["_attempts"] == 1
    assert any("came twice" in text for text in receipt.warnings)
    assert table.ledger()["requests_accepted"] == ROWS
    table.check_answers()
    check_money(table)


def test_a_line_that_nobody_sent_is_overhead(table: Table) -> None:
    """Its cost is reported beside the rows' and counts as spent; it changes no row."""
    table.emulator.control.faults(kind="request_unknown_id", contains="row 4")
    receipt = table.run()
    assert (receipt.outcomes, receipt.rounds) == ({"succeeded": ROWS}, 1)
    assert receipt.warnings == [
        "1 result line that nobody sent (what was billed counts as overhead)"
    ]
    sums = money(table)
    assert sums.settled == sums.dataset + sums.overhead
    assert sums.overhead == int(row_of(table, "k4")["_cost_usd"] * PICO)
    assert sums.dataset == billed(table)
    table.check_answers()


def test_a_line_of_an_unknown_kind_is_an_error_that_names_it(table: Table) -> None:
    """It is neither success nor failure: never an answer, and the row says what came."""
    table.emulator.control.faults(kind="request_unknown_type", contains="row 4")
    receipt = table.run(max_attempts=1)
    assert ended(receipt) == {"errored": 1, "succeeded": ROWS - 1}
    error = row_of(table, "k4")["_error"]
    assert error.startswith("provider: ")
    if table.provider == "anthropic":
        assert "weird" in error
    assert row_of(table, "k4")["_response"] is None


def test_a_line_of_an_unknown_kind_may_have_been_billed(table: Table) -> None:
    """Its cost is unknown, so its upper bound counts, as for a broken line."""
    table.emulator.control.faults(kind="request_unknown_type", contains="row 4")
    table.run(max_attempts=1)
    assert money(table).overhead == bound_of(table, where="id == 'k4'")


def test_a_batch_without_a_line_is_held_until_a_person_gives_it_up(
    table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If results are an empty file or none, all requests may have been paid for, and are held.

    Given up, they count at their bound, and the next run gets their answers.
    """
    monkeypatch.setenv("BATCHATA_PATIENCE", "0.05")
    table.emulator.control.faults(kind="request_missing", times=1)
    assert table.run().held_rows == ROWS
    bound = all_chunks()[0].bound
    (batch,) = [line["id"] for line in table.ledger()["batches"]]
    reconcile(ReconcileRequest(abandon=(batch,)))
    assert table.run().outcomes == {"succeeded": ROWS}
    assert check_money(table, lost=True).overhead == bound


@pytest.mark.parametrize("end", ["batch_cancelled", "batch_expires"])
def test_a_stopped_batch_that_lacks_lines_of_what_ran_is_not_sent_again(
    emulator: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, end: str
) -> None:
    """Its counts say that most of it ran, its results show a few; given up, these land."""
    monkeypatch.setenv("BATCHATA_PATIENCE", "0.05")
    # which rows have no line depends on ids that each run draws: of 24 never just a few
    table = Table(tmp_path, emulator, "openai", 24)
    emulator.control.faults(kind=end, count=1, share=0.75)
    emulator.control.faults(kind="request_missing", share=0.5, seed=1, times=1)
    receipt, notes = told(table)
    assert (receipt.exit_code, receipt.held_rows) == (3, 24)
    assert any("giving it up lands these" in note for note in notes)
    (batch,) = [line["id"] for line in table.ledger()["batches"]]
    emulator.control.clear_faults()
    reconcile(ReconcileRequest(abandon=(batch,)))
    assert table.run().exit_code == 0
    table.check_answers()


@pytest.mark.parametrize("style", ["capitals", "strange", "cut", "numbers"])
def test_results_whose_ids_are_not_as_they_were(
    table: Table, monkeypatch: pytest.MonkeyPatch, style: str
) -> None:
    """Capitals in custom_ids are no other ids; results with others' ids alone are sent once.

    Their rows are held: another try would be paid for naught.
    """
    monkeypatch.setenv("BATCHATA_PATIENCE", "0.05")
    name = "AnthropicAdapter" if table.provider == "anthropic" else "OpenAIAdapter"
    place = "anthropic.adapter" if table.provider == "anthropic" else "openai.chat"
    adapter: Any = getattr(import_module(f"batchata_tasks.providers.{place}"), name)
    real = adapter.download

    def download(self: Any, look: Any, folder: Path, stem: str) -> list[Path]:
        paths = real(self, look, folder, stem)
        for path in paths:
            lines = [orjson.loads(line) for line in path.read_bytes().splitlines()]
            for number, line in enumerate(lines):
                name: str = line["custom_id"]
                line["custom_id"] = {
                    "capitals": name.upper(),
                    "strange": f"request-{number}",
                    "cut": name[:40],
                    "numbers": number,
                }[style]
            path.write_bytes(b"".join(orjson.dumps(line) + b"\n" for line in lines))
        return paths

    monkeypatch.setattr(adapter, "download", download)
    receipt = table.run()
    assert (receipt.held_rows, table.ledger()["batches_accepted"]) == (
        (0, 1) if style == "capitals" else (ROWS, 1)
    )
    if style == "capitals":
        table.check_answers()
        check_money(table)


def test_broken_lines_are_their_rows_own(table: Table) -> None:
    """A truncated line belongs to its row if its custom_id can be read.

    All other rows have their answers.
    """
    table.emulator.control.faults(kind="request_broken_line", contains="row 4", times=1)
    table.emulator.control.faults(kind="request_broken_line", contains="row 1", times=1)
    receipt = table.run(max_attempts=1)
    assert sum(receipt.outcomes.values()) == ROWS
    assert {row["id"] for row in table.rows() if row["_status"] != "succeeded"} == {"k1", "k4"}
    assert any(
        text.startswith("2 requests without a readable result line") for text in receipt.warnings
    )
    check_money(table, lost=True)


@pytest.mark.parametrize("schema", [TOPIC, None])
def test_separators_inside_answers_end_no_line(table: Table, schema: Any) -> None:
    """U+2028, U+2029 and U+0085 stand raw in answers: one row each, the text as it came."""
    table.emulator.control.faults(kind="request_separators")
    receipt = table.run(response_schema=schema)
    assert (receipt.outcomes, receipt.warnings) == ({"succeeded": ROWS}, [])
    bodies = table.bodies()
    for row in table.rows():
        said = answer_text(table.provider, bodies[row["_custom_id"]])
        want = (
            said if schema is None else orjson.loads(said)["topic"]
        ) + " one\u2028two\u2029three\u0085four"
        assert (row["response"] if schema is None else row["topic"]) == want
    check_money(table)


def test_all_sorts_of_lines_in_one_file(table: Table, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lines are shuffled, doubled, unknown, missing and broken at once.

    In the end each key is there once, with its own answer.
    """
    monkeypatch.setenv("BATCHATA_PATIENCE", "0.05")
    kinds = [
        "request_duplicated",
        "request_unknown_id",
        "request_missing",
        "request_broken_line",
        "request_error_last",
    ]
    for row, kind in enumerate(kinds):
        table.emulator.control.faults(kind=kind, contains=f"row {row}", times=1)
    receipt = table.run()
    assert (receipt.result, ended(receipt), receipt.rounds) == ("succeeded", {"succeeded": ROWS}, 2)
    assert len(receipt.warnings) == 3
    table.check_answers()
    check_money(table, lost=True)


# --- the host of results ---------------------------------------------------------------


@pytest.fixture
def stranger() -> Iterator[tuple[str, list[str]]]:
    """Run a second server; yield its URL and the requests that reached it."""
    seen: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            seen.append(
                f"{self.path} {self.headers.get('authorization')} {self.headers.get('x-api-key')}"
            )
            self.send_response(200)
            self.end_headers()

        def log_message(self, *args: object) -> None:
            """Log nothing."""

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", seen
    server.shutdown()
    thread.join()
    server.server_close()


def test_results_are_fetched_from_the_configured_host_alone(
    emulator: Emulator,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    stranger: tuple[str, list[str]],
) -> None:
    """A `results_url` on another host is never followed, with the key or without.

    That also holds while the fate of a create is resolved.
    """
    url, seen = stranger
    real = AnthropicBatch.wire

    def wire(self: AnthropicBatch, origin: str, now: float) -> Any:
        told = real(self, origin, now)
        return told | {"results_url": told["results_url"] and f"{url}/{self.id}/{{results}}"}

    monkeypatch.setattr(AnthropicBatch, "wire", wire)
    table = Table(tmp_path, emulator, "anthropic", ROWS)
    emulator.control.faults(kind="drop_after", nth=1)
    assert table.run().outcomes == {"succeeded": ROWS}
    assert seen == []
    table.check_answers()
    import urllib.request

    urllib.request.urlopen(url).close()  # the server does count
    assert len(seen) == 1


# --- 404s that pass -------------------------------------------------------------------------------


@pytest.mark.parametrize("route", ["get", "results"])
def test_a_404_that_passes_loses_nothing(table: Table, route: str) -> None:
    """A 404 on the status after a create, or on ended results, is asked again until it passes."""
    name = "content" if (route, table.provider) == ("results", "openai") else route
    table.emulator.control.faults(kind="not_found", route=name, count=2)
    receipt = table.run()
    assert (receipt.outcomes, receipt.rounds, receipt.warnings) == ({"succeeded": ROWS}, 1, [])
    assert table.ledger()["requests_accepted"] == ROWS
    check_money(table)


def test_a_404_half_way_loses_nothing(table: Table) -> None:
    """A 404 in the middle of a batch's life, after reads that found it, loses nothing."""
    table.emulator.control.progress("reads", 4)
    for nth in (3, 5):
        table.emulator.control.faults(kind="not_found", nth=nth)
    assert table.run().outcomes == {"succeeded": ROWS}
    check_money(table)
