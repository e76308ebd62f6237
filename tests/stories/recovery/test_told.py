"""What people are told of batches that are in doubt, or that the present account does not show."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
from typer.testing import CliRunner

from batchata_tasks.cli.commands import app
from batchata_tasks.common.errors import OtherAccountError, SpecError, TerminalError
from batchata_tasks.ledger import ChunkState
from batchata_tasks.operations.reconcile_report import ReconcileReport, ReconcileRequest
from batchata_tasks.pipeline.enrich import enrich
from batchata_tasks.pipeline.steps import Steps
from batchata_tasks.progress.listener import LineProgress
from tests.support.books import run_with, stopping_at
from tests.support.operations import cancel, preview, reconcile
from tests.support.stuck import add_rows, left_overdue, told
from tests.support.table import Table
from tests.support.unclear import in_state, leave_in_doubt

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from batchata_tasks.emulator import Emulator
    from batchata_tasks.execution.run_ref import RunRef

pytestmark = pytest.mark.in_turn

ROWS = 3
CREDIT = "Your credit balance is too low."


@pytest.fixture(autouse=True)
def _hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BATCHATA_PATIENCE", "0.3")
    monkeypatch.setenv("BATCHATA_UNCLEAR_GRACE", "0.2")


def hold(table: Table, **create: Any) -> str:
    """Let the next create be accepted and answered oddly by a server whose lists prove nothing."""
    given = {"kind": "http_error_after", "status": 402, "message": CREDIT, **create}
    control = table.emulator.control
    control.faults(kind="lists_unproven")
    control.faults(kind="list_empty")
    control.faults(count=1, **given)
    table.run()
    (chunk,) = in_state(ChunkState.HELD)
    return chunk


def texts(pairs: Sequence[tuple[str, str]], label: str) -> list[str]:
    return [text for what, text in pairs if what == label]


def doubt(report: ReconcileReport) -> str:
    (text,) = texts(report.lines(), "In doubt")
    return text


# --- held chunks ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("create", "quoted"),
    [
        ({}, f"HTTP 402: {CREDIT}"),
        ({"status": 408, "message": "Took too long"}, "HTTP 408: Took too long."),
        ({"kind": "drop_after", "status": None, "message": None}, "the connection broke"),
    ],
)
def test_a_held_chunk_quotes_what_its_create_was_answered(
    table: Table, create: dict[str, Any], quoted: str
) -> None:
    """The error of the create stands in the note of the run, its receipt, and later `reconcile`s.

    Each says how to decide, with the chunk's name.
    """
    control = table.emulator.control
    given = {"kind": "http_error_after", "status": 402, "message": CREDIT, **create}
    control.faults(kind="lists_unproven")
    control.faults(kind="list_empty")
    control.faults(count=1, **{name: value for name, value in given.items() if value is not None})
    receipt, notes = told(table)
    (chunk,) = in_state(ChunkState.HELD)
    again, _ = told(table)
    said = [
        next(note for note in notes if "nobody can tell" in note),
        *receipt.warnings,
        *again.warnings,
        doubt(reconcile()),
    ]
    assert len(said) == 4
    for text in said:
        assert quoted in text
        assert f"reconcile --adopt {chunk}=BATCH" in text
        assert f"--resend {chunk}`" in text
        assert "provider's console" in text


def test_a_process_that_ended_before_an_answer_came_is_told_so(
    table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where nothing was noted, it says that the process ended first; it is no empty quotation."""
    chunk = leave_in_doubt(table, monkeypatch, "drop_before")
    path = table.output / f"_batchata/intents/{chunk}.json"
    path.write_text(path.read_text().replace("unclear_answer", "something_else"))
    assert "The process that sent it ended before an answer came." in doubt(reconcile())


def test_what_a_create_was_answered_is_bounded_and_shows_no_key(
    table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A provider's text is cut, and a key or an escape sequence in it is not shown."""
    key = "a-key-which-nobody-may-see"
    monkeypatch.setenv(f"{table.provider.upper()}_API_KEY", key)
    hold(table, message=f"\x1b[2J{key} " + "x" * 1000)
    text = doubt(reconcile())
    assert key not in text
    assert "\x1b" not in text
    assert "***" in text
    assert len(text) < 1000


def test_a_chunk_that_is_not_held_yet_is_freed_by_one_command(
    table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`--resend` alone names the command that decides now; that command frees the rows."""
    chunk = leave_in_doubt(table, monkeypatch, "drop_before")
    assert f"`batchata reconcile --hold {chunk}`" in doubt(reconcile())
    with pytest.raises(SpecError, match=f"reconcile --hold {chunk} --resend {chunk}"):
        reconcile(ReconcileRequest(resend=(chunk,)))
    report = reconcile(ReconcileRequest(hold=(chunk,), resend=(chunk,)))
    assert (report.held, report.freed) == ([chunk], [chunk])
    assert table.run().outcomes == {"succeeded": ROWS}
    assert table.ledger()["requests_accepted"] == ROWS


def test_to_hold_what_is_held_already_says_what_decides(table: Table) -> None:
    """`--hold` of a held chunk names `--adopt` and `--resend`, and so does `--abandon`."""
    chunk = hold(table)
    with pytest.raises(
        SpecError, match=rf"held already; `batchata reconcile --adopt {chunk}=BATCH` or"
    ):
        reconcile(ReconcileRequest(hold=(chunk,)))
    with pytest.raises(
        SpecError, match=f"nobody knows a batch; `batchata reconcile --adopt {chunk}=BATCH`"
    ):
        reconcile(ReconcileRequest(abandon=(chunk,)))


def test_a_plan_tells_held_rows_from_those_in_flight(
    table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Held rows are counted apart, with what is reserved, since when, and what decides.

    What is at the provider, and comes by itself, is still called in flight.
    """
    hold(table)
    held = preview(table.spec())
    told_of = dict(held.lines())
    assert (told_of["  held"], told_of.get("  in flight"), told_of.get("In flight")) == (
        str(ROWS),
        None,
        None,
    )
    assert "`batchata reconcile`" in told_of["Held"]
    assert f"{datetime.now(UTC):%Y-%m-%d}" in told_of["Held"]
    assert "more than what is held" in told_of["Cost"]
    plan = held.to_json()
    assert (plan["held"], plan["held_batches"]) == (ROWS, 1)
    assert plan["held_usd"] == plan["in_flight_usd"] != "0.000000000000"
    table.emulator.control.clear_faults()
    add_rows(table, 2)
    with pytest.raises(KeyboardInterrupt):
        run_with(table, stopping_at("poll", lambda _: True, KeyboardInterrupt()))
    told_of = dict(preview(table.spec()).lines())
    assert (told_of["  held"], told_of["  in flight"]) == (str(ROWS), "2")
    assert told_of["In flight"].startswith("1 batch sent before: ")
    assert told_of["Held"].startswith("the rows of 1 batch, ")


def test_to_resend_an_overdue_chunk_names_what_gives_it_up(
    table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`--resend` and `--hold` of a chunk whose batch is known name `--abandon`, with the batch."""
    monkeypatch.setenv("BATCHATA_CANCEL_GRACE", "0.2")
    batch = left_overdue(table)
    (chunk,) = in_state(ChunkState.OVERDUE)
    for request in (
        ReconcileRequest(resend=(chunk,)),
        ReconcileRequest(hold=(chunk,)),
        ReconcileRequest(hold=(chunk,), resend=(chunk,)),
        ReconcileRequest(adopt={chunk: "batch_of_somebody"}),
    ):
        with pytest.raises(SpecError, match=f"reconcile --abandon {batch}` gives it up"):
            reconcile(request)
    with pytest.raises(SpecError, match=f"that is a chunk; its batch is {batch}: name that"):
        reconcile(ReconcileRequest(abandon=(chunk,)))
    assert in_state(ChunkState.OVERDUE) == [chunk]


# --- other accounts -------------------------------------------------------------------------------


def scope(provider: str) -> tuple[str, str, str]:
    """Return a variable that selects an account, and two values of it."""
    if provider == "openai":
        return "OPENAI_PROJECT_ID", "proj_a", "proj_b"
    return "ANTHROPIC_CUSTOM_HEADERS", "anthropic-workspace-id: a", "anthropic-workspace-id: b"


@pytest.fixture(params=["another", "unset", "set"])
def elsewhere(
    request: pytest.FixtureRequest, table: Table, monkeypatch: pytest.MonkeyPatch
) -> tuple[str, str]:
    """Leave a run dead with an open batch, under another scope; return the batch and a variable."""
    variable, one, other = scope(table.provider)
    if request.param != "set":
        monkeypatch.setenv(variable, one)
    table.emulator.control.faults(kind="projects")
    table.emulator.control.progress("reads", 10**6)
    with pytest.raises(KeyboardInterrupt):
        run_with(table, stopping_at("poll", lambda _: True, KeyboardInterrupt()))
    if request.param == "unset":
        monkeypatch.delenv(variable)
    else:
        monkeypatch.setenv(variable, other)
    (batch,) = [line["id"] for line in table.ledger()["batches"]]
    return batch, variable


def test_a_run_tells_at_once_that_a_batch_is_anothers(
    table: Table, elsewhere: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One look tells: the variable is named, the command ends with 2, the batch stays recorded."""
    batch, variable = elsewhere
    monkeypatch.setenv("BATCHATA_PATIENCE", "20")
    notes = list[str]()
    with pytest.raises(OtherAccountError) as refused:
        enrich(table.spec(), progress=LineProgress(notes.append))
    text = str(refused.value)
    assert variable in text
    assert batch in text
    assert "stays recorded" in text
    assert not any("Trying again" in note for note in notes)
    assert table.ledger()["requests_accepted"] == ROWS


def test_cancel_tells_at_once_that_a_batch_is_anothers(
    table: Table, elsewhere: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """`cancel` does not ask again, names what to set, and says that the batch stays recorded."""
    batch, variable = elsewhere
    monkeypatch.setenv("BATCHATA_PATIENCE", "20")
    notes = list[str]()
    with pytest.raises(OtherAccountError, match="stays recorded") as refused:
        cancel(table.spec(), LineProgress(notes.append))
    assert batch in str(refused.value)
    assert variable in str(refused.value)
    assert not any("Trying again" in note or "cancelling" in note for note in notes)
    assert in_state(ChunkState.SUBMITTED)


def status_of(table: Table) -> tuple[dict[str, Any], str]:
    """Return the newest run as `status --json` tells it, and all that `status` prints."""
    spec = table.folder / "spec.json"
    spec.write_text(table.spec().model_dump_json(exclude_unset=True))
    told_as_json = CliRunner().invoke(app, ["status", str(spec), "--json"])
    shown = CliRunner().invoke(app, ["status", str(spec)], env={"COLUMNS": "200"})
    return json.loads(told_as_json.stdout)[0], " ".join(shown.output.split())


def test_a_cancel_that_is_not_done_is_told(table: Table, monkeypatch: pytest.MonkeyPatch) -> None:
    """`status` says that a cancel was asked for and is not done, and what to set; so does its JSON.

    Before that it says only what to set. Once that is set, the next run carries the cancel out.
    """
    variable, one, other = scope(table.provider)
    monkeypatch.setenv(variable, one)
    table.emulator.control.faults(kind="projects")
    table.emulator.control.progress("reads", 10**6)
    with pytest.raises(KeyboardInterrupt):
        run_with(table, stopping_at("poll", lambda _: True, KeyboardInterrupt()))
    run, shown = status_of(table)
    assert (run["cancel_asked"], run["to_set"]) == (False, None)
    monkeypatch.setenv(variable, other)
    run, shown = status_of(table)
    assert (run["cancel_asked"], variable in run["to_set"]) == (False, True)
    assert "a cancel was asked for" not in shown
    assert f"table: its open batches are not to be seen now: {run['to_set']}." in shown
    assert "start the same command again: it carries on" not in shown
    assert variable in " ".join(preview(table.spec()).in_the_way)
    with pytest.raises(OtherAccountError):
        cancel(table.spec())
    run, shown = status_of(table)
    assert (run["cancel_asked"], run["running"], variable in run["to_set"]) == (True, False, True)
    for text in (
        "stopped, to be",  # cancelled: the column may be narrow
        "table: a cancel was asked for, and is not done. Its batches are not to be seen now: ",
        variable,
        "`watch`, or the next `batchata cancel` or `batchata run` of the spec, carries it out",
    ):
        assert text in shown
    assert "start the same command again: it carries on" not in shown
    planned = preview(table.spec())
    assert planned.to_json()["cancel_asked"]
    assert "`run` carries it out first" in dict(planned.lines())["First"]
    monkeypatch.setenv(variable, one)
    run, shown = status_of(table)
    assert (run["cancel_asked"], run["to_set"]) == (True, None)
    assert "a cancel was asked for, and is not done. `watch`, or the next" in shown
    assert table.run().exit_code == 3
    run, shown = status_of(table)
    assert (run["state"], run["cancel_asked"], run["to_set"]) == ("closed", False, None)
    assert "a cancel was asked for" not in shown


def test_status_names_a_key_that_a_cancel_lacks(
    table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the key of the provider, what is to be set is that key; nothing else breaks."""
    with pytest.raises(KeyboardInterrupt):
        run_with(table, stopping_at("poll", lambda _: True, KeyboardInterrupt()))
    key = f"{table.provider.upper()}_API_KEY"
    monkeypatch.delenv(key)
    run, shown = status_of(table)
    assert key in run["to_set"]
    assert run["batches"][0]["batch_id"] is not None
    assert "The same command then carries on." in shown


def test_reconcile_names_open_batches_of_another_account(
    table: Table, elsewhere: tuple[str, str]
) -> None:
    """What no list shows now is told from the ledger, with the variable to set."""
    batch, variable = elsewhere
    report = reconcile()
    assert [one.batch_id for one in report.elsewhere] == [batch]
    (text,) = texts(report.lines(), "Elsewhere")
    assert batch in text
    assert variable in text
    assert f"{ROWS} requests" in text


def test_the_command_line_ends_with_2_under_another_scope(
    table: Table, elsewhere: tuple[str, str]
) -> None:
    """Bad settings are exit code 2, of `run` as of `cancel`."""
    spec = table.folder / "spec.json"
    spec.write_text(table.spec().model_dump_json(exclude_unset=True))
    for words in (["run", str(spec), "--direct"], ["cancel", str(spec)]):
        result = CliRunner().invoke(app, words)
        assert result.exit_code == 2, result.output
        assert elsewhere[1] in result.output


def test_a_create_in_doubt_is_not_looked_up_under_a_scope_that_was_unset_then(
    table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A list of another project proves nothing of a batch that was sent without one."""
    variable, one, _ = scope(table.provider)
    leave_in_doubt(table, monkeypatch, add="projects")
    monkeypatch.setenv(variable, one)
    with pytest.raises(OtherAccountError, match=variable):
        table.run()
    assert table.ledger()["requests_accepted"] == ROWS
    monkeypatch.delenv(variable)
    assert table.run().outcomes == {"succeeded": ROWS}
    assert table.ledger()["requests_accepted"] == ROWS


def test_a_key_of_the_same_account_needs_no_other_settings(
    table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Settings that come to the same are no trouble: the batch is found, and landed."""
    with pytest.raises(KeyboardInterrupt):
        run_with(table, stopping_at("poll", lambda _: True, KeyboardInterrupt()))
    monkeypatch.setenv("OPENAI_CUSTOM_HEADERS", "x-team: a")
    monkeypatch.setenv("ANTHROPIC_CUSTOM_HEADERS", "x-team: a")
    assert reconcile().elsewhere == []
    assert table.run().outcomes == {"succeeded": ROWS}


# --- others' batches, limits of the account -------------------------------------------------------


@pytest.mark.parametrize("page", [False, True])
def test_a_strangers_batch_whose_results_are_gone_ends_no_run(
    emulator: Emulator, tmp_path: Path, page: bool
) -> None:
    """Results of somebody's batch that are answered 404 hold the rows, with that batch's name.

    The run goes on to its receipt.
    """
    table = Table(tmp_path, emulator, "anthropic", ROWS)
    control = emulator.control
    control.faults(kind="drop_before", count=1)
    control.faults(kind="http_error", route="results", status=404, html=page)

    def submitting(ref: RunRef, chunk_id: str) -> dict[str, Any]:
        control.foreign("anthropic", requests=ROWS, ends="at_once")
        return Steps().submit(ref, chunk_id)

    receipt, notes = told(table, replace(Steps(), submit=submitting))
    (foreign,) = [line["id"] for line in table.ledger()["foreign"]]
    assert (receipt.exit_code, receipt.held_rows) == (3, ROWS)
    assert any(foreign in note and "rows are held" in note for note in notes)
    control.clear_faults()
    (chunk,) = in_state(ChunkState.HELD)
    reconcile(ReconcileRequest(resend=(chunk,)))
    assert table.run().outcomes == {"succeeded": ROWS}


@pytest.mark.parametrize("kind", ["spend_cap", "hard_limit"])
def test_a_limit_of_the_account_says_that_the_same_command_goes_on(table: Table, kind: str) -> None:
    """A create that a spend limit refused ends with what to do, and then that is true."""
    table.emulator.control.faults(kind=kind)
    with pytest.raises(TerminalError, match="then the same command goes on"):
        table.run()
    table.emulator.control.clear_faults()
    assert table.run().outcomes == {"succeeded": ROWS}
    assert table.ledger()["requests_accepted"] == ROWS
