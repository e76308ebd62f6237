"""A run stops where another try would be paid for naught: bad answers, unreadable ones, no credit.

The provider's own count of what it accepted is the witness.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from batchata_tasks import Batch
from batchata_tasks.common.clock import now_us
from batchata_tasks.common.errors import TerminalError, TransientError
from batchata_tasks.ledger import ChunkState, Ledger, RunPhase
from batchata_tasks.pipeline.steps import Steps
from batchata_tasks.pipeline.trouble import frequent_errors
from batchata_tasks.planning.summary import Options
from batchata_tasks.reports.status import runs_in_the_way, runs_remedies
from tests.support.books import check_money, money, opened, run_with, stopping_at
from tests.support.operations import cancel, preview, runs_overview
from tests.support.table import APIS, MODELS, Table

if TYPE_CHECKING:
    from pathlib import Path

    from batchata_tasks.emulator import Emulator
    from batchata_tasks.execution.run_ref import RunRef
    from batchata_tasks.pipeline.receipt import Receipt

MANY = 20
CREDIT = "Your credit balance is too low to access the API."
AGAIN = Options(retry_failed=True)
ONE_BY_ONE: dict[str, Any] = {"items_per_batch": 5, "max_parallel_batches": 1}
PILOT = {"rows": 5, "max_invalid_share": 0.5}


@pytest.fixture(params=APIS)
def table(
    request: pytest.FixtureRequest,
    emulator: Emulator,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Table:
    """Return a table of as many rows as tell of a whole table, for each API."""
    monkeypatch.setenv("BATCHATA_PATIENCE", "0.3")
    return Table(tmp_path, emulator, request.param, rows=MANY)


@pytest.fixture
def claude(emulator: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Table:
    monkeypatch.setenv("BATCHATA_PATIENCE", "0.3")
    return Table(tmp_path, emulator, "anthropic", rows=MANY)


def accepted(table: Table) -> int:
    return table.ledger()["requests_accepted"]


def row_of(table: Table, key: str) -> dict[str, Any]:
    (row,) = [row for row in table.rows() if row["id"] == key]
    return row


def stopped(receipt: Receipt, result: str) -> str:
    """Check that a run stopped so, with one line that says why; return it."""
    assert (receipt.result, receipt.exit_code) == (result, 1)
    assert dict(receipt.lines())["Reason"] == receipt.reason
    assert receipt.reason
    assert "\n" not in receipt.reason
    return receipt.reason


def fault(table: Table, kind: str, **how: Any) -> None:
    table.emulator.control.faults(kind=kind, **how)


def empty_account(table: Table, **how: Any) -> None:
    """Let requests be refused as by an account without credit, from now on."""
    fault(
        table,
        "request_invalid",
        message=CREDIT,
        error_type="billing_error",
        error_code="insufficient_quota",
        **how,
    )


def _crash(_ref: RunRef) -> dict[str, Any]:
    message = "crash"
    raise TransientError(message)


def more_rows(table: Table, rows: int) -> None:
    table.values += [{"id": f"z{i}", "text": f"text of row z{i}", "note": ""} for i in range(rows)]
    table.write()


def enough_for(table: Table, rows: int) -> float:
    """Return a limit in US dollars that is reached after about so many rows; reset the emulator."""
    alone = {"limit": 1, "max_attempts": 1, "output": str(table.folder / "alone")}
    row_bound = preview(table.spec(**alone)).summary.bound or 0
    cost = table.run(None, **alone).cost_usd
    table.emulator.control.reset()
    return rows * float(cost or 0) + row_bound / 1e12


def mend(table: Table) -> None:
    table.emulator.control.clear_faults()


def all_well(table: Table, rows: int = MANY, attempts: int = 1) -> None:
    assert [row["_status"] for row in table.rows()] == ["succeeded"] * rows
    assert {row["_attempts"] for row in table.rows()} == {attempts}
    table.check_answers()


def test_what_rows_had_answered_outlives_trouble_of_the_account(table: Table) -> None:
    """Answers were paid for: `--retry-failed` without credit keeps their texts, also landed twice.

    A landing that died took the rows out of the older part; done again, it has their texts still.
    """
    fault(table, "request_invalid_answer")
    table.run(max_attempts=1)
    before = {row["id"]: row["_response"] for row in table.rows()}
    assert all(before.values())
    mend(table)
    empty_account(table)
    died = [True]
    real = Ledger.land

    def dies(ledger: Ledger, *given: Any, **more: Any) -> Any:
        if died:
            died.clear()
            raise KeyboardInterrupt
        return real(ledger, *given, **more)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Ledger, "land", dies)
        with pytest.raises(KeyboardInterrupt):
            table.run(AGAIN, max_attempts=1)
        table.run(AGAIN, max_attempts=1)
    assert {row["id"]: row["_response"] for row in table.rows()} == before


# --- no usable answer -----------------------------------------------------------------------------


def test_a_first_round_without_a_usable_answer_is_the_last(table: Table) -> None:
    """It is paid once: not again in a round, nor by a later start, whatever rows came meanwhile.

    Asked for by `--retry-failed`, the rows are sent again; mended, all succeed.
    """
    fault(table, "request_invalid_answer")
    text = stopped(table.run(), "no_usable_answer")
    assert f"none of the {MANY} rows that were answered has a usable answer" in text
    assert " x response: " in text
    assert "--retry-failed" in text
    assert accepted(table) == MANY
    check_money(table)
    table.values.append({"id": "new", "text": "text of a new row", "note": ""})
    table.write()
    assert stopped(table.run(), "no_usable_answer") == text
    assert stopped(table.run(Options(refresh_before=now_us())), "no_usable_answer") == text
    assert accepted(table) == MANY
    mend(table)
    assert table.run(AGAIN).outcomes == {"succeeded": MANY + 1}
    assert accepted(table) == MANY + MANY + 1
    assert table.run().exit_code == 0
    check_money(table)


def test_a_refresh_without_a_usable_answer_stops_and_takes_none_away(table: Table) -> None:
    """It is told like any other, in the words of its own answers; the rows keep those they had."""
    table.run()
    fault(table, "request_invalid_answer")
    text = stopped(table.run(Options(refresh_before=now_us())), "no_usable_answer")
    assert f"none of the {MANY} rows that were answered has a usable answer" in text
    assert " x response: " in text
    assert {row["_status"] for row in table.rows()} == {"succeeded"}
    table.check_answers()
    check_money(table)


@pytest.mark.in_turn
@pytest.mark.parametrize(
    "kind", ["request_refusal", "request_truncated", "request_invalid", "request_error"]
)
def test_whatever_makes_all_answers_useless(table: Table, kind: str) -> None:
    """Refused, truncated and errored rows are without a usable answer, too."""
    fault(table, kind)
    stopped(table.run(), "no_usable_answer")
    stopped(table.run(), "no_usable_answer")
    assert accepted(table) == MANY


@pytest.mark.in_turn
def test_a_changed_spec_goes_on_and_is_judged_anew(table: Table) -> None:
    """Another prompt is another question: its first round is paid, and judged by itself."""
    fault(table, "request_invalid_answer")
    stopped(table.run(), "no_usable_answer")
    changed: dict[str, Any] = {"prompt": "Say: {{ text }}"}
    stopped(table.run(**changed), "no_usable_answer")
    stopped(table.run(**changed), "no_usable_answer")
    assert accepted(table) == 2 * MANY
    mend(table)
    assert table.run(prompt="Say it: {{ text }}").outcomes == {"succeeded": MANY}
    check_money(table)


@pytest.mark.in_turn
def test_each_retry_failed_pays_one_round(table: Table) -> None:
    """Asked for again and again, it sends again and again, each time one round."""
    fault(table, "request_invalid_answer")
    stopped(table.run(), "no_usable_answer")
    for times in (2, 3, 4):
        stopped(table.run(AGAIN), "no_usable_answer")
        assert accepted(table) == times * MANY
        stopped(table.run(), "no_usable_answer")
        assert accepted(table) == times * MANY


@pytest.mark.in_turn
def test_fewer_rows_may_be_an_accident(emulator: Emulator, tmp_path: Path) -> None:
    """Nineteen bad answers are asked for again, as often as rows may be attempted."""
    table = Table(tmp_path, emulator, "openai", rows=MANY - 1)
    fault(table, "request_invalid_answer")
    receipt = table.run()
    assert (receipt.result, receipt.rounds) == ("some_rows_failed", 3)
    assert accepted(table) == 3 * (MANY - 1)


@pytest.mark.in_turn
def test_one_usable_answer_among_many_is_enough(table: Table) -> None:
    """The others are asked again, as always: the question can be answered."""
    for digit in "123456789":
        fault(table, "request_invalid_answer", contains=f"row {digit}", times=1)
    receipt = table.run()
    assert (receipt.result, receipt.rounds) == ("succeeded", 2)
    assert accepted(table) == MANY + MANY - 1


@pytest.mark.in_turn
def test_a_round_of_many_batches_is_judged_as_a_whole(table: Table) -> None:
    """A table that is sorted, the worst rows first, is sent to its end before it is judged."""
    fault(table, "request_invalid_answer", contains="row", times=1)
    table.values += [
        {"id": f"z{i}", "text": f"text of a good line {i}", "note": ""} for i in range(5)
    ]
    table.write()
    receipt = table.run(items_per_batch=5, max_parallel_batches=1)
    assert (receipt.result, receipt.rounds) == ("succeeded", 2)


@pytest.mark.in_turn
def test_what_never_ran_tells_nothing(table: Table) -> None:
    """A batch that expired is sent again, and judged once it ran."""
    fault(table, "batch_expires", share=0.0, count=1)
    fault(table, "request_invalid_answer")
    stopped(table.run(), "no_usable_answer")
    assert (accepted(table), table.ledger()["requests_billed"]) == (2 * MANY, MANY)
    stopped(table.run(), "no_usable_answer")
    assert accepted(table) == 2 * MANY


@pytest.mark.in_turn
@pytest.mark.parametrize("kind", ["request_invalid_answer", "request_broken_line"])
def test_a_crash_before_the_judgement(table: Table, kind: str) -> None:
    """What landed is judged by the next start, which sends nothing."""
    fault(table, kind)
    crash = stopping_at("collect", lambda _chunk: True, TransientError("crash"), after=True)
    with pytest.raises(TransientError):
        run_with(table, crash)
    assert accepted(table) == MANY
    receipt = table.run()
    assert (receipt.exit_code, accepted(table)) == (1, MANY)
    assert "until the spec is changed" in (receipt.reason or "")


@pytest.mark.in_turn
def test_a_cost_limit_does_not_hide_it(table: Table) -> None:
    """A limit that ends the first round would let each night pay for bad answers anew."""
    fault(table, "request_truncated")
    limit: dict[str, Any] = {"cost_limit_usd": enough_for(table, MANY + 5)}
    fault(table, "request_truncated")
    more_rows(table, MANY)
    before = stopped(table.run(**limit), "no_usable_answer")
    assert MANY <= (sent := accepted(table)) < 2 * MANY
    assert stopped(table.run(**limit), "no_usable_answer") == before
    assert accepted(table) == sent
    assert money(table).reserved == 0


@pytest.mark.in_turn
def test_a_pilot_stops_first(table: Table) -> None:
    """A pilot of fewer rows speaks for itself; one that only limits the cost is judged as well."""
    fault(table, "request_invalid_answer")
    stopped(table.run(pilot=PILOT), "pilot_failed")
    assert accepted(table) == 5
    more_rows(table, MANY)
    costs: dict[str, Any] = {"rows": MANY, "max_cost_per_row_usd": 1}
    stopped(table.run(pilot=costs), "no_usable_answer")
    assert accepted(table) == 5 + MANY
    stopped(table.run(pilot=costs), "no_usable_answer")
    assert accepted(table) == 5 + MANY


def test_plan_and_status_say_what_to_do_first(claude: Table) -> None:
    """Whoever looks is told that a run would send nothing, and what to do."""
    fault(claude, "request_invalid_answer")
    claude.run()
    ahead = preview(claude.spec())
    assert (ahead.stopped, ahead.to_json()["stopped"]) == ("no_usable_answer", "no_usable_answer")
    assert "sends nothing until the spec is changed" in dict(ahead.lines())["First"]
    assert "--retry-failed" in runs_remedies(runs_overview(claude.spec()))[0]
    assert preview(claude.spec(prompt="Say {{ text }}")).stopped is None


# --- a batch that cannot be read ------------------------------------------------------------------


def test_a_batch_of_which_no_line_can_be_read(table: Table) -> None:
    """It is paid once; the reason shows how the lines begin."""
    fault(table, "request_broken_line")
    spec = ONE_BY_ONE
    text = stopped(table.run(**spec), "unreadable_batch")
    assert "no line of the results of batch " in text
    assert '"custom_id"' in text
    assert "broken result line" in text
    assert accepted(table) == 5
    assert stopped(table.run(**spec), "unreadable_batch") == text
    assert accepted(table) == 5
    assert all(row["_status"] == "errored" for row in table.rows())
    mend(table)
    assert table.run(AGAIN, **spec).exit_code == 0
    assert accepted(table) == 5 + MANY
    assert {row["_status"] for row in table.rows()} == {"succeeded"}


@pytest.mark.in_turn
def test_batches_under_way_land(table: Table) -> None:
    """What was sent beside the unreadable batch lands; nothing of it is lost."""
    for row in range(2):
        fault(table, "request_broken_line", contains=f"row {row}", times=1)
    fault(table, "request_broken_line", contains="row 2", times=1)
    receipt = table.run(items_per_batch=2, max_parallel_batches=10)
    stopped(receipt, "unreadable_batch")
    assert sum(receipt.outcomes.values()) == accepted(table)
    with opened() as ledger:
        (run,) = ledger.runs_of(None, 9)
        states = {chunk.state for chunk in ledger.chunks(run.id)}
    assert run.state == RunPhase.OPEN
    assert states <= {ChunkState.LANDED, ChunkState.PLANNED}
    assert money(table).reserved == 0


@pytest.mark.in_turn
def test_bad_lines_among_good_ones_are_asked_again(table: Table) -> None:
    """Rows whose lines stay broken end as failed: a batch of such rows alone stops nothing."""
    for row in (3, 4):
        fault(table, "request_broken_line", contains=f"row {row}")
    receipt = table.run(max_parallel_batches=2)
    assert (receipt.result, receipt.rounds) == ("some_rows_failed", 3)
    assert receipt.outcomes == {"errored": 2, "succeeded": MANY - 2}


@pytest.mark.in_turn
def test_a_batch_of_one_row(table: Table) -> None:
    """A single broken line is an accident if any other was ever read, and a dialect if none was."""
    del table.values[1:]
    table.write()
    fault(table, "request_broken_line", contains="row 0")
    stopped(table.run(), "unreadable_batch")
    assert accepted(table) == 1
    table.values += [{"id": f"k{i}", "text": f"text of row {i}", "note": ""} for i in (1, 2)]
    table.write()
    receipt = table.run(AGAIN, items_per_batch=1)
    assert receipt.outcomes == {"errored": 1, "succeeded": 2}
    table.values.append({"id": "late", "text": "text of row 0 again", "note": ""})
    table.write()
    assert table.run(items_per_batch=1).result == "some_rows_failed"


# --- trouble of the account -----------------------------------------------------------------------


def test_an_empty_account_stops_the_run_until_it_is_mended(table: Table) -> None:
    """Its rows keep all their attempts, whatever many nights; mended, the same command sends them.

    A start meanwhile sends one batch, which costs nothing.
    """
    spec = ONE_BY_ONE
    empty_account(table)
    for night in range(1, 8):
        text = stopped(table.run(**spec), "account_trouble")
        assert CREDIT.rstrip(".") in text
        assert "the same command" in text
        assert accepted(table) == 5 * night
        assert {row["_attempts"] for row in table.rows()} == {0}
        assert all(row["_error"].startswith("account: ") for row in table.rows())
    assert money(table).settled == 0
    mend(table)
    receipt = table.run(**spec)
    assert (receipt.result, receipt.exit_code) == ("succeeded", 0)
    all_well(table)
    assert table.ledger()["requests_billed"] == MANY
    check_money(table)


@pytest.mark.in_turn
def test_rows_that_succeeded_stay(table: Table) -> None:
    """The credit ends in the middle: what was answered is paid once, the rest goes later."""
    empty_account(table, contains="row 1")
    text = stopped(table.run(), "account_trouble")
    assert "11 rows" in text
    mend(table)
    assert table.run().exit_code == 0
    all_well(table)
    assert accepted(table) == MANY + 11
    check_money(table)


@pytest.mark.in_turn
def test_an_earlier_paid_attempt_stays(table: Table) -> None:
    """A second round that met the trouble leaves tokens, cost and attempts as they were."""
    fault(table, "request_invalid_answer", contains="row 4", times=1)
    fault(table, "request_error", contains="row 5", times=1)
    with pytest.raises(TransientError):
        run_with(table, replace(Steps(), next_round=_crash))
    before = {row["id"]: row for row in table.rows()}
    empty_account(table)
    stopped(table.run(), "account_trouble")
    for row in table.rows():
        for name in ("_attempts", "_cost_usd", "_input_tokens", "_output_tokens"):
            assert row[name] == before[row["id"]][name]
    assert row_of(table, "k4")["_error"].startswith("account: ")
    mend(table)
    assert table.run().exit_code == 0
    assert {row["id"]: row["_attempts"] for row in table.rows() if row["_attempts"] > 1} == {
        "k4": 2,
        "k5": 2,
    }
    check_money(table)


@pytest.mark.in_turn
def test_the_trouble_uses_up_no_round(table: Table) -> None:
    """After it, rows have as many rounds as they would have had without it."""
    empty_account(table)
    for _ in range(4):
        stopped(table.run(), "account_trouble")
    mend(table)
    fault(table, "request_error", contains="row 4", times=2)
    assert table.run().exit_code == 0
    assert [row["_attempts"] for row in table.rows() if row["id"] == "k4"] == [3]


@pytest.mark.in_turn
@pytest.mark.parametrize("dies", [False, True], ids=["lands", "dies as it lands"])
def test_rows_without_attempts_left_keep_the_one_that_was_asked_for(
    table: Table, dies: bool
) -> None:
    """After trouble of the account in another try, the same command makes that try once mended.

    It is the changed request that goes out again, and if that brings no answer the row is what it
    was before.
    """
    fault(table, "request_invalid_answer", contains="row 4")
    spec: dict[str, Any] = {"max_attempts": 1}
    table.run(None, **spec)
    before = row_of(table, "k4")
    table.emulator.control.clear_faults()
    empty_account(table)
    if dies:
        with pytest.raises(KeyboardInterrupt):
            run_with(
                table,
                stopping_at("collect", lambda _: True, KeyboardInterrupt(), after=True),
                AGAIN,
                **spec,
            )
    stopped(table.run(AGAIN, **spec), "account_trouble")
    assert row_of(table, "k4")["_attempts"] == before["_attempts"]
    mend(table)
    fault(table, "request_error", contains="row 4", times=1)
    table.run(AGAIN, **spec)
    assert row_of(table, "k4")["_error"] == before["_error"]
    assert table.run(AGAIN, **spec).exit_code == 0
    assert row_of(table, "k4")["_status"] == "succeeded"


@pytest.mark.in_turn
def test_trouble_that_passed_is_no_error_of_the_receipt(table: Table) -> None:
    """An invalid answer, the trouble, and a changed request that failed: in the end all is well."""
    fault(table, "request_invalid_answer", contains="row 4", times=1)
    with pytest.raises(TransientError):
        run_with(table, replace(Steps(), next_round=_crash))
    empty_account(table)
    receipt = table.run()
    stopped(receipt, "account_trouble")
    assert sum(receipt.errors.values()) == 1
    mend(table)
    fault(table, "request_error", contains="row 4", times=1)
    receipt = table.run()
    assert (receipt.exit_code, receipt.errors) == (0, {})
    assert "Error" not in dict(receipt.lines())


@pytest.mark.in_turn
def test_what_is_not_permitted_may_be_about_single_rows(table: Table) -> None:
    """Where others were answered well, the sentence says so; taken out, the new rows go on."""
    fault(table, "request_no_permission", contains="row 4")
    for _ in range(2):
        assert "these rows alone" in stopped(table.run(), "account_trouble")
    table.values = [value for value in table.values if value["id"] != "k4"]
    more_rows(table, 1)
    assert table.run().exit_code == 0
    assert row_of(table, "z0")["_status"] == "succeeded"


@pytest.mark.in_turn
def test_what_is_not_permitted_to_any_row_is_about_the_account(table: Table) -> None:
    """So is credit that ends in the middle of a batch: both say what is to be mended, no more."""
    fault(table, "request_no_permission")
    assert "these rows alone" not in stopped(table.run(), "account_trouble")
    mend(table)
    empty_account(table, contains="row 1")
    assert "these rows alone" not in stopped(table.run(), "account_trouble")


@pytest.mark.in_turn
def test_useless_answers_after_the_trouble_are_judged(table: Table) -> None:
    """What met the trouble was no answer; the first round that is answered is the one judged."""
    empty_account(table)
    stopped(table.run(), "account_trouble")
    mend(table)
    fault(table, "request_invalid_answer")
    stopped(table.run(), "no_usable_answer")
    stopped(table.run(), "no_usable_answer")
    assert table.ledger()["requests_billed"] == MANY


@pytest.mark.in_turn
def test_a_limit_holds_over_the_trouble(table: Table) -> None:
    """The run that goes on has what remains of its limit, and ends by it once it is reached."""
    limit = enough_for(table, 10)
    spec: dict[str, Any] = {"cost_limit_usd": limit, **ONE_BY_ONE}
    empty_account(table)
    stopped(table.run(None, **spec), "account_trouble")
    mend(table)
    receipt = table.run(None, **spec)
    assert (receipt.result, receipt.exit_code, receipt.continued) == ("cost_limit_reached", 4, True)
    assert money(table).settled <= limit * 1e12


@pytest.mark.in_turn
def test_no_rerun_of_failed_rows_keeps_none_back(table: Table) -> None:
    """`rerun_on` without `failed` is about rows that were tried; these were not."""
    spec: dict[str, Any] = {"rerun_on": ["new"]}
    empty_account(table)
    stopped(table.run(**spec), "account_trouble")
    mend(table)
    assert table.run(**spec).exit_code == 0
    all_well(table)


@pytest.mark.in_turn
def test_a_changed_spec_or_a_cancelled_run_sends_them_as_well(table: Table) -> None:
    """They are planned again by whatever run comes next."""
    empty_account(table)
    stopped(table.run(), "account_trouble")
    assert cancel(table.spec()).result == "cancelled"
    stopped(table.run(max_parallel_batches=3, rerun_on=["new"]), "account_trouble")
    mend(table)
    assert table.run(max_parallel_batches=4, rerun_on=["new"]).exit_code == 0
    all_well(table)
    check_money(table)


@pytest.mark.in_turn
def test_a_time_limit_that_passed_meanwhile_keeps_nothing_back(table: Table) -> None:
    """The account was mended days later: the same command sends the rows, under a new limit."""
    spec: dict[str, Any] = {"time_limit": "2s"}
    empty_account(table)
    stopped(table.run(**spec), "account_trouble")
    with opened() as ledger:
        began = "UPDATE runs SET started_at = started_at - 3000000"
        ledger.transact(lambda connection: connection.exec_driver_sql(began), reading=False)
    mend(table)
    assert table.run(**spec).exit_code == 0
    all_well(table)


@pytest.mark.in_turn
def test_after_the_trouble_one_batch_goes_alone(table: Table) -> None:
    """It tells whether the account is mended; only then the others go side by side."""
    empty_account(table)
    spec: dict[str, Any] = {"items_per_batch": 2, "max_parallel_batches": 3}
    stopped(table.run(**spec), "account_trouble")
    before = accepted(table)
    stopped(table.run(**spec), "account_trouble")
    assert accepted(table) == before + 2


def test_plan_and_status_tell_of_the_account(claude: Table) -> None:
    """A run would carry on, and status says what to mend."""
    empty_account(claude)
    claude.run()
    assert preview(claude.spec()).stopped is None
    assert "mend the account" in runs_remedies(runs_overview(claude.spec()))[0]
    (told_of,) = runs_in_the_way(runs_overview(claude.spec()))
    assert CREDIT.rstrip(".") in told_of
    assert "whose attempts are not used up" in told_of
    mend(claude)
    assert claude.run().exit_code == 0
    assert runs_in_the_way(runs_overview(claude.spec())) == []


def test_status_tells_the_error_that_ended_the_last_start(
    claude: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is one line without keys and escape sequences; the next start forgets it."""
    monkeypatch.setenv("ANTHROPIC_API_KEY", "key-of-a-test-0123456789")
    message = f"{CREDIT} \x1b[2J key-of-a-test-0123456789\nsecond line"
    fault = {"kind": "http_error", "route": "create", "status": 400, "message": message}
    claude.emulator.control.faults(**fault, count=1)
    with pytest.raises(TerminalError):
        claude.run()
    (run,) = runs_overview(None)
    (told_of,) = runs_in_the_way([run])
    assert told_of.startswith(f"{run['name']}: the last start (")
    assert CREDIT in told_of
    assert told_of.isprintable()
    assert "0123456789" not in told_of
    assert runs_remedies([run])[0].startswith("table: stopped; ")
    assert claude.run().exit_code == 0
    assert runs_in_the_way(runs_overview(None)) == []


# --- jobs -----------------------------------------------------------------------------------------


def batch(folder: Path, provider: str, **changes: Any) -> Batch:
    made = Batch(folder, **changes).set_default_params(
        model=MODELS[provider],
        response_model={"type": "object", "properties": {"a": {"type": "integer"}}},
        max_tokens=100,
    )
    for number in range(MANY):
        made.add_job(prompt=f"job {number}", id=f"j{number}")
    return made


@pytest.mark.in_turn
@pytest.mark.parametrize("provider", MODELS)
def test_jobs_stop_as_tables_do(emulator: Emulator, tmp_path: Path, provider: str) -> None:
    """Each job has its own error; nothing is sent again before `retry_failed` asks for it."""
    emulator.control.faults(kind="request_invalid_answer")
    for _ in range(2):
        run = batch(tmp_path / "jobs", provider).run()
        assert run.receipt is not None
        assert "Batch(retry_failed=True)" in stopped(run.receipt, "no_usable_answer")
        assert run.status()["reason"] == run.receipt.reason
        assert all((result.error or "").startswith("res") for result in run.results().values())
    assert emulator.control.ledger()[provider]["requests_accepted"] == MANY
    emulator.control.clear_faults()
    run = batch(tmp_path / "jobs", provider, retry_failed=True).run()
    assert all(result.is_success() for result in run.results().values())


@pytest.mark.in_turn
@pytest.mark.parametrize("provider", MODELS)
def test_jobs_of_an_empty_account(emulator: Emulator, tmp_path: Path, provider: str) -> None:
    """Jobs that were not sent say why; the same program sends all once the account is mended."""
    emulator.control.faults(kind="request_invalid", message=CREDIT, error_code="insufficient_quota")
    jobs = ONE_BY_ONE
    run = batch(tmp_path / "jobs", provider, **jobs).run()
    assert run.receipt is not None
    stopped(run.receipt, "account_trouble")
    errors = [result.error or "" for result in run.results().values()]
    assert sum(error.startswith("account: ") for error in errors) == 5
    assert all(CREDIT.rstrip(".") in error for error in errors)
    emulator.control.clear_faults()
    again = batch(tmp_path / "jobs", provider, **jobs).run()
    assert all(result.is_success() for result in again.results().values())


def test_errors_that_differ_in_numbers_count_as_one() -> None:
    """Ids of requests and numbers of tokens make no error another one, in several commits, too."""
    first = {"refused (request_a1)": 2, "cut at 64": 1, "empty": 1}
    second = {"refused (request_b2)": 3, "cut at 128": 1}
    commits = [{"errors": first}, {"errors": second, "errors_before": {"refused (request_c3)": 1}}]
    told = {"refused (request_a1)": 4, "cut at 64": 2, "empty": 1}
    assert frequent_errors(commits, 3) == told
    assert frequent_errors(commits, 1) == {"refused (request_a1)": 4}
