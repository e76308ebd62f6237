"""A row that asks something else by now keeps its answer until there is one to take its place."""

from __future__ import annotations

import shutil
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from batchata_tasks.execution import land
from batchata_tasks.pipeline.steps import Steps, part_step
from tests.support.books import check_money, run_with

if TYPE_CHECKING:
    from tests.support.table import Table


ROWS = 6
OTHER_MODELS = {"anthropic": "claude-sonnet-5-5", "openai": "gpt-6.2-sol"}
OTHER_FIELDS: dict[str, Any] = {
    "type": "object",
    "properties": {
        "words": {"type": "array", "items": {"type": "string"}},
        "mood": {"type": "string"},
    },
    "required": ["words", "mood"],
}
NOT_KEPT = {"label", "mood"}  # the columns that another response model brings, or lacks
NEVER_RAN = ("request_expired", "request_no_credit")


@pytest.fixture
def table(table: Table) -> Table:
    """Return a table whose rows were answered once."""
    table.run()
    return table


def changed(table: Table, what: str) -> dict[str, Any]:
    """Change what is asked of all rows; return what changes in the spec."""
    if what == "values":
        for value in table.values:
            value |= {"text": f"another {value['text']}", "note": "another note"}
        table.write()
    changes: dict[str, dict[str, Any]] = {
        "prompt": {"prompt": "Anew: {{ text }}"},
        "model": {"model": OTHER_MODELS[table.provider]},
        "fields": {"response_schema": OTHER_FIELDS},
        "values": {},
    }
    return changes[what]


def as_it_was(row: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name not in NOT_KEPT}


@pytest.mark.parametrize("fault", NEVER_RAN)
@pytest.mark.parametrize("what", ["prompt", "model", "fields", "values"])
def test_a_row_that_did_not_run_stays_as_it_was(table: Table, what: str, fault: str) -> None:
    """Nothing of it changes, money included; the next run asks, and the new answer replaces it."""
    before = table.rows()
    table.emulator.control.faults(kind=fault, contains="row 4")
    spec = changed(table, what)
    receipt = table.run(**spec)
    assert [as_it_was(row) for row in table.rows() if row["id"] == "k4"] == [as_it_was(before[4])]
    assert all(
        row["_fingerprint"] != before[i]["_fingerprint"]
        for i, row in enumerate(table.rows())
        if i != 4
    )
    assert receipt.outcomes["succeeded"] == ROWS - 1
    assert any("1 row stayed as before" in text for text in receipt.warnings)
    accepted = table.ledger()["requests_accepted"]
    table.emulator.control.clear_faults()
    table.run(**spec)
    assert table.ledger()["requests_accepted"] == accepted + 1
    assert table.rows()[4]["_fingerprint"] != before[4]["_fingerprint"]
    assert table.run(**spec).plan["requests"] == 0
    table.check_answers()


def test_what_did_not_run_is_asked_again_by_the_same_run(table: Table) -> None:
    """A further round asks it, as it does for rows that never had an answer."""
    table.emulator.control.faults(kind="request_expired", contains="row 4", times=1)
    receipt = table.run(prompt="Anew: {{ text }}")
    assert receipt.outcomes == {"succeeded": ROWS}
    assert receipt.warnings == []
    assert table.ledger()["requests_accepted"] == 2 * ROWS + 1
    table.check_answers()
    check_money(table)


@pytest.mark.parametrize("elsewhere", [False, True])
def test_a_batch_that_was_cancelled_takes_no_answer(
    table: Table, monkeypatch: pytest.MonkeyPatch, elsewhere: bool
) -> None:
    """All of its rows stay, also if a worker makes its part; the books say what they had cost."""
    before = table.rows()
    steps = replace(Steps(), makes_parts=part_step) if elsewhere else Steps()
    if elsewhere:
        monkeypatch.delattr(land, "make_part")
    table.emulator.control.progress("reads", 10**6)
    run_with(table, steps, prompt="Anew: {{ text }}", time_limit="1s")
    table.emulator.control.progress("immediate")
    assert [as_it_was(row) for row in table.rows()] == [as_it_was(row) for row in before]
    assert check_money(table).superseded == 0
    run_with(table, steps, prompt="Anew: {{ text }}")
    assert check_money(table).superseded > 0


@pytest.mark.parametrize("lost", ["data", "."])
def test_files_that_are_lost_after_it_are_no_trouble(table: Table, lost: str) -> None:
    """The next run sends what has no answer to what it asks by now, and nothing else."""
    table.emulator.control.faults(kind="request_expired", contains="row 4")
    table.run(prompt="Anew: {{ text }}")
    table.emulator.control.clear_faults()
    shutil.rmtree(table.output / lost)
    assert table.run(prompt="Anew: {{ text }}").plan["requests"] == 1
    assert {row["_status"] for row in table.rows()} == {"succeeded"}
    check_money(table, lost=True)
