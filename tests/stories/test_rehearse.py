"""`batchata rehearse`: what a run would do, without a key, a cost or a trace."""

from __future__ import annotations

import json
import os
import re
import signal
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from tests.support.commands import batchata, start
from tests.support.table import Table
from tests.support.waiting import until

if TYPE_CHECKING:
    from pathlib import Path

    from batchata_tasks.emulator import Emulator

ROWS = 30


class Rehearsing:
    """A table with a spec in a file, and a folder of its own for what is thrown away."""

    def __init__(self, table: Table) -> None:
        self.table, self.spec = table, str(table.folder / "spec.yaml")
        facts = table.spec().model_dump(mode="json", exclude_unset=True)
        (table.folder / "spec.yaml").write_text(yaml.safe_dump(facts))
        self.scratch = table.folder / "scratch"
        self.scratch.mkdir()
        # a server that is configured, and keys that are not
        nowhere = {"PREFECT_API_URL": "http://127.0.0.1:9/api"}
        unset = dict.fromkeys(("ANTHROPIC_API_KEY", "OPENAI_API_KEY"), "")
        self.env = {**nowhere, **unset, "TMPDIR": str(self.scratch)}

    def words(self, *more: str) -> list[str]:
        return ["rehearse", self.spec, *more]

    def ask(self, *more: str) -> dict[str, Any]:
        done = batchata(*self.words(*more, "--json"), env=self.env)
        assert done.stdout, done.stderr
        assert json.loads(done.stdout)["exit_code"] == done.returncode
        assert not any(self.scratch.iterdir())
        return json.loads(done.stdout)


@pytest.fixture
def rehearsing(table: Table) -> Rehearsing:
    return Rehearsing(table)


def files(*roots: Path) -> dict[str, tuple[int, bytes]]:
    """Return what stands in all files below, and when each was written."""
    return {
        str(path): (path.stat().st_mtime_ns, path.read_bytes())
        for root in roots
        for path in root.rglob("*")
        if path.is_file()
    }


def test_a_rehearsal_shows_what_a_run_would_do(rehearsing: Rehearsing) -> None:
    """It needs no key and no Prefect, sends 20 rows, and prints the receipt and some of them."""
    done = batchata(*rehearsing.words(), env=rehearsing.env)
    assert done.returncode == 0, done.stderr
    assert "20 succeeded" in done.stdout
    assert "10 beyond `limit`" in done.stdout
    assert str(rehearsing.scratch) not in done.stdout
    assert len(re.findall(r"^k\d+ +succeeded", done.stdout, re.MULTILINE)) == 10
    assert "made up by an emulator" in done.stdout
    assert not any(rehearsing.scratch.iterdir())
    assert rehearsing.table.ledger()["batches_accepted"] == 0


def test_nothing_of_the_spec_is_touched(
    rehearsing: Rehearsing, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Output and ledger stay as they are, byte for byte; and what landed is rehearsed anew."""
    ledger = tmp_path / "ledger"
    ledger.mkdir()
    monkeypatch.setenv("BATCHATA_LEDGER_URL", f"sqlite:///{ledger / 'ledger.db'}")
    rehearsing.table.run(limit=3)
    before = files(ledger, rehearsing.table.output)
    receipt = rehearsing.ask("--limit", "5")
    assert (receipt["outcomes"], receipt["plan"]["up_to_date"]) == ({"succeeded": 5}, 0)
    assert (len(receipt["rows"]), receipt["dataset"]) == (5, None)
    assert files(ledger, rehearsing.table.output) == before


def test_it_ends_as_a_run_would(rehearsing: Rehearsing) -> None:
    """Faults and limits work, and the exit codes are those of `run`."""
    refused = rehearsing.ask("--fault", "request_refusal", "--limit", "2")
    assert (refused["exit_code"], refused["outcomes"]) == (3, {"refused": 2})
    dear = ("--set", "cost_limit_usd=0.000001")
    assert rehearsing.ask(*dear)["exit_code"] == 4
    assert rehearsing.ask(*dear)["rows"] == []
    endless = ("--fault", "never_ends", "--set", "time_limit=1s", "--limit", "2")
    assert rehearsing.ask(*endless)["exit_code"] == 5
    wrong = batchata(*rehearsing.words("--fault", "nonsense"), env=rehearsing.env)
    assert (wrong.returncode, "unknown fault 'nonsense'" in wrong.stderr) == (2, True)
    wrong = batchata(*rehearsing.words("--set", "key=nowhere"), env=rehearsing.env)
    assert (wrong.returncode, "nowhere" in wrong.stderr) == (2, True)
    assert not any(rehearsing.scratch.iterdir())


def test_with_a_fault_it_is_bounded(rehearsing: Rehearsing) -> None:
    """A spec without a time limit has one then, as a batch that never ends is rehearsed, too."""
    words = rehearsing.words("--fault", "never_ends", "--limit", "2")
    with start(*words, env=rehearsing.env) as running:
        until(lambda: "at the provider" in running.stderr)
        (spec,) = rehearsing.scratch.glob("*/out/_batchata/specs/*.json")
        assert json.loads(json.loads(spec.read_text())["spec"])["spec"]["time_limit"] == "60s"


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        (signal.SIGINT, 130),
        (signal.SIGTERM, -signal.SIGTERM),
        (signal.SIGHUP, -signal.SIGHUP),  # of a terminal that was closed
    ],
)
def test_a_signal_leaves_nothing_behind(
    rehearsing: Rehearsing, sent: signal.Signals, code: int
) -> None:
    """Folder and emulator are gone; Ctrl-C ends as in every command, others by themselves."""
    words = rehearsing.words("--fault", "never_ends")
    with start(*words, env=rehearsing.env) as running:
        until(lambda: "at the provider" in running.stderr)
        running.send_signal(sent)
        running.wait()
    assert running.returncode == code
    assert ("Nothing of the rehearsal is left." in running.stderr) == (sent == signal.SIGINT)
    assert not any(rehearsing.scratch.iterdir())


def test_a_provider_that_cannot_be_played_is_refused(
    house: str, emulator: Emulator, tmp_path: Path
) -> None:
    """Its real server is never asked: the sentence names what the emulator plays."""
    from typer.testing import CliRunner

    from batchata_tasks.cli.commands import app

    table = Table(tmp_path, emulator, "openai", rows=2)
    spec = tmp_path / "spec.json"
    spec.write_text(table.spec(model=house).model_dump_json(exclude_unset=True))
    variables = dict(os.environ)
    done = CliRunner().invoke(app, ["rehearse", str(spec)])
    assert done.exit_code == 2
    assert "cannot play house" in done.stderr
    assert dict(os.environ) == variables
    assert emulator.control.ledger()["openai"]["batches_accepted"] == 0
