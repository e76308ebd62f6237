"""The command line: what it prints, to which stream, and how it exits."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import urllib.request
from decimal import Decimal
from io import StringIO
from select import select
from typing import TYPE_CHECKING, Any

import pytest
import typer
import yaml
from rich.cells import cell_len
from rich.console import Console
from typer.testing import CliRunner

from batchata_tasks.cli.commands import app
from batchata_tasks.cli.console import boundary, err, watched
from batchata_tasks.common.text import pluralize
from batchata_tasks.progress.console import for_console
from batchata_tasks.reports.rows import rows_table
from tests.support.commands import batchata, start
from tests.support.table import Table
from tests.support.waiting import PATIENCE, until

if TYPE_CHECKING:
    from pathlib import Path

    from batchata_tasks.emulator import Emulator


@pytest.fixture
def table(emulator: Emulator, tmp_path: Path) -> Table:
    """Return a table with a spec file in its folder."""
    table = Table(tmp_path, emulator, "openai", rows=12)
    facts = table.spec().model_dump(mode="json", exclude_unset=True)
    (tmp_path / "spec.yaml").write_text(yaml.safe_dump(facts))
    return table


def spec_of(table: Table) -> str:
    return str(table.folder / "spec.yaml")


def ask(*words: str) -> Any:
    done = batchata(*words, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_plan_run_status_show(table: Table) -> None:
    """The four commands in the order in which people use them, as text and as JSON."""
    spec = spec_of(table)
    planned = ask("plan", spec)
    assert (planned["reasons"], planned["requests"], planned["batches"]) == ({"new": 12}, 12, 1)
    assert float(planned["upper_bound_usd"]) > 0
    assert "12 requests in 1 batch " in batchata("plan", spec).stdout
    receipt = ask("run", spec, "--direct")
    assert receipt["outcomes"] == {"succeeded": 12}
    assert float(receipt["cost_usd"]) <= float(receipt["upper_bound_usd"])
    (run,) = ask("status", spec)
    assert (run["result"], len(run["batches"]), run["outcomes"]) == (
        "succeeded",
        1,
        {"succeeded": 12},
    )
    assert "12 succeeded" in batchata("status").stdout
    rows = ask("show", spec, "--rows", "3")
    assert len(rows) == 3
    assert {"id", "label", "_status"} <= rows[0].keys()
    assert "read_parquet" in batchata("show", spec).stdout
    assert ask("show", spec, "--failed") == []


def test_a_plan_shows_requests_before_they_are_paid_for(table: Table) -> None:
    """`--sample` prints them below the plan, without codes for terminals that a source holds."""
    table.values[0]["text"] = "red \x1b[31m text"
    table.write()
    done = batchata("plan", spec_of(table), "--sample", "1")
    assert "Request 1 of 12, of the row with id='k0':" in done.stdout
    assert "red  [31m text" in done.stdout
    assert "\x1b" not in done.stdout
    (request,) = ask("plan", spec_of(table), "--sample", "1")["sample"]["requests"]
    assert request["turns"][-1] == {"role": "user", "text": "red \x1b[31m text"}
    assert ask("plan", spec_of(table))["sample"] is None


def test_one_row_whole(table: Table) -> None:
    """`--key` prints a row with its prompt and answer; one that is not there ends with 2."""
    spec = spec_of(table)
    ask("run", spec, "--direct")
    done = batchata("show", spec, "--key", "k3")
    assert (done.returncode, done.stderr) == (0, "")
    assert "text of row 3" in done.stdout.partition("Prompt, as it was sent:")[2]
    row = ask("show", spec, "--key", "id=k3")
    assert (row["key"], row["prompt"]["is"]) == ({"id": "k3"}, "sent")
    assert ask("show", spec, "--where", "id == 'k3'", "--columns", "id, note") == [
        {"id": "k3", "note": "n3"}
    ]
    done = batchata("show", spec, "--key", "k99")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("Error: --key: the dataset has no row with id='k99'; `batchata ")
    assert f"`batchata plan {spec}`" in done.stderr


def test_one_json_object_and_nothing_else_on_stdout(table: Table) -> None:
    """Progress goes to stderr, so that stdout can be piped into jq."""
    done = batchata("run", spec_of(table), "--direct", "--json")
    assert json.loads(done.stdout)["exit_code"] == 0
    assert "batch 1 (12 rows): at the provider" in done.stderr
    assert "\x1b" not in done.stderr + done.stdout


def test_a_terminal_gets_a_live_display(table: Table) -> None:
    """On a terminal the run is drawn and wiped; the receipt stays."""
    leader, follower = pty.openpty()
    table.emulator.control.progress("reads", 60)  # each takes longer on a busy machine
    env = {"TERM": "xterm", "COLUMNS": "100", "LINES": "30"}
    words = ("run", spec_of(table), "--direct")
    with start(*words, env=env, terminal=os.ttyname(follower)) as running:
        until(lambda: bool(select([leader], [], [], 0)[0]))  # it has opened the terminal
        os.close(follower)
        seen = b""
        while True:
            try:
                block = os.read(leader, 65536)
            except OSError:  # the terminal closes when the program has ended
                break
            seen += block
        os.close(leader)
        assert running.wait().returncode == 0, seen.decode()
    text = seen.decode()
    assert "1 running" in text
    assert "of 12 landed" in text
    shown = text.rpartition("\x1b[?25h")[2]
    assert "12 succeeded" in shown
    assert "of 12 landed" not in shown


def at_terminal(table: Table, *words: str, answer: bytes = b"") -> tuple[int | None, str]:
    """Run a command at a terminal, where `answer` is typed; return its exit code and the screen."""
    leader, follower = pty.openpty()
    env = {"TERM": "xterm", "COLUMNS": "100", "LINES": "30"}
    with start(*words, env=env, terminal=os.ttyname(follower)) as running:
        until(lambda: bool(select([leader], [], [], 0)[0]))  # it has opened the terminal
        os.close(follower)
        seen, is_answered = b"", False
        while True:
            try:
                seen += os.read(leader, 65536)
            except OSError:  # the program has ended
                break
            if answer and not is_answered and b"[y/N]" in seen:
                os.write(leader, answer)
                is_answered = True
        os.close(leader)
        return running.wait().returncode, seen.decode()


def test_much_money_needs_a_yes_at_a_terminal(table: Table) -> None:
    """Above $10 `run` says what it costs and asks; `--yes`, and whoever is no terminal, is not."""
    dear = ("--set", "model=claude-opus-5-5", "--set", "max_tokens=120000")
    words = ("run", spec_of(table), "--direct", *dear)
    code, screen = at_terminal(table, *words, answer=b"n\n")
    assert code == 130
    assert "about to send 12 requests in 1 batch to anthropic, claude-opus-5-5: about $" in screen
    assert "Send it? [y/N]" in screen
    assert "Stopped. Nothing was sent." in screen
    assert table.emulator.control.ledger()["anthropic"]["requests_accepted"] == 0
    code, screen = at_terminal(table, *words, answer=b"y\n")
    assert (code, "12 succeeded" in screen) == (0, True)
    code, screen = at_terminal(table, *words, "--refresh", "--yes")
    assert (code, "[y/N]" in screen) == (0, False)
    done = batchata(*words, "--refresh")
    assert (done.returncode, "[y/N]" in done.stderr) == (0, False)


def test_overrides(table: Table) -> None:
    """`--set` and `--limit` change the spec for one run."""
    receipt = ask(
        "run",
        spec_of(table),
        "--direct",
        "--limit",
        "5",
        "--set",
        "items_per_batch=2",
        "--set",
        "params={seed: 7}",
    )
    assert (receipt["outcomes"], receipt["batches"], receipt["unsent_rows"]) == (
        {"succeeded": 5},
        3,
        0,
    )


def test_a_pilot_that_does_not_hold_has_its_receipt(table: Table) -> None:
    """The receipt is one JSON object, as at any other end, or lines for people.

    The exit code stays that of a run that was stopped.
    """
    words = [
        "run",
        spec_of(table),
        "--direct",
        "--set",
        "pilot={rows: 5, max_cost_per_row_usd: 0.00000001}",
    ]
    done = batchata(*words, "--json")
    receipt = json.loads(done.stdout)
    assert (done.returncode, receipt["exit_code"], receipt["outcomes"]) == (1, 1, {"succeeded": 5})
    assert receipt["reason"].startswith("pilot: a row costs $")
    done = batchata(*words)
    assert done.returncode == 1
    assert "pilot failed" in done.stdout
    assert receipt["reason"] in done.stdout


def test_failed_rows_are_shown_with_their_reason(table: Table) -> None:
    """The receipt groups the errors; `show --failed` prints the rows."""
    table.emulator.control.faults(kind="request_refusal", contains="row 4")
    done = batchata("run", spec_of(table), "--direct")
    assert done.returncode == 3
    assert "refused:" in done.stdout
    (row,) = ask("show", spec_of(table), "--failed")
    assert row["id"] == "k4"


def test_ctrl_c_leaves_batches_to_the_next_run(table: Table) -> None:
    """SIGINT ends at once with 130 and says what continues; the same command lands it."""
    table.emulator.control.progress("seconds", 3600)
    with start("run", spec_of(table), "--direct") as running:
        until(lambda: "at the provider" in running.stderr)
        running.send_signal(signal.SIGINT)
        assert running.wait().returncode == 130
    assert "the same command lands them" in running.stderr
    assert "Traceback" not in running.stderr
    table.emulator.control.advance(7200)
    assert ask("run", spec_of(table), "--direct")["continued"] is True
    assert table.ledger()["requests_accepted"] == 12


def test_a_run_is_followed_from_another_terminal(table: Table) -> None:
    """`status --follow` looks on and leaves at Ctrl-C; it ends with the run, and with its code."""
    table.emulator.control.progress("seconds", 3600)
    spec = spec_of(table)
    with start("run", spec, "--direct") as running:
        until(lambda: "at the provider" in running.stderr)
        with start("status", spec, "--follow") as looking:
            until(lambda: "at the provider" in looking.stderr)
            looking.send_signal(signal.SIGINT)
            assert looking.wait().returncode == 130
        assert looking.stderr.splitlines()[-1] == "Stopped looking; the run goes on."
        assert running.returncode is None
        with start("status", spec, "--follow") as looking:
            until(lambda: "at the provider" in looking.stderr)
            table.emulator.control.advance(7200)
            assert looking.wait().returncode == 0
        assert "batch 1 (12 rows): landed" in looking.stderr
        assert "12 succeeded" in looking.stdout
        assert running.wait().returncode == 0
    done = batchata("status", spec, "--follow")
    assert (done.returncode, done.stdout) == (0, "No run of table is open.\n")
    done = batchata("status", "--follow")
    assert (done.returncode, "name the SPEC" in done.stderr) == (2, True)


@pytest.mark.parametrize("width", [30, 60, 80, 130, 400])
def test_rows_fit_the_terminal(table: Table, width: int) -> None:
    """Long texts are cut, in any script.

    Columns that do not fit are named, never silently left out.
    """
    answers = {f"column_{i}": "日本語 [b] " * i for i in range(1, 12)}
    rows = [
        {
            "id": "k1",
            "note": "n",
            "_status": "succeeded",
            **answers,
            "_error": None,
            "_cost_usd": Decimal("0.5"),
        }
    ]
    console = Console(file=(screen := StringIO()), width=width)
    console.print(rows_table(table.spec(), rows, width))
    head, row, *rest = screen.getvalue().splitlines()
    told = " ".join(line.strip() for line in rest)
    assert max(map(cell_len, screen.getvalue().splitlines())) <= width
    assert row.split()[:2] == ["k1", "succeeded"]
    shown, named = head.split(), told.partition(": ")[2].split(", ") if told else []
    assert [*shown, *named] == ["id", "_status", *answers, "note", "_cost_usd"]
    assert told.startswith(f"… and {len(named)} more column" if named else "")


@pytest.mark.parametrize("sent", [False, True])
def test_ctrl_c_says_whether_anything_was_sent(
    capsys: pytest.CaptureFixture[str], sent: bool
) -> None:
    """A run that is stopped while it plans says that nothing was sent.

    Once a batch may have been sent, it says that batches continue.
    """

    def stopped() -> None:
        with boundary(), watched() as progress:
            progress.planned(12, 1, 0)
            if sent:
                progress.chunk(1, 12, "sending")
            raise KeyboardInterrupt

    with pytest.raises(typer.Exit) as ended:
        stopped()
    told = capsys.readouterr().err.splitlines()[-1]
    assert ended.value.exit_code == 130
    goes_on = "Batches that were sent go on at the provider; the same command lands them."
    assert told == f"Stopped. {goes_on if sent else 'Nothing was sent.'}"


def test_ctrl_c_of_what_sends_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    """A plan, which never sends, does not speak of batches."""
    with pytest.raises(typer.Exit) as ended, boundary():
        raise KeyboardInterrupt
    assert (ended.value.exit_code, capsys.readouterr().err) == (130, "Stopped.\n")


def test_counts_and_their_words(capsys: pytest.CaptureFixture[str]) -> None:
    """One of a thing is named in the singular, in progress as in receipts."""
    assert [pluralize(n, "batch") for n in (0, 1, 2, 1200)] == [
        "0 batches",
        "1 batch",
        "2 batches",
        "1,200 batches",
    ]
    assert [pluralize(n, "row is held", "rows are held") for n in (1, 2)] == [
        "1 row is held",
        "2 rows are held",
    ]
    with for_console(err) as progress:
        progress.planned(1, 1, 1)
        progress.planned(2, 2, 0)
    told = capsys.readouterr().err.splitlines()
    assert told == [
        "planned: 1 request in 1 batch, 1 row up to date",
        "planned: 2 requests in 2 batches, 0 rows up to date",
    ]


COMMANDS = [one.name or one.callback.__name__ for one in app.registered_commands if one.callback]


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_an_example_and_exit_codes(command: str) -> None:
    """Every command says what it does and how it ends, with an example to copy.

    Examples name what anybody has who did as the README says, not what only a clone has.
    """
    done = CliRunner().invoke(app, [command, "--help"])
    assert done.exit_code == 0
    assert "Example:" in done.stdout
    assert "Exit codes: " in done.stdout
    assert "deployments/" not in done.stdout


def test_the_emulator_says_how_to_be_used() -> None:
    """`batchata emulator` prints the variables to set, serves, and ends with Ctrl-C."""
    with start("emulator", "--port", "0") as running:
        until(lambda: "OPENAI_API_KEY" in running.stdout)
        url = re.search(r"http://127\.0\.0\.1:\d+", running.stdout)
        assert url is not None
        with urllib.request.urlopen(f"{url.group()}/_emulator/health", timeout=PATIENCE) as answer:
            assert answer.status == 200
        running.send_signal(signal.SIGINT)
        assert running.wait().returncode == 0
    assert f"ANTHROPIC_BASE_URL={url.group()}/anthropic" in running.stdout
    assert f"OPENAI_BASE_URL={url.group()}/openai/v1" in running.stdout
