"""What a run is about to spend is told before it sends anything; much of it needs a yes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from batchata_tasks.common.errors import DeclinedError
from batchata_tasks.common.money import dollars, pico_from_usd
from batchata_tasks.common.settings import Settings
from batchata_tasks.operations.revalidate import revalidate
from batchata_tasks.pipeline.enrich import enrich
from batchata_tasks.progress.listener import LineProgress
from tests.support.books import opened, run_with, stopping_at
from tests.support.operations import preview, runs_overview
from tests.support.table import Table

if TYPE_CHECKING:
    from pathlib import Path

    from batchata_tasks.emulator import Emulator
    from batchata_tasks.pipeline.receipt import Receipt

ROWS = 20
DEAR: dict[str, Any] = {"model": "claude-opus-5-5", "max_tokens": 120_000}  # above $10 together


@pytest.fixture
def table(emulator: Emulator, tmp_path: Path) -> Table:
    return Table(tmp_path, emulator, "anthropic", rows=ROWS)


class Person(LineProgress):
    """Somebody at a terminal who reads lines, and answers each question alike."""

    def __init__(self, *, agrees: bool) -> None:
        self.lines, self.questions = list[str](), list[str]()
        super().__init__(self.lines.append)
        self._agrees = agrees
        self.ask = self._answer

    def _answer(self, question: str) -> bool:
        self.questions.append(question)
        return self._agrees


def run(table: Table, person: LineProgress, **changes: Any) -> Receipt:
    return enrich(table.spec(**changes), progress=person)


def test_the_first_lines_tell_what_it_costs(table: Table) -> None:
    """Rows, model, what is expected and what it costs at most, as the plan has it."""
    plan, person = preview(table.spec()).summary, Person(agrees=False)
    run(table, person)
    assert person.lines[1] == (
        "about to send 20 requests in 1 batch to anthropic, claude-haiku-5-5: "
        f"about {dollars(plan.expected)} expected, at most {dollars(plan.bound)} "
        f"({dollars(plan.most)} with all attempts)."
    )
    assert person.questions == []  # it is little
    again = Person(agrees=False)
    run(table, again)
    assert not any("about to send" in line for line in again.lines)


def test_answers_that_need_not_be_paid_for_again_are_told(table: Table) -> None:
    """How many of them today's response model takes is said before anything is sent, as in a plan.

    Nothing is said of a model that takes none of them.
    """
    run(table, Person(agrees=True))
    label = {"type": "string"}
    for names, kept in ((["label", "score"], 0), (["label"], ROWS)):
        model = {"type": "object", "properties": dict.fromkeys(names, label), "required": names}
        assert preview(table.spec(response_schema=model)).valid_by_now == kept
        person = Person(agrees=True)
        run(table, person, response_schema=model)
        (before,) = [line for line in person.lines if line.startswith("about to send")]
        told = (
            "20 rows of the dataset have an answer that today's response model takes: stop now, "
            "and `batchata revalidate SPEC` keeps such answers for free; this run pays for them "
            "again."
        )
        following = person.lines[person.lines.index(before) + 1]
        assert (following == told) == (told in person.lines) == bool(kept)


def test_answers_beyond_the_limit_are_told_as_well(table: Table) -> None:
    """A run of one row has all of them to lose: they are as many as `revalidate` keeps."""
    run(table, Person(agrees=True))
    model = {"type": "object", "properties": {"label": {"type": "string"}}, "required": ["label"]}
    changes: dict[str, Any] = {"response_schema": model, "limit": 1}
    assert preview(table.spec(**changes)).valid_by_now == ROWS
    person = Person(agrees=False)
    with pytest.raises(DeclinedError):
        run(table, person, **changes)
    (told,) = [line for line in person.lines if "today's response model takes" in line]
    assert told.startswith(f"{ROWS} rows of the dataset have an answer")
    assert revalidate(table.spec(**changes), Settings()).gained == ROWS


def test_what_would_be_free_is_asked_for_whatever_it_costs(table: Table) -> None:
    """Else it would be told, and paid for in the same second."""
    run(table, Person(agrees=True))
    model = {"type": "object", "properties": {"label": {"type": "string"}}, "required": ["label"]}
    person = Person(agrees=False)
    with pytest.raises(DeclinedError):
        run(table, person, response_schema=model)
    assert person.questions == ["Send it?"]
    assert table.ledger()["requests_accepted"] == ROWS


def test_a_row_that_is_sent_whatever_becomes_of_its_answer_does_not_count(table: Table) -> None:
    """Its input changed, too: to revalidate it would keep nothing from being paid for."""
    run(table, Person(agrees=True))
    table.values[0]["text"] = "another one"
    table.write()
    model = {"type": "object", "properties": {"label": {"type": "string"}}, "required": ["label"]}
    assert preview(table.spec(response_schema=model)).valid_by_now == ROWS - 1


def test_a_pilot_and_a_limit_are_told(table: Table) -> None:
    """If rows go first, or a limit leaves less than all may cost, that is said."""
    person = Person(agrees=False)
    bound = preview(table.spec()).summary.bound or 0
    limit = float(dollars(bound * 3 // 4).removeprefix("$"))
    ahead = preview(table.spec(cost_limit_usd=limit, pilot={"rows": 2})).limits
    run(table, person, cost_limit_usd=limit, pilot={"rows": 2})
    (line,) = [line for line in person.lines if line.startswith("about to send")]
    left = dollars(pico_from_usd(limit))
    assert ahead is not None
    assert f"about {ahead.prospect.batches} batches" in ahead.outlook()
    assert f"with `max_tokens: {ahead.fitting_cap}` all of it would fit at once" in ahead.outlook()
    assert "20 requests in at least 2 batches" in line
    assert line.endswith(f"; 2 rows first. Its limits leave {left} for that: {ahead.outlook()}.")


def test_a_no_sends_nothing(table: Table) -> None:
    """Above $10 a no ends the run with nothing sent or reserved; the next one asks anew."""
    assert (preview(table.spec(**DEAR)).summary.bound or 0) > pico_from_usd(10)
    for _ in range(2):
        person = Person(agrees=False)
        with pytest.raises(DeclinedError):
            run(table, person, **DEAR)
        assert person.questions == ["Send it?"]
        assert not person.sent
    assert table.ledger()["requests_accepted"] == 0
    newest, _ = runs_overview(table.spec())
    assert (newest["result"], newest["running"], newest["last_error"]) == ("declined", False, None)
    with opened() as ledger:
        assert ledger.money(newest["run_id"]) == (0, 0)
    assert not any((table.output / "_batchata/runs").iterdir())
    assert run(table, Person(agrees=True), **DEAR).exit_code == 0


def test_who_cannot_be_asked_is_not(table: Table) -> None:
    """Without a person (a log, a schedule, a flow), any sum goes under the limits of the spec."""
    lines = list[str]()
    assert run(table, LineProgress(lines.append), **DEAR).exit_code == 0
    assert any(line.startswith("about to send") for line in lines)


def test_a_limit_below_ten_dollars_answers_for_the_person(table: Table) -> None:
    """What can be spent counts, not what all rows may cost: a limit of $9 asks nobody."""
    person = Person(agrees=False)
    run(table, person, **DEAR, cost_limit_usd=9)
    assert person.questions == []


def test_an_unknown_cost_is_asked_for(table: Table) -> None:
    """A model without a price may cost anything."""
    person = Person(agrees=False)
    with pytest.raises(DeclinedError):
        run(table, person, model="claude-nova-9")
    assert "the cost is unknown, as no batch price is known" in person.lines[-1]


def test_a_run_that_is_carried_on_asks_for_the_rest(table: Table) -> None:
    """After a no, a run of which a batch is at the provider is left as it is, and lands later."""
    change = {"items_per_batch": 4, "max_parallel_batches": 1, **DEAR}
    with pytest.raises(KeyboardInterrupt):
        run_with(table, stopping_at("poll", lambda _chunk: True, KeyboardInterrupt()), **change)
    sent = table.ledger()["requests_accepted"]
    assert 0 < sent < ROWS
    person = Person(agrees=False)
    with pytest.raises(DeclinedError):
        run(table, person, **change)
    assert any(line.startswith("about to send 16 requests") for line in person.lines)
    assert table.ledger()["requests_accepted"] == sent
    assert run(table, Person(agrees=True), **change).outcomes == {"succeeded": ROWS}
    assert table.ledger()["requests_accepted"] == ROWS
