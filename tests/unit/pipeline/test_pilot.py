"""Pilots: the first rows go alone, and the rest only if they turned out well."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest

from batchata_tasks.common.errors import HeldError, SpecError, TransientError
from batchata_tasks.common.money import pico_from_usd, usd
from batchata_tasks.ledger import ChunkState
from batchata_tasks.operations.reconcile_report import ReconcileRequest
from batchata_tasks.pipeline.enrich import enrich
from batchata_tasks.progress.listener import LineProgress
from batchata_tasks.reports.status import runs_remedies
from tests.support.books import all_chunks, check_money, run_with, stopping_at
from tests.support.operations import preview, reconcile, runs_overview
from tests.support.table import Table

if TYPE_CHECKING:
    from pathlib import Path

    from batchata_tasks.emulator import Emulator
    from batchata_tasks.ledger import Chunk

pytestmark = pytest.mark.in_turn

ROWS = 12

STRICT = {"rows": 4, "max_invalid_share": 0.2}


@pytest.fixture
def claude(emulator: Emulator, tmp_path: Path) -> Table:
    return Table(tmp_path, emulator, "anthropic", rows=12)


def refused(table: Table, **changes: Any) -> str:
    receipt = table.run(**changes)
    assert (receipt.result, receipt.exit_code) == ("pilot_failed", 1)
    text = receipt.reason or ""
    assert text.startswith("pilot: ")
    assert "\n" not in text
    return text


def accepted(table: Table) -> int:
    return table.ledger()["requests_accepted"]


def check(table: Table) -> None:
    """Check that all rows succeeded with their own answers, and that the books agree."""
    assert [row["_status"] for row in table.rows()] == ["succeeded"] * 12
    table.check_answers()
    check_money(table)


def test_a_pilot_that_holds_is_followed_by_the_rest(table: Table) -> None:
    """A pilot is a batch of its own that lands before another is sent; each row is sent once."""
    receipt = table.run(pilot={**STRICT, "max_cost_per_row_usd": 0.01})
    assert (receipt.exit_code, receipt.rounds) == (0, 1)
    pilot, rest = sorted(table.ledger()["batches"], key=lambda batch: batch["requests"])
    assert (pilot["requests"], rest["requests"]) == (4, 8)
    assert pilot["ended_at"] <= rest["created_at"]
    assert accepted(table) == 12
    check(table)


def test_too_many_rows_without_an_answer(table: Table) -> None:
    """The rest is not sent, now or when the same is run again.

    Landed rows stay, and a corrected spec continues from there.
    """
    table.emulator.control.faults(kind="request_invalid_answer", contains="row 2")
    text = refused(table, pilot=STRICT)
    assert (
        "25.0% of its 4 rows have no usable answer (1 invalid; `max_invalid_share` allows "
        "20.0%); 8 rows were not sent."
    ) in text
    assert [row["_status"] for row in table.rows()] == [
        "succeeded",
        "succeeded",
        "invalid",
        "succeeded",
    ]
    check_money(table)
    assert refused(table, pilot=STRICT) == text
    assert accepted(table) == 4
    ahead = preview(table.spec(pilot=STRICT))
    assert ahead.pilot_failed
    assert "until the spec or its pilot is changed" in dict(ahead.lines())["First"]
    (run,) = runs_overview(table.spec(pilot=STRICT))
    assert (run["result"], runs_remedies([run])) == ("pilot_failed", [])
    assert not preview(table.spec(pilot={**STRICT, "max_invalid_share": 0.5})).pilot_failed
    table.emulator.control.clear_faults()
    receipt = table.run(pilot={**STRICT, "max_invalid_share": 0.5})
    assert (receipt.exit_code, receipt.plan["requests"], receipt.plan["pilot"]) == (0, 9, 4)
    assert accepted(table) == 4 + 9
    check(table)


def test_rows_that_cost_too_much(table: Table) -> None:
    """A row's cost is the pilot's cost by its rows, rounded up.

    It may reach the maximum, and not exceed it.
    """
    first = table.run(limit=4, output=str(table.folder / "other"))
    cost = pico_from_usd(first.cost_usd or "")
    per_row = -(-cost // 4)
    text = refused(table, pilot={"rows": 4, "max_cost_per_row_usd": float(usd(per_row - 1))})
    assert text.startswith("pilot: a row costs $")
    assert "(`max_cost_per_row_usd` allows $" in text
    assert accepted(table) == 4 + 4
    receipt = table.run(
        pilot={"rows": 4, "max_cost_per_row_usd": float(usd(per_row))},
        where="id in ['k0', 'k1', 'k2', 'k3']",
    )
    assert (receipt.exit_code, accepted(table)) == (0, 8)


def test_the_allowed_share_may_be_reached(claude: Table) -> None:
    """One bad row of four is a quarter, which a quarter allows.

    It is sent again in a round like any other.
    """
    claude.emulator.control.faults(kind="request_invalid_answer", contains="row 2", times=1)
    receipt = claude.run(pilot={"rows": 4, "max_invalid_share": 0.25})
    assert (receipt.exit_code, receipt.rounds, accepted(claude)) == (0, 2, 13)
    check(claude)


@pytest.mark.parametrize("rows", [12, 20])
def test_a_pilot_with_all_rows_decides_nothing(claude: Table, rows: int) -> None:
    """If no rows would remain, there is no pilot, and the run ends as without one."""
    claude.emulator.control.faults(kind="request_refusal", contains="row 2")
    receipt = claude.run(pilot={"rows": rows, "max_invalid_share": 0})
    assert (receipt.exit_code, receipt.batches, receipt.plan["pilot"]) == (3, 1, 0)


def test_a_cost_limit_cuts_the_pilot(claude: Table) -> None:
    """A pilot that could not be paid for as a whole is not judged.

    The run ends at its limit, and a larger one continues.
    """
    bound = preview(claude.spec()).summary.bound or 0
    claude.emulator.control.faults(kind="request_refusal", contains="row 0")
    limit = float(usd(bound)) / 12 * 1.1
    receipt = claude.run(pilot={"rows": 4, "max_invalid_share": 0}, cost_limit_usd=limit)
    assert receipt.exit_code == 4
    assert receipt.outcomes["refused"] == 1
    sent = accepted(claude)
    assert 1 <= sent < 4
    assert check_money(claude).settled <= pico_from_usd(limit)
    claude.emulator.control.clear_faults()
    receipt = claude.run(pilot={"rows": 4, "max_invalid_share": 0}, cost_limit_usd=1)
    assert (receipt.outcomes, receipt.plan["pilot"], accepted(claude)) == (
        {"succeeded": 12 - sent},
        4,
        12,
    )


@pytest.mark.parametrize("step", ["submit", "poll", "collect"])
@pytest.mark.parametrize(
    ("start", "fails"),
    [(0, False), (4, False), (0, True)],
    ids=["in the pilot", "after it", "in one that does not hold"],
)
def test_a_killed_pilot_is_carried_on(claude: Table, step: str, start: int, fails: bool) -> None:
    """After a kill, before or after the landing, the same command judges what landed.

    It sends nothing twice.
    """

    def meant(chunk: Chunk) -> bool:
        return chunk.start == start

    if fails:
        claude.emulator.control.faults(kind="request_invalid_answer", contains="row 2")
    with pytest.raises(KeyboardInterrupt):
        run_with(claude, stopping_at(step, meant, KeyboardInterrupt(), after=True), pilot=STRICT)
    assert accepted(claude) == (12 if start else 4)
    if fails:
        assert "(1 invalid;" in refused(claude, pilot=STRICT)
        assert (accepted(claude), len(claude.rows())) == (4, 4)
        return
    receipt = claude.run(pilot=STRICT)
    assert (receipt.continued, receipt.exit_code, accepted(claude)) == (True, 0, 12)
    check(claude)


@pytest.mark.parametrize(
    ("step", "start", "end", "rest"),
    [
        ("submit", 0, "; 4 rows first.", "the other 8 are"),
        ("poll", 0, "; the 4 rows sent before them decide on that.", "the other 8 are"),
        ("submit", 8, ".", "the 4 not sent yet are"),
    ],
    ids=["unsent", "sent", "landed"],
)
def test_a_run_that_is_carried_on_tells_what_is_left(
    claude: Table, step: str, start: int, end: str, rest: str
) -> None:
    """Rows go first if the pilot is not sent yet; of those after it, the unsent ones count."""
    changes: dict[str, Any] = {"pilot": STRICT, "items_per_batch": 4, "max_parallel_batches": 1}
    stop = stopping_at(step, lambda chunk: chunk.start == start, KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        run_with(claude, stop, **changes)
    lines = list[str]()
    enrich(claude.spec(**changes), progress=LineProgress(lines.append))
    (before,) = [line for line in lines if line.startswith("about to send")]
    (held,) = [line for line in lines if line.startswith("the pilot held")]
    assert re.search(rf"at most \$[\d.]+\d \([^)]+\){re.escape(end)}$", before)
    assert f"; {rest} expected to cost about" in held
    check(claude)


def test_a_pilot_in_several_batches(claude: Table) -> None:
    """`items_per_batch` splits the pilot, too; it is judged as a whole before others are sent."""
    claude.emulator.control.faults(kind="request_refusal", contains="row 3")
    text = refused(claude, pilot={"rows": 5, "max_invalid_share": 0.1}, items_per_batch=2)
    assert "20.0% of its 5 rows" in text
    assert [chunk.rows for chunk in all_chunks() if chunk.batch_id] == [2, 2, 1]
    assert accepted(claude) == 5


def test_a_pilot_that_is_held_sends_nothing_more(
    claude: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pilot with held rows is not judged: the rest waits until a person has decided.

    That holds for each further run.
    """
    claude.emulator.control.faults(kind="drop_before", count=1)
    for call in range(2, 12):  # the first list goes before the create
        claude.emulator.control.faults(kind="http_error", route="list", status=500, nth=call)
    with monkeypatch.context() as hasty:
        hasty.setenv("BATCHATA_PATIENCE", "0")
        with pytest.raises(TransientError):
            claude.run(pilot=STRICT)
    claude.emulator.control.clear_faults()
    (chunk,) = (chunk.id for chunk in all_chunks() if chunk.state == ChunkState.UNCLEAR)
    reconcile(ReconcileRequest(hold=(chunk,)))
    for _ in range(2):
        with pytest.raises(HeldError, match=r"^pilot: rows of it are held"):
            claude.run(pilot=STRICT)
    assert accepted(claude) == 0
    reconcile(ReconcileRequest(resend=(chunk,)))
    receipt = claude.run(pilot=STRICT)
    assert (receipt.continued, receipt.exit_code, receipt.batches, accepted(claude)) == (
        True,
        0,
        2,
        12,
    )
    check(claude)


def test_a_price_that_nobody_knows_cannot_be_held(claude: Table) -> None:
    """A limit of the cost per row is refused without a price, before anything is sent."""
    with pytest.raises(
        SpecError,
        match=r"^model: no batch price .* 'claude-omega-99', so pilot\.max_cost_per_row_usd could",
    ):
        claude.run(model="claude-omega-99", pilot={"rows": 4, "max_cost_per_row_usd": 1})
    assert accepted(claude) == 0


def test_the_receipt_of_a_pilot_that_did_not_hold(claude: Table) -> None:
    """The receipt comes as at any other end: what was sent, its cost, and why no more is sent.

    The run stays open, so that the next one does not send the rest.
    """
    claude.emulator.control.faults(kind="request_refusal", contains="row 2")
    for continued in (False, True):
        receipt = claude.run(pilot=STRICT)
        assert receipt.to_json()["result"] == "pilot_failed"
        assert (receipt.continued, receipt.batches, receipt.outcomes) == (
            continued,
            1,
            {"refused": 1, "succeeded": 3},
        )
        assert pico_from_usd(receipt.cost_usd or "") == check_money(claude).settled > 0
        told = dict(receipt.lines())
        assert (told["Result"], told["Reason"]) == ("pilot failed", receipt.reason)
        assert told["Not sent"] == "8 rows, until the spec or its pilot is changed"
        (run,) = runs_overview(claude.spec())
        assert (run["state"], run["running"]) == ("open", False)


@pytest.fixture
def many(emulator: Emulator, tmp_path: Path) -> Table:
    """Return a table with more rows than the default pilot has."""
    return Table(tmp_path, emulator, "anthropic", rows=25)


def sizes(table: Table) -> list[int]:
    batches = sorted(table.ledger()["batches"], key=lambda batch: batch["created_at"])
    return [batch["requests"] for batch in batches]


def test_a_spec_without_limits_sends_twenty_rows_first(many: Table) -> None:
    """If nothing limits costs, 20 rows go first, and the plan says so and how to turn it off."""
    plan = preview(many.spec(pilot=None))
    assert plan.summary.pilot == 20
    assert dict(plan.lines())["Pilot"] == (
        "20 rows first; the others only if it holds (no cost is limited; `pilot: false` sends all "
        "at once)"
    )
    assert many.run(pilot=None).exit_code == 0
    assert sizes(many) == [20, 5]
    first, second = sorted(many.ledger()["batches"], key=lambda batch: batch["created_at"])
    assert first["ended_at"] <= second["created_at"]


@pytest.mark.parametrize(
    "changes",
    [
        {"pilot": False},
        {"pilot": {"rows": 0}},
        {"pilot": None, "cost_limit_usd": 1},
        {"pilot": None, "budget": {"name": "team", "limit_usd": 1}},
        {"pilot": None, "limit": 20},
    ],
    ids=str,
)
def test_what_needs_no_default_pilot(many: Table, changes: dict[str, Any]) -> None:
    """A limit, few rows, or the word that none is wanted: all rows go at once."""
    assert preview(many.spec(**changes)).summary.pilot == 0
    many.run(**changes)
    assert len(sizes(many)) == 1


def test_rows_that_landed_stand_for_the_default_pilot(many: Table) -> None:
    """Once rows of the same prompt, model and schema are usable, no pilot is sent again."""
    many.run(pilot=None, limit=3)
    assert preview(many.spec(pilot=None)).summary.pilot == 0
    many.run(pilot=None)
    assert sizes(many) == [3, 22]
    assert preview(many.spec(pilot=None, system="Say it.")).summary.pilot == 20
    assert preview(many.spec(pilot=None, max_tokens=201)).summary.pilot == 20


ONCE = {"rows": 4, "max_invalid_share": 0.25, "once": True}


def test_a_pilot_that_is_sent_once(claude: Table) -> None:
    """Rows that landed and kept to it stand for it; another prompt has a pilot again."""
    claude.run(pilot=ONCE, limit=5)
    assert sizes(claude) == [4, 1]
    assert preview(claude.spec(pilot=ONCE)).summary.pilot == 0
    assert preview(claude.spec(pilot={**ONCE, "once": False})).summary.pilot == 4
    assert preview(claude.spec(pilot=ONCE, system="Say it.")).summary.pilot == 4
    claude.run(pilot=ONCE)
    assert sizes(claude) == [4, 1, 7]
    check(claude)


@pytest.mark.parametrize(
    ("bad", "pilot"),
    [
        (["row 1", "row 2"], {}),
        ([], {"max_cost_per_row_usd": 0.0000001}),
        (["row 0", "row 1", "row 2", "row 3"], {"max_invalid_share": None}),
    ],
    ids=["too many bad ones", "too dear", "none usable"],
)
def test_rows_that_do_not_stand_for_a_pilot(
    claude: Table, bad: list[str], pilot: dict[str, Any]
) -> None:
    """Rows that landed and did not keep to a pilot leave it to be sent."""
    for row in bad:
        claude.emulator.control.faults(kind="request_refusal", contains=row)
    claude.run(limit=4)
    assert preview(claude.spec(pilot={**ONCE, **pilot})).summary.pilot == 4


def test_rows_that_failed_do_not_stand_for_the_default_pilot(many: Table) -> None:
    """If most rows that landed are not usable, the pilot is sent."""
    many.emulator.control.faults(kind="request_refusal", contains="row 1")
    many.emulator.control.faults(kind="request_refusal", contains="row 2")
    many.run(pilot=None, limit=3)
    assert preview(many.spec(pilot=None)).summary.pilot == 20


def test_a_default_pilot_that_does_not_hold(many: Table) -> None:
    """If more than half of its answers are of no use, nothing more is sent, and it says why."""
    many.emulator.control.faults(kind="request_truncated", contains="row 1")  # 1, 10 to 19
    text = refused(many, pilot=None, max_attempts=1)
    assert "55.0% of its 20 rows have no usable answer (11 truncated" in text
    assert "5 rows were not sent" in text
    assert "`pilot: false`" in text
    assert refused(many, pilot=None, max_attempts=1) == text
    assert accepted(many) == 20
    receipt = many.run(pilot=False, max_attempts=1)
    assert (receipt.exit_code, receipt.plan["requests"]) == (3, 5)


def test_a_default_pilot_is_about_answers(many: Table) -> None:
    """Requests that expired or met an error say nothing of the spec: the rest is sent."""
    many.emulator.control.faults(kind="request_expired", contains="row 1")
    receipt = many.run(pilot=None)
    assert (receipt.exit_code, receipt.outcomes) == (3, {"expired": 11, "succeeded": 14})
