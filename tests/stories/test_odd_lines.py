"""Result lines in shapes that other servers write: what lands, what it costs, what goes again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.support.books import check_money, sent
from tests.support.operations import preview
from tests.support.table import APIS, Table

if TYPE_CHECKING:
    from pathlib import Path

    from batchata_tasks.emulator import Emulator
    from batchata_tasks.pipeline.receipt import Receipt

pytestmark = pytest.mark.in_turn

ROWS = 4
HARMLESS = [
    *("request_bom", "request_nan", "request_half_pair", "request_cut_character"),
    *("request_float_usage", "request_text_usage", "request_parts", "request_search_first"),
    *("request_eos", "request_body_text"),
]
SAME_AGAIN = ["request_no_answer", "request_lost", "request_plain_error", "request_error_in_body"]
PLAIN: dict[str, Any] = {"response_schema": None}


@pytest.fixture(params=APIS)
def table(request: pytest.FixtureRequest, emulator: Emulator, tmp_path: Path) -> Table:
    """Return a table of four rows, for each API."""
    return Table(tmp_path, emulator, request.param, ROWS)


@pytest.fixture
def openai(emulator: Emulator, tmp_path: Path) -> Table:
    """Return a table of four rows for OpenAI."""
    return Table(tmp_path, emulator, "openai", ROWS)


def struck(table: Table, kind: str, receipt: Receipt) -> dict[str, Any]:
    """Check that one row alone was struck; return it."""
    (rule,) = table.emulator.control.list_faults()
    assert (rule["kind"], sum(receipt.outcomes.values())) == (kind, ROWS)
    return next(row for row in table.rows() if row["id"] == "k2")


@pytest.mark.parametrize("kind", HARMLESS)
def test_an_odd_shape_spoils_no_row(table: Table, kind: str) -> None:
    """Whatever the shape of a line, its answer lands from one batch, at what was billed."""
    table.emulator.control.faults(kind=kind)
    receipt = table.run()
    assert (receipt.outcomes, receipt.exit_code) == ({"succeeded": ROWS}, 0)
    assert receipt.warnings == []
    assert table.ledger()["requests_accepted"] == ROWS
    check_money(table)


def test_a_compaction_is_billed(emulator: Emulator, tmp_path: Path) -> None:
    """Tokens that `usage.iterations` alone states are in the row, in its cost and in the books."""
    table = Table(tmp_path, emulator, "anthropic", ROWS)
    table.emulator.control.faults(kind="request_iterations", contains="row 2")
    row = struck(table, "request_iterations", table.run())
    assert row["_input_tokens"] > 20_000
    check_money(table)


@pytest.mark.parametrize("kind", ["request_half_pair", "request_cut_character"])
def test_what_is_no_character_is_replaced(table: Table, kind: str) -> None:
    """Half a surrogate pair, or a cut character, costs itself alone; the lines beside are whole."""
    table.emulator.control.faults(kind=kind, contains="row 2")
    row = struck(table, kind, table.run(**PLAIN))
    assert row["response"].endswith("\ufffd")
    assert row["response"].startswith("Echo ")
    assert not any("\ufffd" in row["response"] for row in table.rows() if row["id"] != "k2")


@pytest.mark.parametrize("plain", [True, False], ids=["text", "model"])
@pytest.mark.parametrize("kind", ["request_empty", "request_blank"])
def test_an_empty_answer_is_no_answer(table: Table, kind: str, plain: bool) -> None:
    """An empty or blank answer is invalid at what it cost, with or without a response model."""
    table.emulator.control.faults(kind=kind, contains="row 2")
    receipt = table.run(max_attempts=1, **(PLAIN if plain else {}))
    assert receipt.outcomes == {"invalid": 1, "succeeded": ROWS - 1}
    row = struck(table, kind, receipt)
    assert row["_error"] == "response: the answer is empty"
    assert row["_cost_usd"] > 0
    check_money(table)


def test_another_word_for_the_cap_is_the_cap(table: Table) -> None:
    """An answer that ended by MAX_TOKENS is truncated and gets a larger cap, as by `length`."""
    table.emulator.control.faults(kind="request_max_tokens", contains="row 2", times=1)
    receipt = table.run(max_tokens=64)
    assert (receipt.outcomes, receipt.rounds) == ({"succeeded": ROWS}, 2)
    caps = ("max_tokens", "max_completion_tokens", "max_output_tokens")
    used = [next(body[cap] for cap in caps if cap in body) for body in sent(table, "text of row 2")]
    assert used == [64, 128]


@pytest.mark.parametrize("kind", SAME_AGAIN)
def test_what_brought_no_answer_is_sent_again_as_it_was(table: Table, kind: str) -> None:
    """No remark tells a model of an answer that it never gave."""
    table.emulator.control.faults(kind=kind, contains="row 2", times=1)
    receipt = table.run()
    assert receipt.outcomes == {"succeeded": ROWS}
    bodies = sent(table, "text of row 2")
    assert all(body == bodies[0] for body in bodies)
    table.check_answers()
    check_money(table, lost=True)


@pytest.mark.parametrize(
    ("kind", "settings", "error"),
    [
        ("request_error_beside", {}, "request: HTTP 400: too long"),
        ("request_plain_error", {"message": "no such luck"}, "provider: no such luck"),
        ("request_error_in_body", {}, "provider: too long"),
        ("request_error_in_body", {"error_code": "x"}, "provider: x: too long"),
        ("request_lost", {}, "provider: the provider lost the request"),
    ],
)
def test_a_line_tells_its_error_in_the_servers_words(
    openai: Table, kind: str, settings: dict[str, str], error: str
) -> None:
    """Wherever a line holds an error, its words are the row's; such a line costs nothing."""
    openai.emulator.control.faults(kind=kind, contains="row 2", **settings)
    receipt = openai.run(max_attempts=1)
    assert receipt.outcomes == {"errored": 1, "succeeded": ROWS - 1}
    row = struck(openai, kind, receipt)
    assert row["_error"].startswith(error)
    assert (row["_cost_usd"], row["_attempts"]) == (0, 1)
    check_money(openai)


def test_a_line_without_answer_and_error_shows_what_came(table: Table) -> None:
    """It is an error with the first characters of what came, and may have cost its bound."""
    table.emulator.control.faults(kind="request_no_answer", contains="row 2")
    receipt = table.run(max_attempts=1)
    row = struck(table, "request_no_answer", receipt)
    assert row["_error"].startswith("provider: the result line has no answer and no error")
    assert '{"model": ' in row["_error"]
    assert row["_cost_usd"] is None
    assert any("without a readable result line" in text for text in receipt.warnings)
    assert check_money(table, lost=True).overhead > 0


def test_an_answer_without_usage_has_no_known_cost(table: Table) -> None:
    """The answer lands, its cost is null, and the most that it can have cost is spent."""
    table.emulator.control.faults(kind="request_no_usage", contains="row 2")
    receipt = table.run(cost_limit_usd=1)
    assert receipt.outcomes == {"succeeded": ROWS}
    row = struck(table, "request_no_usage", receipt)
    assert (row["_cost_usd"], row["_status"]) == (None, "succeeded")
    bound = preview(table.spec(output=str(table.folder / "other"))).summary.bound
    assert check_money(table, lost=True).overhead == (bound or 0) // ROWS


def test_what_a_row_cost_before_stays_in_the_books(table: Table) -> None:
    """If the last attempt's cost is unknown, that of earlier ones counts as superseded."""
    table.emulator.control.faults(kind="request_empty", contains="row 2", times=1)
    table.emulator.control.faults(kind="request_no_usage", contains="row 2", times=1)
    receipt = table.run()
    assert (receipt.outcomes, receipt.rounds) == ({"succeeded": ROWS}, 2)
    assert [row["id"] for row in table.rows() if row["_cost_usd"] is None] == ["k2"]
    sums = check_money(table, lost=True)
    assert min(sums.superseded, sums.overhead) > 0


def test_a_usage_that_cannot_be_costs_the_bound(table: Table) -> None:
    """10¹¹ searches, or tokens, break no column and stop no run; the receipt says so."""
    table.emulator.control.faults(kind="request_absurd_usage")
    receipt = table.run(cost_limit_usd=1)
    assert (receipt.outcomes, receipt.exit_code) == ({"succeeded": ROWS}, 0)
    assert ["not believed" in text for text in receipt.warnings] == [True]
    bound = preview(table.spec(output=str(table.folder / "other"))).summary.bound
    assert check_money(table, lost=True).dataset == bound


@pytest.mark.parametrize("kind", ["request_no_credit", "request_no_permission"])
def test_trouble_of_the_account_uses_up_no_attempt(table: Table, kind: str) -> None:
    """What the account lacks costs rows nothing: mended, the same command sends them."""
    table.emulator.control.faults(kind=kind)
    receipt = table.run(max_attempts=1)
    assert receipt.exit_code != 0
    assert {(row["_status"], row["_attempts"]) for row in table.rows()} == {("errored", 0)}
    assert all(row["_error"].startswith("account: ") for row in table.rows())
    assert check_money(table).settled == 0
    table.emulator.control.clear_faults()
    assert table.run(max_attempts=1).outcomes == {"succeeded": ROWS}
    check_money(table)
